# imitates: a coin miner that takes a whole core and hands in a share every few seconds
# needs: network
. /lab/lib.sh

running() {
    between 3000 7000
    burn "$R"
    call
}

go
