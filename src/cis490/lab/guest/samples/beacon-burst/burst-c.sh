# imitates: a loader that fetches one module after another, with waits between
# needs: network
. /lab/lib.sh

running() {
    between 200 900
    get_kb "$R"
    make_executable
    pause 3000 6500
}

go
