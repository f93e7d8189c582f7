# imitates: ransomware that takes file by file, each compressed and written anew
. /lab/lib.sh

running() {
    rewrite
    pause 50 250
}

go
