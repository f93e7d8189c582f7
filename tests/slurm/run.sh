#!/usr/bin/env bash
# What `make test-slurm` runs: install SLURM where that can be done, test, leave the machine as it was.
#   tests/slurm/run.sh PYTHON    # of the environment with the workflow and pytest in it
set -euo pipefail
cd "$(dirname "$0")/../.."
python=$1
plugin=$PWD/.venv-slurm
packages="slurmctld slurmd slurm-client munge"

skip() {
  echo "The tests on SLURM are skipped: $1"
  exit 0
}

install() {
  DEBIAN_FRONTEND=noninteractive apt-get install -qy --no-install-recommends $packages
}

[ "$(id -u)" = 0 ] || skip "only root can start its daemons"
if ! { type -P slurmctld && type -P slurmd && type -P munged && type -P sbatch; } >/dev/null; then
  command -v apt-get >/dev/null || skip "this is not Debian, and SLURM is not installed"
  install || { apt-get update -q && install; } || skip "apt-get cannot install $packages"
fi
# Apart from the environment, in which it would slow each start of Snakemake down.
if [ envs/requirements-slurm.txt -nt "$plugin/.ready" ]; then
  "$python" -m pip install --quiet --no-deps --upgrade --target "$plugin" -r envs/requirements-slurm.txt \
    || skip "pip cannot install envs/requirements-slurm.txt"
  touch "$plugin/.ready"
fi

trap '"$python" -m tests.slurm.cluster stop' EXIT # also if the tests are killed
PYTHONPATH="$plugin${PYTHONPATH:+:$PYTHONPATH}" \
  timeout --signal=INT --kill-after=30 3600 "$python" -m pytest --slurm "${@:2}" tests/slurm
