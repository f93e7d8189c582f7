# imitates: a patient scanner: any host, any port, one at a time
# needs: network
. /lab/lib.sh

running() {
    local host
    anyone
    host=$R
    between 9000 9023
    dial "$host" "$R"
    pause 300 1100
}

go
