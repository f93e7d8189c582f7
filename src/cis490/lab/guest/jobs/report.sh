# imitates: a measuring device's reporter: notes what it saw and sends a little of it
# twin: low-and-slow
# needs: network
. /lab/lib.sh

running() {
    append_line
    write_kb 4
    pause 1500 4000
    if chance 30; then
        between 2 12
        put_kb "$R"
    fi
    if chance 15; then stream 10 500; fi
}

go
