# imitates: a worm that guesses passwords: call after call at a service, then the next host
# needs: network
. /lab/lib.sh

running() {
    local i=0
    anyone
    dial "$R" 9003
    while [ $i -lt 8 ]; do
        call
        i=$((i + 1))
        pause 60 220
    done
}

go
