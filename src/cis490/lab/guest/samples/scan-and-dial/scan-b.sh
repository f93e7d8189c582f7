# imitates: a scanner that goes through the ports of one host after another
# needs: network
. /lab/lib.sh

running() {
    local host port=9000
    peer
    host=$R
    while [ $port -lt 9024 ]; do
        dial "$host" $port
        port=$((port + 1))
        pause 20 80
    done
    pause 400 1500
}

go
