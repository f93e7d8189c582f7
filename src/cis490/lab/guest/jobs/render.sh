# imitates: pictures computed in the background, at low priority, one after the other
# twin: cpu-saturate
# needs: network
. /lab/lib.sh

gently

running() {
    local size
    if chance 30; then
        between 8000 20000
        size=$R
        between 1500 5000
        hold "$size" "$R"
    fi
    between 2500 6000
    burn "$R"
    between 64 200
    write_kb "$R"
    call
    if chance 40; then pause 800 3000; fi
}

go
