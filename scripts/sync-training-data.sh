#!/usr/bin/env bash
# Pulls a store of episodes from another machine, by rsync over ssh.
set -euo pipefail
export LC_ALL=C # file names and torn lines are bytes

usage() {
  cat <<'END'
usage: SYNC_HOST=host SYNC_FOLDER=folder scripts/sync-training-data.sh STORE

Pull what the index of a store on another machine names and STORE does not have yet. STORE is made if
need be, and its index is written last: it never names a file that has not come. What is in STORE is
never removed. A pull that was interrupted goes on where it stopped when it is run again.

  SYNC_HOST        where the store is; may be a Host of the ssh config
  SYNC_FOLDER      the store there: absolute, or relative to the home folder
  SYNC_USER        who to log in as (default: as ssh says)
  SYNC_BWLIMIT     at most so many bytes a second, such as 500K or 10M (default: no limit)
  SYNC_SSH_CONFIG  an ssh config file with port, key or jump host (default: ssh's own)
END
}

refuse() {
  echo "error: $*" >&2
  exit 2
}

fail() {
  echo "error: $*" >&2
  exit 1
}

if [[ ${1-} == -h || ${1-} == --help ]]; then
  usage
  exit 0
fi
if (($# != 1)) || [[ -z $1 ]]; then
  usage >&2
  exit 2
fi

host=${SYNC_HOST-} folder=${SYNC_FOLDER-} user=${SYNC_USER-} limit=${SYNC_BWLIMIT-}
config=${SYNC_SSH_CONFIG-}
[[ -n $host ]] || refuse "SYNC_HOST is not set: name the machine that has the store"
[[ -n $folder ]] || refuse "SYNC_FOLDER is not set: name the folder of the store on $host"
# What begins with a dash would be an option of ssh.
[[ $host =~ ^([A-Za-z0-9_][A-Za-z0-9._-]*|\[[0-9A-Fa-f:.]+\])$ ]] \
  || refuse "SYNC_HOST: '$host' is no name of a host"
[[ -z $user || $user =~ ^[A-Za-z0-9_][A-Za-z0-9._-]*$ ]] \
  || refuse "SYNC_USER: '$user' is no name of a user"
[[ -z $limit || $limit =~ ^[0-9]+(\.[0-9]+)?[KMG]?$ ]] \
  || refuse "SYNC_BWLIMIT: '$limit' is no rate: a number with K, M or G, such as 10M"
[[ $folder != *$'\n'* && $folder != :* ]] || refuse "SYNC_FOLDER: '$folder' is no folder"
[[ -z $config || -r $config ]] || refuse "SYNC_SSH_CONFIG: cannot read '$config'"
[[ $config != *\'* ]] || refuse "SYNC_SSH_CONFIG: '$config' has a quote in its name"
for tool in rsync ssh flock; do
  command -v "$tool" >/dev/null || fail "$tool is not installed here"
done

mkdir -p -- "$1" || fail "cannot make the folder '$1'"
store=$(cd -- "$1" && pwd)
index=$store/index.jsonl
work=$store/.sync
mkdir -p -- "$work" || fail "cannot write to '$store'"

exec 9>"$work/lock"
flock -n 9 || fail "another pull into '$store' is under way"

# Nobody is there to type a password, and a line that is dead is to be noticed. A connection that
# outlives the pull would hold its lock.
shell="ssh -o BatchMode=yes -o ConnectTimeout=30 -o ServerAliveInterval=15"
shell+=" -o ServerAliveCountMax=4 -o ControlMaster=no -o ControlPath=none"
[[ -z $config ]] || shell+=" -F '$config'"
source=${user:+$user@}$host:${folder%/}
pull() {
  rsync --protect-args --rsh="$shell" --timeout=300 --times ${limit:+"--bwlimit=$limit"} "$@"
}

# The index as it is now: what it names is there already, what arrives from now on waits for the
# next pull. A last line without its end has not been written whole.
pull -- "$source/index.jsonl" "$work/index.jsonl" \
  || fail "cannot get $source/index.jsonl: rsync or ssh says why above"
[[ -e $index ]] || : >"$work/none"
known=$index
[[ -e $index ]] || known=$work/none
if [[ -n $(tail -c 1 -- "$work/index.jsonl") ]]; then
  sed '$d' -- "$work/index.jsonl"
else
  cat -- "$work/index.jsonl"
fi | KNOWN=$known awk '
  BEGIN { while ((getline line < ENVIRON["KNOWN"]) > 0) seen[line] = 1 }
  !($0 in seen)
' >"$work/new.jsonl"

# Number of the line and path, of each record in a line: a torn one may hold two.
{ grep -anoE '"path"[[:space:]]*:[[:space:]]*"([^"\\]|\\.)*"' -- "$work/new.jsonl" || true; } \
  | sed -E 's/^([0-9]+):"path"[[:space:]]*:[[:space:]]*"(.*)"$/\1\t\2/; s,\\/,/,g' >"$work/paths"

# A path that leaves the store is not followed, here as in the workflow, which reports its record.
inside() {
  [[ /$1/ != //* && /$1/ != */../* ]]
}
while IFS=$'\t' read -r _ path; do
  if inside "$path"; then printf '%s\0' "$path"; fi
done <"$work/paths" | sort -zu >"$work/wanted"

code=0
if [[ -s $work/wanted ]]; then
  # What a pull that was killed left under rsync's names for files that are coming.
  find -L "$store" -maxdepth 2 -type f -name '.?*.tar.zst.??????' -mmin +1440 -delete \
    || true
  pull --files-from="$work/wanted" --from0 --copy-links --keep-dirlinks --no-implied-dirs \
    --partial-dir="$work/partial" -- "$source/" "$store/" || code=$?
fi
case $code in
  # 23 and 24: some are not there, or could not be read. The others have come.
  0 | 23 | 24) ;;
  *) fail "rsync ended with code $code: run it again, it goes on where it stopped" ;;
esac

lacking=()
while IFS=$'\t' read -r number path; do
  if inside "$path" && [[ ! -f $store/$path ]]; then
    echo "$number"
    lacking+=("$path")
  fi
done <"$work/paths" >"$work/held"
HELD=$work/held awk '
  BEGIN { while ((getline number < ENVIRON["HELD"]) > 0) held[number] = 1 }
  !(NR in held)
' "$work/new.jsonl" >"$work/come.jsonl"

lines=$(wc -l <"$work/come.jsonl")
if ((lines > 0)); then
  {
    cat -- "$known"
    # A line that was torn here must not run together with the next.
    if [[ -n $(tail -c 1 -- "$known") ]]; then echo; fi
    cat -- "$work/come.jsonl"
  } >"$work/index.new"
  sync -- "$work/index.new"
  mv -- "$work/index.new" "$index"
fi
echo "$store: $lines new lines of the index of $source"
if ((${#lacking[@]} > 0)); then
  echo "left out until their file comes: ${#lacking[@]}, such as ${lacking[0]}" >&2
fi
