"""How the last run of a results folder is doing, from its journal, for those who look on."""

from __future__ import annotations

import os
import socket
import time
from pathlib import Path

from cis490.errors import Cis490Error
from cis490.files import StrPath
from cis490.runs import journal, lines
from cis490.runs.estimate import Earlier, time_left
from cis490.runs.state import Job, State
from cis490.words import about, count, duration


def status(results: StrPath) -> list[str]:
    """Lines: how far it is, a line a stage, what is running, what failed, what is left.

    Raises:
        Cis490Error: there is no journal of a run.
    """
    path = Path(results) / journal.NAME
    state = State.of(journal.last_run(journal.read(path)))
    if state.began is None:
        raise Cis490Error(
            f"{path} has no run: it is written by `make run` and by `snakemake --logger cis490`"
        )
    now = time.time()
    return [
        *_head(state, Path(results), now),
        *_stages(state),
        *(f"running: {job}, {duration(now - job.started)}" for job in _running(state)),
        *(lines.failed(job) for job in state.failed.values()),
    ]


def _head(state: State, results: Path, now: float) -> list[str]:
    if state.outcome is not None:
        return [lines.end(state)[0]]
    n = f"{len(state.done):,} of {count(state.n_planned, 'job')} done"
    if _dead(state):
        return [f"killed: {n}; its main process is gone and wrote no end"]
    left = time_left(state, Earlier.of(results), now)
    words = f", about {about(left.seconds)} left" if left else ""
    return [f"running for {duration(now - (state.began or now))}: {n}{words}"]


def _stages(state: State) -> list[str]:
    counts = state.counts()
    width = max((len(rule) for rule in counts), default=0)
    return [
        f"  {rule:{width}} {done}/{planned}{f', {failed} failed' if failed else ''}"
        for rule, (done, _, failed, planned) in counts.items()
    ]


def _running(state: State) -> list[Job]:
    """What runs, the longest first; nothing does of a run that ended or was killed."""
    if state.outcome is not None or _dead(state):
        return []
    return sorted(state.running.values(), key=lambda job: job.started)


def _dead(state: State) -> bool:
    """Whether the run's main process is known to be gone: only its own machine can tell."""
    if state.pid is None or state.host != socket.gethostname():
        return False
    try:
        os.kill(state.pid, 0)
    except ProcessLookupError:
        return True
    except OSError:
        pass
    return False
