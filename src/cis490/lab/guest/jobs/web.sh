# imitates: pages being read: many short fetches at once, then quiet
# twin: beacon-burst
# needs: network
. /lab/lib.sh

part() {
    between 8 90
    get_kb "$R"
}

running() {
    local i=0
    call
    workers 3 part
    between 3 9
    local parts=$R
    while [ $i -lt "$parts" ]; do
        part
        i=$((i + 1))
    done
    between 100 500
    burn "$R"
    pause 2500 8000
}

go
