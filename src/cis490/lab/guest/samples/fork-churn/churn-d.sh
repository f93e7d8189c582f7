# imitates: a worm's workers: several at a time, each computes a little and is replaced
. /lab/lib.sh

work() {
    between 60 250
    burn "$R"
    small 1
}

running() {
    workers 4 work
    pause 50 250
}

go
