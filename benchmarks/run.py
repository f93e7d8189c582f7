"""Run a command and say what it cost, with all its children."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
_POLL_S = 0.02


class Failed(Exception):
    """A command ended with an error; its last lines."""


@dataclass(frozen=True)
class Ran:
    """What a command cost.

    Attributes:
        wall_s, cpu_s: CPU is user and system, of the command and of all that it waited for.
        own_peak: bytes, the most that the command's own process held (VmHWM, polled).
        any_peak: bytes, the most that any one process held, the command or below it.
        output: stdout; stderr goes to the end of it.
    """

    wall_s: float
    cpu_s: float
    own_peak: int
    any_peak: int
    output: str


def run(
    command: Sequence[str | Path], *, folder: Path, env: Mapping[str, str] | None = None
) -> Ran:
    """Run `command` in `folder`.

    Raises:
        Failed: it ended with an error.
    """
    log, errors = folder / "bench.out", folder / "bench.err"
    environment = os.environ | {"PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{ROOT}"} | dict(env or {})
    start, peak = time.perf_counter(), 0
    with log.open("wb") as out, errors.open("wb") as err:
        process = subprocess.Popen(
            [str(word) for word in command],
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=err,
            env=environment,
        )
        status = Path(f"/proc/{process.pid}/status")
        while True:
            with suppress(OSError):
                if found := re.search(r"VmHWM:\s+(\d+) kB", status.read_text()):
                    peak = max(peak, int(found[1]) * 1024)
            pid, code, usage = os.wait4(process.pid, os.WNOHANG)
            if pid:
                break
            time.sleep(_POLL_S)
    wall = time.perf_counter() - start
    process.returncode = os.waitstatus_to_exitcode(code)
    said, complained = log.read_text(), errors.read_text()
    if process.returncode:
        lines = (said + complained).strip().splitlines()[-5:]
        words = " ".join(str(word) for word in command[:6])
        raise Failed(f"{words} … ended with {process.returncode}: " + " / ".join(lines))
    cpu = usage.ru_utime + usage.ru_stime
    return Ran(wall, cpu, peak, max(peak, usage.ru_maxrss * 1024), said + complained)


def python(*words: str | Path, folder: Path, env: Mapping[str, str] | None = None) -> Ran:
    """Run this interpreter with `words`."""
    return run([sys.executable, *words], folder=folder, env=env)
