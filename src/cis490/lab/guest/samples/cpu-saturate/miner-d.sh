# imitates: a miner whose function needs much memory, which it fills and hops about in
# needs: network
. /lab/lib.sh

running() {
    local size
    between 8000 20000
    size=$R
    between 3000 6000
    hold "$size" "$R"
    call
    pause 100 400
}

go
