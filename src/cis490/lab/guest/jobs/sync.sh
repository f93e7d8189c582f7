# imitates: a folder kept the same on several hosts: asks often, moves files in bursts
# twin: beacon-burst
# needs: network
. /lab/lib.sh

running() {
    call
    pause 900 2500
    if chance 20; then
        checksum
        between 150 600
        put_kb "$R"
    fi
    if chance 15; then
        between 100 500
        get_kb "$R"
    fi
}

go
