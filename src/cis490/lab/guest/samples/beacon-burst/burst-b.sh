# imitates: a bot with a beacon every second and a burst of uploads now and then
# needs: network
. /lab/lib.sh

running() {
    call
    pause 700 1000
    if chance 8; then
        put_kb 200
        put_kb 300
    fi
}

go
