"""Running again after a kill: Snakemake's lock outlives the run that took it, a kernel lock cannot.

Snakemake locks a working directory with files that say nothing of who made them, so after `kill -9`
or a power cut the next run stops until somebody types `--unlock`. Each run of ours holds a kernel
lock beside them for as long as it lives: whoever gets it knows that no other run is alive, and may
remove what a dead one left.
"""

from __future__ import annotations

import fcntl
import os
import time
from pathlib import Path
from typing import IO

_PATIENCE_S = 10.0


def claim(folder: Path) -> IO[str] | None:
    """Take the lock of a working directory, and remove the locks of runs that are dead.

    Args:
        folder: Snakemake's folder, `.snakemake` in the working directory.

    Returns:
        An open file that holds the lock until it is closed or the process ends; None if another run
        is alive or the file system has no locks: then Snakemake's own lock decides.
    """
    folder.mkdir(parents=True, exist_ok=True)
    file = (folder / "cis490.lock").open("w")
    locks = folder / "locks"
    deadline = time.monotonic() + _PATIENCE_S
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            break
        except BlockingIOError:
            # A dry run holds the lock for a moment; a real run has locks of its own by then.
            if (locks.exists() and any(locks.iterdir())) or time.monotonic() > deadline:
                file.close()
                return None
            time.sleep(0.1)
        except OSError:
            file.close()
            return None
    if locks.exists():
        for stale in locks.iterdir():
            stale.unlink(missing_ok=True)
    return file


def held(folder: Path) -> bool:
    """Whether a run of ours is alive in a working directory.

    Args:
        folder: as of `claim`.
    """
    try:
        with (folder / "cis490.lock").open("r+") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:  # no run yet, or a file system without locks
        return False
    return False


def hold(path: Path) -> tuple[IO[str] | None, str | None]:
    """Take a lock of one's own, for as long as the file is open.

    Args:
        path: of the file, which tells those who come later the number of the process.

    Returns:
        The open file, or None where it is another's or the file system has no locks; and what the
        other wrote into it, None if there is no other.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    file = path.open("a+")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        with file:
            file.seek(0)
            return None, file.read().strip() or "unknown"
    except OSError:
        file.close()
        return None, None
    file.truncate(0)
    file.write(str(os.getpid()))
    file.flush()
    return file, None


def keep_out(folder: Path) -> IO[str] | None:
    """Keep runs of a working directory from starting, without waiting and without removing a thing.

    Args:
        folder: as of `claim`; must exist.

    Returns:
        As `claim`; where the file system has no locks, None if Snakemake's own say that a run is
        alive, or was when it was killed.
    """
    file = (folder / "cis490.lock").open("w")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        return None
    except OSError:
        if any((folder / "locks").glob("*")):
            file.close()
            return None
    return file
