# imitates: a miner that stays at some 60% of a core, lest anyone look
# needs: network
. /lab/lib.sh

running() {
    burn 600
    pause 300 500
    if chance 10; then call; fi
}

go
