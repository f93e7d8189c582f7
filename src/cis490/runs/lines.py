"""What is said of a run in plain lines: all of it where there is no terminal, the rest on one."""

from __future__ import annotations

import os
import re
from datetime import datetime
from pathlib import Path
from typing import Final

from cis490.runs.state import Job, State
from cis490.words import count, duration, memory

_TAIL_LINES: Final = 3  # of a failed job's log
_TAIL_BYTES: Final = 4096
# How logs.job begins a line of a job's log.
_STAMP: Final = re.compile(r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} [A-Z]+ ")
_CONTROL: Final = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]|[^\x20-\x7e\xa0-\U0010ffff]")


def plan(state: State) -> str:
    """How many jobs the run has, in the order of the data."""
    stages = ", ".join(f"{rule} {counts[-1]}" for rule, counts in state.counts().items())
    return f"{count(state.n_planned, 'job')}: {stages}"


def done(state: State, job: Job) -> str:
    """That a job ended well."""
    clock = datetime.fromtimestamp(job.ended or job.started).strftime("%H:%M:%S")
    n = f"{len(state.done)}/{state.n_planned}"
    return f"{clock} {n} {job}: {', '.join([duration(_took(job)), *_memory(job)])}"


def failure(job: Job, folder: Path) -> list[str]:
    """That a job failed, after how long, where its log is, and how that ends."""
    lines = [f"failed: {job}, after {duration(_took(job))}"]
    for path in job.log:
        lines.append(f"  log: {path}")
        lines += [f"    {line}" for line in tail(folder / path)]
    return lines if job.log else [*lines, "  it has no log"]


def tail(path: Path, n: int = _TAIL_LINES) -> list[str]:
    """The last lines of a log that say anything, without the control codes that may be in it."""
    try:
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(size - _TAIL_BYTES, 0))
            text = file.read().decode(errors="replace")
    except OSError:
        return []
    lines = [_CONTROL.sub("", line) for line in re.split(r"[\r\n]+", text) if line.strip()]
    return [_STAMP.sub("", line).rstrip() for line in lines[-n:]]


def end(state: State) -> list[str]:
    """How the run ended."""
    took = duration((state.ended or 0) - (state.began or 0))
    n = f"{len(state.done):,} of {count(state.n_planned, 'job')} done"
    if state.outcome == "finished":
        return [f"{n} in {took}{_busy(state)}"]
    lines = [f"{state.outcome} after {took}: {n}, {len(state.failed):,} failed{_busy(state)}"]
    lines += [f"  {failed(job)}" for job in state.failed.values()]
    return lines + [f"  {failed(job, 'not ended')}" for job in state.running.values()]


def failed(job: Job, how: str = "failed") -> str:
    """That a job failed and where its log is, in a line."""
    return f"{how}: {job}{f', log: {job.log[0]}' if job.log else ''}"


def _busy(state: State) -> str:
    took = (state.ended or 0) - (state.began or 0)
    if state.cpu_seconds is None or took <= 0:
        return ""
    cores = state.room.get("_cores")
    of = f" of {cores:g}" if cores else ""
    return f", {state.cpu_seconds / took:.1f}{of} cores kept busy"


def _took(job: Job) -> float:
    return (job.ended or job.started) - job.started


def _memory(job: Job) -> list[str]:
    peak = job.usage.get("peak_bytes")
    return [memory(peak)] if peak else []
