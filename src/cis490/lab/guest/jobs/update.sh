# imitates: a system update: mirrors tried, packages fetched, checked, unpacked
# twin: beacon-burst
# needs: network
. /lab/lib.sh

running() {
    anyone
    dial "$R" 9002
    between 300 1000
    get_kb "$R"
    if chance 60; then
        unpack
        checksum
        small 3
    fi
    pause 1500 5000
}

go
