# imitates: a nightly backup: folder after folder packed and sent to another host
# twin: io-walk
# needs: network
. /lab/lib.sh

gently

running() {
    list
    pack
    between 120 300
    put_kb "$R"
    pause 600 1800
}

go
