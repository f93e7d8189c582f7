# imitates: a miner of low priority that works in spells, as if waiting for an idle user
# needs: network
. /lab/lib.sh

gently

running() {
    call
    between 4000 8000
    burn "$R"
    pause 2000 5000
}

go
