# imitates: a worm that sweeps the network for one service, several hosts at a time
# needs: network
. /lab/lib.sh

one() {
    anyone
    dial "$R" 9001
}

running() {
    workers 5 one
    pause 100 400
}

go
