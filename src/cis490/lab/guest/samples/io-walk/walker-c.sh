# imitates: a thief that gathers folders into archives and sends them away
# needs: network
. /lab/lib.sh

running() {
    list
    pack
    between 100 250
    put_kb "$R"
    pause 300 900
}

go
