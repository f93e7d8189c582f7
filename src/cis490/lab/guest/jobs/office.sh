# imitates: a person who writes: short work at each change, documents saved, a page fetched
# twin: low-and-slow
# needs: network
. /lab/lib.sh

running() {
    between 40 160
    burn "$R"
    pause 500 2500
    if chance 20; then
        read_file
        write_kb 32
    fi
    if chance 10; then
        between 16 64
        get_kb "$R"
    fi
}

go
