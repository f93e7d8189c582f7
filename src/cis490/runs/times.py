"""Where time and memory went: the benchmarks of a results folder as tables."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Final

from cis490.errors import Cis490Error
from cis490.files import StrPath
from cis490.markdown import table
from cis490.runs import benchmarks, journal, lines
from cis490.runs.benchmarks import Benchmark
from cis490.runs.journal import Event
from cis490.runs.state import State
from cis490.words import count, duration

NOTHING: Final = "-"  # nothing was measured
_SLOWEST: Final = 10
_NAMED: Final = 3  # damaged files that are named
_MIB: Final = 2**20


@dataclass(frozen=True)
class Rule:
    """All jobs of a rule.

    Attributes:
        name: of the rule.
        n: jobs.
        seconds: of all jobs, one after the other.
        slowest: seconds of the slowest.
        cpu_seconds, peak_bytes: processor time of all, and the most memory of one; None if nothing
            was measured.
    """

    name: str
    n: int
    seconds: float
    slowest: float
    cpu_seconds: float | None
    peak_bytes: float | None


@dataclass(frozen=True)
class Times:
    """What is known of a results folder.

    Attributes:
        timed: its benchmarks.
        damaged: benchmark files that cannot be read.
        last: its last run, if there is a journal of it.
    """

    timed: Sequence[Benchmark]
    damaged: Sequence[Path]
    last: State | None

    @classmethod
    def of(cls, results: StrPath) -> Times:
        """Read benchmarks and journal.

        Raises:
            Cis490Error: there is no benchmark.
        """
        timed, damaged = benchmarks.read_all(results)
        if not timed:
            raise Cis490Error(
                f"{Path(results) / benchmarks.FOLDER} holds no benchmark that can be read: "
                "run the workflow first, or name its results folder"
            )
        events = journal.read(Path(results) / journal.NAME)
        last = journal.last_run(events)
        seen = _ends(events)
        folder = Path(results) / benchmarks.FOLDER
        timed = [_better(one, seen.get(one.path.relative_to(folder).as_posix())) for one in timed]
        return cls(timed, damaged, State.of(last) if last else None)

    def rules(self) -> list[Rule]:
        """All jobs by their rule, the one that took longest first."""
        of: dict[str, list[Benchmark]] = defaultdict(list)
        for one in self.timed:
            of[one.rule].append(one)
        rules = [
            Rule(
                name,
                len(all_),
                sum(one.seconds for one in all_),
                max(one.seconds for one in all_),
                _sum(one.cpu_seconds for one in all_),
                max((one.peak_bytes for one in all_ if one.peak_bytes is not None), default=None),
            )
            for name, all_ in of.items()
        ]
        return sorted(rules, key=lambda rule: (-rule.seconds, rule.name))

    def busy(self) -> tuple[float, float, float]:
        """Seconds of jobs and of processor time, and those in which at least one job ran."""
        total = sum(one.seconds for one in self.timed)
        cpu = _sum(one.cpu_seconds for one in self.timed) or 0.0
        return total, cpu, _union((one.ended - one.seconds, one.ended) for one in self.timed)


def _ends(events: Iterable[Event]) -> dict[str, Event]:
    """`benchmarks.key` of a job, and the event of the last good end of its job."""
    started: dict[tuple[str, int], str] = {}
    ends = {}
    for event in events:
        key = (event["run"], event.get("jobid", -1))
        if event["event"] == "job_started" and event.get("benchmark"):
            started[key] = benchmarks.key(event["benchmark"])
        elif event["event"] == "job_finished" and key in started:
            ends[started[key]] = event
    return ends


def _better(one: Benchmark, end: Event | None) -> Benchmark:
    """A benchmark with what the journal says of the same job: it saw more of short ones.

    Both are lower bounds of processor time and memory, so the greater is nearer the truth. The
    journal knows the end, which a copy of the file forgets.
    """
    if end is None or abs(end.get("benchmark_seconds", -1) - one.seconds) > 0.01:
        return one
    cpu = max(one.cpu_seconds or 0.0, end.get("cpu_seconds", 0.0))
    peak = max(one.peak_bytes or 0.0, end.get("peak_bytes", 0.0))
    ended = journal.seconds(end["time"])
    return replace(one, cpu_seconds=cpu or None, peak_bytes=peak or None, ended=ended)


def _sum(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) if known else None


def _union(spans: Iterable[tuple[float, float]]) -> float:
    """Length of what spans of time cover together."""
    covered, reached = 0.0, float("-inf")
    for start, end in sorted(spans):
        covered += max(end - max(start, reached), 0.0)
        reached = max(reached, end)
    return covered


def tables(times: Times) -> list[str]:
    """Lines for people: all of it, a row a rule, the slowest jobs, and how the last run went."""
    total, cpu, ran = times.busy()
    shown = [
        f"{count(len(times.timed), 'job')} took {duration(total)} one after the other, and at "
        f"least {duration(cpu)} of processor time. While any ran, {duration(ran)}, "
        f"at least {cpu / ran if ran else 0:.2f} cores were kept busy.",
        "",
        *_rules(times.rules(), total),
        "",
        "Slowest jobs:",
        "",
        *_jobs(sorted(times.timed, key=lambda one: -one.seconds)[:_SLOWEST]),
    ]
    if times.last is not None and times.last.began is not None:
        shown += ["", *_last(times.last)]
    if times.damaged:
        named = ", ".join(str(path) for path in times.damaged[:_NAMED])
        more = f" and {len(times.damaged) - _NAMED} more" * (len(times.damaged) > _NAMED)
        shown += ["", f"Not read, for they are empty or damaged: {named}{more}"]
    return shown


def _rules(rules: Sequence[Rule], total: float) -> list[str]:
    header = ["rule", "jobs", "wall, s", "share", "CPU, s", "slowest, s", "peak memory, MiB"]
    rows = [
        [
            *(rule.name, rule.n, f"{rule.seconds:,.1f}", f"{rule.seconds / (total or 1):.0%}"),
            *(number(rule.cpu_seconds, 1), f"{rule.slowest:,.1f}", _mib(rule.peak_bytes)),
        ]
        for rule in rules
    ]
    return table(header, rows)


def _jobs(timed: Sequence[Benchmark]) -> list[str]:
    rows = [
        [
            one.rule,
            one.name,
            f"{one.seconds:,.1f}",
            number(one.cpu_seconds, 1),
            _mib(one.peak_bytes),
        ]
        for one in timed
    ]
    return table(["rule", "job", "wall, s", "CPU, s", "peak memory, MiB"], rows, "ll")


def _last(state: State) -> list[str]:
    at = datetime.fromtimestamp(state.began or 0)
    first, *more = lines.end(state) if state.outcome else ["it has not ended: `cis490 status`"]
    return [f"Last run, {at:%Y-%m-%d %H:%M}: {first}", *more]


def number(value: float | None, digits: int) -> str:
    """A number with thousands apart; a dash where nothing was measured."""
    return NOTHING if value is None else f"{value:,.{digits}f}"


def _mib(n_bytes: float | None) -> str:
    return number(None if n_bytes is None else n_bytes / _MIB, 0)
