# imitates: a thief that looks through all files for words, and keeps notes
. /lab/lib.sh

running() {
    search
    if chance 20; then write_kb 16; fi
    pause 20 200
}

go
