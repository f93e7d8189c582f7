# imitates: a watcher of the network: which hosts and services answer, a few at a time
# twin: scan-and-dial
# needs: network
. /lab/lib.sh

one() {
    local host
    anyone
    host=$R
    between 9000 9023
    dial "$host" "$R"
}

running() {
    if chance 60; then workers 3 one; else one; fi
    if chance 30; then call; fi
    append_line
    pause 300 1600
}

go
