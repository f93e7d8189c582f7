# imitates: a rootkit's watchdogs that look at the system and start each other
. /lab/lib.sh

look() {
    small 2
    workers 1 small 1
}

running() {
    workers 2 look
    pause 250 800
}

go
