# imitates: logs that grow, are compressed and begin anew; old ones are looked through
# twin: io-walk
. /lab/lib.sh

running() {
    append_line
    if chance 40; then rewrite; fi
    if chance 25; then search; fi
    pause 150 900
}

go
