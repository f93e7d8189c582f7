# imitates: a trojan that asks for orders now and then and seldom has any
# needs: network
. /lab/lib.sh

running() {
    call
    if chance 30; then write_kb 8; fi
    pause 6000 12000
}

go
