# imitates: a program being installed: fetched, unpacked, written, made executable, set up
# twin: none
# needs: network
. /lab/lib.sh

running() {
    between 100 600
    get_kb "$R"
    if chance 60; then unpack; fi
    between 64 512
    write_kb "$R"
    make_executable
    between 2 10
    small "$R"
    if chance 40; then burn 300; fi
    pause 300 1800
}

go
