# imitates: a film that is played: work for each group of frames, a stream that keeps it fed
# twin: cpu-saturate
# needs: network
. /lab/lib.sh

running() {
    burn 350
    pause 250 400
    if chance 12; then
        between 150 400
        get_kb "$R"
    fi
}

go
