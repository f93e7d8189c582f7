# imitates: a test suite: swarms of short processes, most of which wait for something
# twin: fork-churn
. /lab/lib.sh

test_one() {
    pause 150 700
    small 1
}

running() {
    between 6 16
    workers "$R" test_one
    append_line
    pause 600 2000
}

go
