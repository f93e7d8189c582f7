# What the programs of the lab are made of. Samples and jobs use these words and nothing else, so
# that no command by itself tells one from the other: only what is done how often does.
#
# A program is a function `running`, one round of its work, and a last line `go`. A sample may have
# its own `armed`, `infecting` and `dormant`; a job has none. From the environment come
#   PHASE  armed, infecting, running or dormant (running, if absent)
#   PACE   0.6 to 1.6: pauses are divided by it
#   SEED   all randomness comes from it
# A word with a result leaves it in R, for a `$(…)` would be one more process. Programs are called
# with their path: without it this shell would do in a process of its own name what they do.

: "${PHASE:=running}" "${PACE:=1}" "${SEED:=1}"
RANDOM=$SEED
own=/data/${0##*/} # a folder of the program's own
/bin/mkdir -p "$own"

case $PACE in
    *.*) thousandths=${PACE#*.}00 ;;
    *) thousandths=000 ;;
esac
thousandths=${thousandths%"${thousandths#???}"}
thousandths=$((${PACE%.*} * 1000 + 1$thousandths - 1000))

# --- chance and time

between() { # A B: R is a random number from A to B
    R=$(($1 + RANDOM * ($2 - $1 + 1) / 32768))
}

chance() { # PERCENT: true so often
    [ $((RANDOM % 100)) -lt "$1" ]
}

pause() { # A [B]: wait so many ms, or from A to B; at PACE. Needs no process, as sleep would.
    local ms
    between "$1" "${2:-$1}"
    ms=$((R * 1000 / thousandths))
    R=00$((ms % 1000))
    read -r -t "$((ms / 1000)).${R#"${R%???}"}" _ <>/run/quiet
}

now() { # R is the time since boot in ms
    local rest
    read -r R rest </proc/uptime
    R=${R%.*}${R#*.}0
}

burn() { # MS: compute for so long
    local end i
    now
    end=$((R + $1))
    while now && [ "$R" -lt "$end" ]; do
        i=0
        while [ $i -lt 200 ]; do i=$((i + 1)); done
    done
}

hold() { # KB MS: compute for so long in so much memory
    /bin/awk -v "kb=$1" -v "ms=$2" -v "seed=$RANDOM" '
        function now(    part) {
            getline line <"/proc/uptime"
            close("/proc/uptime")
            split(line, part, " ")
            return part[1] * 1000
        }
        BEGIN {
            end = now() + ms
            srand(seed)
            block = sprintf("%1000s", "")
            for (i = 0; i < kb; i++) memory[i] = block i
            while (now() < end)
                for (i = 0; i < 200; i++) memory[int(rand() * kb)] = block i
        }'
}

gently() { # from here on this program gives way to others
    /bin/renice -n 10 -p $$
}

# --- processes

small() { # N: so many short-lived programs, one after the other
    local i=0
    while [ $i -lt "$1" ]; do
        case $((RANDOM % 6)) in
            0) /bin/uname -a ;;
            1) /bin/id ;;
            2) /bin/ls -l "$own" ;;
            3) /bin/stat /data/files ;;
            4) /bin/date ;;
            5) /bin/cut -d: -f1 /proc/mounts ;;
        esac
        i=$((i + 1))
    done >/dev/null
}

workers() { # N WORD...: so many processes of this program at a time do it; waits for all
    local i=0 n=$1
    shift
    while [ $i -lt "$n" ]; do
        RANDOM=$((RANDOM + i)) # else all of them would draw the same
        "$@" &
        i=$((i + 1))
    done
    wait
}

# --- the disk. What is written is synced and what is read comes from the disk, not from memory.
# A file's name is a number, for it stands on command lines and must not tell whose it is.

a_name() { # written is the path of one of six files of the program's own
    written=$own/$((RANDOM % 6))
}

write_kb() { # KB: write a file anew
    a_name
    /bin/dd if=/dev/zero "of=$written" bs=4k "count=$((($1 + 3) / 4))" conv=fsync status=none
}

