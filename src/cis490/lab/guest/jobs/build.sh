# imitates: a compiler run over many files: short processes, some at a time, then a linker
# twin: fork-churn
. /lab/lib.sh

compile() {
    between 80 300
    burn "$R"
    small 1
    read_file
}

running() {
    small 4
    workers 3 compile
    between 32 128
    write_kb "$R"
    if chance 15; then hold 12000 1500; fi
    pause 100 500
}

go
