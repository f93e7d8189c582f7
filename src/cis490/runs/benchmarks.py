"""What Snakemake measured of each job, from results/benchmarks.

Snakemake looks at a job each half second for its first 15 s and each 30 s from then on, so what it
says of processor time and memory is what it saw at its last look: at least so much.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Final

from cis490.files import StrPath
from cis490.runs.state import name_of

FOLDER: Final = "benchmarks"
_MIB: Final = 2**20


@dataclass(frozen=True)
class Benchmark:
    """One job as its benchmark file has it.

    Attributes:
        path: of the file.
        rule: of the job.
        name: what tells it from others of its rule.
        seconds: from its start to its end.
        cpu_seconds, peak_bytes: of all its processes together; None if nothing was measured.
        ended: when the file was written, seconds since 1970.
    """

    path: Path
    rule: str
    name: str
    seconds: float
    cpu_seconds: float | None
    peak_bytes: float | None
    ended: float


def read(path: StrPath, rule: str) -> Benchmark | None:
    """One benchmark file; None if it is gone, empty or damaged.

    Of a job that was repeated, the longest.
    """
    file = Path(path)
    try:
        ended = file.stat().st_mtime
        header, *rows = file.read_text(encoding="utf-8").splitlines()
        values = [dict(zip(header.split("\t"), row.split("\t"), strict=True)) for row in rows]
        best = max(values, key=lambda row: float(row["s"]))
        duration = float(best["s"])
    except (OSError, ValueError, KeyError):
        return None
    if not 0 <= duration < math.inf:
        return None
    peak = _number(best.get("max_rss"))
    return Benchmark(
        file,
        rule,
        name_of(rule, file.as_posix(), {}),
        duration,
        _number(best.get("cpu_time")),
        None if peak is None else peak * _MIB,
        ended,
    )


def read_all(results: StrPath) -> tuple[list[Benchmark], list[Path]]:
    """All benchmarks of a results folder, by path, and the files that cannot be read."""
    good, bad = [], []
    for path, rule in _files(Path(results) / FOLDER):
        one = read(path, rule)
        if one is None:
            bad.append(path)
        else:
            good.append(one)
    return good, bad


def key(path: StrPath) -> str:
    """What stays of a benchmark's path, as a rule has it, when its results folder is moved."""
    parts = PurePosixPath(path).parts
    return "/".join(parts[parts.index(FOLDER) + 1 :] if FOLDER in parts else parts)


def _files(folder: Path) -> Iterator[tuple[Path, str]]:
    """Benchmark files and their rules: benchmarks/<rule>.tsv and benchmarks/<rule>/….tsv."""
    for path in sorted(folder.rglob("*.tsv")):
        yield path, path.relative_to(folder).with_suffix("").parts[0]


def _number(text: str | None) -> float | None:
    """A number; None for NA and - of jobs that ended before they were looked at."""
    try:
        value = float(text or "")
    except ValueError:
        return None
    return value if 0 <= value < math.inf else None
