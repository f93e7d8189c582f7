# imitates: a thief that takes a file every few seconds and sends a little of it
# needs: network
. /lab/lib.sh

running() {
    read_file
    between 1 4
    put_kb "$R"
    pause 2500 6000
}

go