append_line() { # a line more in a file, not synced
    a_name
    echo "$RANDOM $RANDOM $RANDOM $RANDOM" >>"$written"
}

forget() { # drop the cache of what was read
    echo 1 >/proc/sys/vm/drop_caches
}

a_folder() { # R is one of the 16 folders of the disk, of some 600 KB in 12 files
    R=0$((RANDOM % 16))
    R=/data/files/${R#"${R%??}"}
}

a_file() { # R is one of their files, 4 to 96 KB
    local folder
    a_folder
    folder=$R
    R=0$((RANDOM % 12))
    R=$folder/${R#"${R%??}"}
}

read_file() { # read one file
    a_file
    forget
    /bin/cat "$R" >/dev/null
}

read_folder() { # read all of one folder
    a_folder
    forget
    /bin/cat "$R"/* >/dev/null
}

checksum() { # sums over one folder
    a_folder
    forget
    a_name
    /bin/md5sum "$R"/* >"$written"
}

search() { # look for a word in one folder
    a_folder
    forget
    /bin/grep -c -r hello "$R" >/dev/null
}

list() { # the names and sizes of all files
    a_name
    /bin/find /data/files -type f -size +8k >"$written"
}

rewrite() { # read a file and write it anew, compressed
    a_file
    forget
    a_name
    /bin/gzip -1 -c "$R" >"$written"
    /bin/sync
}

pack() { # compress one folder into an archive
    a_folder
    forget
    /bin/tar -c -f - "$R" 2>/dev/null | /bin/gzip -1 >"$own/pack"
    /bin/sync
}

unpack() { # and unpack it
    [ -e "$own/pack" ] || pack
    /bin/mkdir -p "$own/unpacked"
    /bin/gunzip -c <"$own/pack" | /bin/tar -x -f - -C "$own/unpacked"
    /bin/sync
}

make_executable() { # what was written last
    /bin/chmod 755 "$written"
}

# --- the network: 10.77.0.100 to 109 answer, on 9001 to 9003; from 110 to 130 there is nobody

peer() { # R is a host that answers
    R=10.77.0.$((100 + RANDOM % 10))
}

anyone() { # R is the address of a host or of nobody
    R=10.77.0.$((100 + RANDOM % 31))
}

put_kb() { # KB: send so much to a peer
    peer
    /bin/dd if=/dev/zero bs=1k "count=$1" status=none | /bin/nc "$R" 9001
}

get_kb() { # KB: fetch so much from a peer into a file
    peer
    a_name
    echo $(($1 * 1024)) | /bin/nc "$R" 9002 >"$written"
}

call() { # exchange a line with a peer
    peer
    echo "$RANDOM" | /bin/nc "$R" 9003 >/dev/null
}

dial() { # ADDRESS PORT: does anyone answer there?
    /bin/nc -w 1 "$1" "$2" </dev/null >/dev/null 2>&1
}

stream() { # N MS: one long connection, N times 1 KB with a pause after each
    local i=0
    peer
    while [ $i -lt "$1" ]; do
        echo "$line$line$line$line"
        i=$((i + 1))
        pause "$2"
    done | /bin/nc "$R" 9001
}

line=0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef
line=$line$line$line$line

# --- phases

armed() { # a little is fetched; then it asks for orders about once a second
    if [ -z "$asked" ]; then
        asked=1
        between 4 32
        get_kb "$R"
    fi
    call
    pause 700 1300
}

infecting() { # fetch, write, make executable, look about, and on to the next piece
    between 100 500
    get_kb "$R"
    if chance 60; then unpack; fi
    between 64 512
    write_kb "$R"
    make_executable
    between 8 20
    small "$R"
    if chance 40; then burn 300; fi
    pause 50 300
}

dormant() { # now and then a sign of life
    pause 2500 4500
    call
}

go() { # the phase's round, for ever
    while :; do "$PHASE"; done
}
