# imitates: ransomware that rewrites folder after folder as fast as the disk can
. /lab/lib.sh

running() {
    read_folder
    between 400 800
    write_kb "$R"
}

go
