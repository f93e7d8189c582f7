# imitates: a dropper's script: small programs one after the other without end
. /lab/lib.sh

running() {
    small 8
    pause 200 500
}

go
