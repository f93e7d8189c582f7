# imitates: a bot that is still, and then sends out some hundred kilobytes at once
# needs: network
. /lab/lib.sh

running() {
    between 200 700
    put_kb "$R"
    pause 4000 7000
}

go
