"""A real SLURM cluster of one node on this machine, for as long as the tests take.

    python -m tests.slurm.cluster stop    # what a killed test run left behind

Debian's daemons are started by hand: no systemd, no database, no cgroups. Everything lies in one
folder but the configuration, which must be in /etc/slurm: a job step forgets SLURM_CONF.
"""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

HERE = Path(__file__).resolve().parent
ETC = Path("/etc/slurm")
FOLDER = Path("/run/cis490-slurm")
CONFIGURATION = ("slurm.conf", "gres.conf", "cgroup.conf")
MARK = "of the test cluster of cis490"  # in the first line of each
OURS = {"CIS490_TEST_CLUSTER": str(FOLDER)}  # in the environment of all that belongs to it
DAEMONS = ("slurmd", "slurmctld", "munged")  # in the order in which they end
COMMANDS = ("sbatch", "srun", "scancel", "squeue", "scontrol", "sinfo")


class Unusable(Exception):
    """There can be no test cluster here; the message says why."""


def require_usable() -> None:
    """Raise `Unusable` unless a cluster can be started here without touching anybody's own."""
    if os.geteuid() != 0:
        raise Unusable("only root can start SLURM's daemons")
    conf = ETC / "slurm.conf"
    if conf.exists() and not _is_ours(conf):
        raise Unusable(f"{conf} belongs to another cluster, which is left alone")
    if lacking := [name for name in (*DAEMONS, *COMMANDS) if _find(name) is None]:
        raise Unusable(f"no {', no '.join(lacking)}: apt-get install slurm-wlm munge")


@contextmanager
def cluster() -> Iterator[Path]:
    """Run the cluster; gives the folder with its logs. Leaves the machine as it was."""
    require_usable()
    stop()
    try:
        _start()
        yield FOLDER
    finally:
        stop()


def _start() -> None:
    for name in ("state", "spool", "kept"):
        (FOLDER / name).mkdir(parents=True)
    key = FOLDER / "munge.key"
    key.write_bytes(secrets.token_bytes(128))
    key.chmod(0o400)
    _configure()
    _daemon(
        *("munged", "--force", f"--socket={FOLDER}/munge.socket", f"--key-file={key}"),
        *(f"--pid-file={FOLDER}/munged.pid", f"--log-file={FOLDER}/munged.log"),
        *(f"--seed-file={FOLDER}/munge.seed", "--num-threads=2"),
    )
    _daemon("slurmctld", "-c")
    _daemon("slurmd", "-c", "-N", "node0")
    wait_for(lambda: "idle" in said("sinfo", "-h", "-o", "%T"), "an idle node", 30)


def _configure() -> None:
    """Put our files into /etc/slurm; others of these names are kept until `stop`."""
    ETC.mkdir(exist_ok=True)
    host = socket.gethostname().split(".")[0]
    for name in CONFIGURATION:
        place = ETC / name
        if place.exists():
            shutil.move(place, FOLDER / "kept" / name)
        text = (HERE / name).read_text()
        place.write_text(text.replace("@HOST@", host).replace("@FOLDER@", str(FOLDER)))


def stop() -> None:
    """End our daemons and jobs, and put /etc/slurm back; nothing if there is nothing of ours."""
    for name in DAEMONS:
        with suppress(OSError, ValueError):
            _end(int((FOLDER / f"{name}.pid").read_text()), name)
    while found := _left_over():
        for pid in found:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.1)
    for name in CONFIGURATION:
        if _is_ours(ETC / name):
            (ETC / name).unlink()
        if (kept := FOLDER / "kept" / name).exists():
            shutil.move(kept, ETC / name)
    shutil.rmtree(FOLDER, ignore_errors=True)


def said(*command: str) -> str:
    """Standard output of a command; empty if it failed."""
    return subprocess.run(command, capture_output=True, text=True).stdout


def wait_for(condition: Callable[[], object], what: str, seconds: float) -> None:
    """Return once `condition` holds."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"{what} did not come within {seconds} s{logs()}"
        time.sleep(0.2)


def logs() -> str:
    """The last lines of what the daemons wrote."""
    ends = [
        f"\n{path}:\n" + "\n".join(path.read_text(errors="replace").splitlines()[-15:])
        for path in sorted(FOLDER.glob("*.log"))
    ]
    return "".join(ends)


def _find(name: str) -> str | None:
    return shutil.which(name, path=os.pathsep.join([os.environ["PATH"], "/usr/sbin", "/sbin"]))


def _daemon(name: str, *arguments: str) -> None:
    done = subprocess.run(
        [_find(name) or name, *arguments],
        env=os.environ | OURS,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, f"{name}: {done.stdout}{done.stderr}{logs()}"


def _is_ours(file: Path) -> bool:
    return file.exists() and MARK in file.read_text().partition("\n")[0]


def _end(pid: int, name: str) -> None:
    """Ask a daemon to end, and make it end if it does not within 10 s."""
    comm = Path(f"/proc/{pid}/comm")
    for number, patience in ((signal.SIGTERM, 10.0), (signal.SIGKILL, 2.0)):
        deadline = time.monotonic() + patience
        if comm.read_text().strip() != name:  # it is gone, and its number another's
            return
        os.kill(pid, number)
        while comm.exists() and time.monotonic() < deadline:
            time.sleep(0.05)


def _left_over() -> list[int]:
    """Processes of jobs, by our mark in their environment, and slurmstepd, which works here."""
    marks = {"=".join(*OURS.items()).encode(), b"SLURM_CLUSTER_NAME=cis490test"}
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it has ended
            marked = not marks.isdisjoint((process / "environ").read_bytes().split(b"\0"))
            at_work = str((process / "cwd").readlink()).startswith(str(FOLDER))
            living = (process / "status").read_text().partition("State:\t")[2][:1] != "Z"
            if (marked or at_work) and living and int(process.name) != os.getpid():
                found.append(int(process.name))
    return found


if __name__ == "__main__":
    if sys.argv[1:] != ["stop"]:
        sys.exit(__doc__)
    stop()
