# imitates: a bot in an attack: dozens of short connections in a row, then none
# needs: network
. /lab/lib.sh

running() {
    local i=0
    between 15 30
    local calls=$R
    while [ $i -lt "$calls" ]; do
        call
        i=$((i + 1))
    done
    pause 3500 8000
}

go
