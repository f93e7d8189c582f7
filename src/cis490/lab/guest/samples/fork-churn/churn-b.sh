# imitates: a fork bomb on a leash: a swarm of processes, then rest
. /lab/lib.sh

breath() {
    pause 200 800
}

running() {
    between 15 35
    workers "$R" breath
    pause 1200 3500
}

go
