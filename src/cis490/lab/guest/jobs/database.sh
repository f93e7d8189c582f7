# imitates: a small database: reads here and there, writes that are synced, a cache in memory
# twin: io-walk
. /lab/lib.sh

running() {
    read_file
    between 8 64
    write_kb "$R"
    burn 30
    if chance 8; then read_folder; fi
    if chance 4; then hold 10000 600; fi
    pause 60 350
}

go
