# imitates: a machine that nobody uses, whose timers fire now and then
# twin: none
. /lab/lib.sh

running() {
    pause 4000 9000
    if chance 50; then small 1; fi
}

go
