# imitates: a keylogger: writes a little all the time and sends it off when it is enough
# needs: network
. /lab/lib.sh

running() {
    write_kb 4
    pause 900 2200
    if chance 15; then
        between 8 16
        put_kb "$R"
    fi
}

go
