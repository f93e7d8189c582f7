# imitates: a tunnel: one connection over which a trickle leaves
# needs: network
. /lab/lib.sh

running() {
    between 15 40
    stream "$R" 700
    pause 1000 3000
}

go
