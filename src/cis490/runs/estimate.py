"""How long a run will still take, from earlier runs' benchmarks and what it did so far."""

from __future__ import annotations

import heapq
import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, NamedTuple

from cis490.files import StrPath
from cis490.runs import benchmarks, journal
from cis490.runs.journal import Event
from cis490.runs.state import Job, State

_TAIL_BYTES: Final = 2**20  # of the journal: several runs
_MOST: Final = 200  # jobs of a rule that are laid out one by one; more are taken together
_ENOUGH_S: Final = 10.0  # of jobs with a forecast that have ended, before their error is believed
_OVERDUE: Final = 0.1  # of the time it has taken: what a job that should have ended still takes


class Left(NamedTuple):
    """Seconds to the end, and whether it is a lower bound because some stages were never timed."""

    seconds: float
    at_least: bool


@dataclass(frozen=True)
class Earlier:
    """What is known from runs before.

    Attributes:
        seconds: rule, `benchmarks.key` of a job, and how long that job took.
        takes: rule, and the resources of one job, `_cores` among them.
    """

    seconds: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    takes: Mapping[str, Mapping[str, float]] = field(default_factory=dict)

    @classmethod
    def of(cls, results: StrPath) -> Earlier:
        """From the benchmarks and the journal of a results folder, such as there are."""
        timed: dict[str, dict[str, float]] = defaultdict(dict)
        results, folder = Path(results), Path(results) / benchmarks.FOLDER
        for one in benchmarks.read_all(results)[0]:
            timed[one.rule][one.path.relative_to(folder).as_posix()] = one.seconds
        return cls(timed, _takes(journal.read(results / journal.NAME, _TAIL_BYTES)))


def _takes(events: Iterable[Event]) -> dict[str, dict[str, float]]:
    return {
        event["rule"]: _needs(event.get("threads", 1), event.get("resources", {}))
        for event in events
        if event["event"] == "job_started" and "rule" in event
    }


def _needs(threads: float, resources: Mapping[str, float]) -> dict[str, float]:
    return {"_cores": threads, "_jobs": 1, **resources}


def time_left(state: State, earlier: Earlier, now: float) -> Left | None:
    """Lay the remaining jobs out over the free cores, each rule after those it waits for.

    A job takes what it took before, or the mean of those of its rule that are not done; all that
    times the error of this run's forecasts so far. None if nothing is known, or nothing is left.
    """
    expected = _Expected(state, earlier)
    lanes: list[_Lane] = []
    stages, unknown = state.counts(), False
    for rule, pending in _pending(state).items():
        going = [job for job in state.running.values() if job.rule == rule]
        each = expected.of_pending(rule)
        unknown |= each is None and pending > 0 and rule in stages
        bundles = _bundles(pending if each is not None else 0, each or 0.0)
        needs = expected.needs(rule)
        lanes.append(_Lane(rule, needs, [expected.remaining(job, now) for job in going], bundles))
    if not any(lane.going or lane.waiting for lane in lanes):
        return None
    total = _lay_out(lanes, state)
    if total == 0:
        return None
    return Left(total, unknown)


def _pending(state: State) -> dict[str, int]:
    begun: dict[str, int] = defaultdict(int)
    for job in [*state.done, *state.running.values(), *state.failed.values()]:
        begun[job.rule] += 1
    return {rule: max(n - begun[rule], 0) for rule, n in state.planned.items()}


def _bundles(n: int, each: float) -> list[float]:
    size = math.ceil(n / _MOST) if n else 1
    return [each * min(size, n - i) for i in range(0, n, size)]


class _Expected:
    """How long jobs take and what they need."""

    def __init__(self, state: State, earlier: Earlier) -> None:
        self.earlier = earlier
        self.seen: dict[str, list[Job]] = defaultdict(list)
        for job in [*state.done, *state.running.values()]:
            self.seen[job.rule].append(job)
        self.factor = self._factor(state.done)

    def _factor(self, done: Sequence[Job]) -> float:
        """How much longer than before jobs take: the store grows, or the machine is busy."""
        before = after = 0.0
        for job in done:
            forecast = self._same(job)
            if forecast is not None and job.ended is not None:
                before += forecast
                after += job.ended - job.started
        return min(max(after / before, 0.2), 5.0) if before >= _ENOUGH_S else 1.0

    def _same(self, job: Job) -> float | None:
        return self.earlier.seconds.get(job.rule, {}).get(benchmarks.key(job.benchmark or ""))

    def of_pending(self, rule: str) -> float | None:
        """Seconds of a job of the rule that was not started yet."""
        before = self.earlier.seconds.get(rule, {})
        begun = {benchmarks.key(job.benchmark or "") for job in self.seen[rule]}
        times = [s for key, s in before.items() if key not in begun] or list(before.values())
        if times:
            return self.factor * sum(times) / len(times)
        ended = [job.ended - job.started for job in self.seen[rule] if job.ended is not None]
        return sum(ended) / len(ended) if ended else None

    def remaining(self, job: Job, now: float) -> float:
        """Seconds until a running job ends."""
        so_far = max(now - job.started, 0.0)
        same = self._same(job)
        whole = same * self.factor if same is not None else self.of_pending(job.rule)
        return max((whole or 0.0) - so_far, _OVERDUE * so_far)

    def needs(self, rule: str) -> Mapping[str, float]:
        """Resources of a job of the rule; a core where nothing is known."""
        if self.seen[rule]:
            return _needs(self.seen[rule][-1].threads, self.seen[rule][-1].resources)
        return self.earlier.takes.get(rule, _needs(1, {}))


@dataclass
class _Lane:
    """What is left of a rule, in seconds a job."""

    rule: str
    needs: Mapping[str, float]
    going: list[float]
    waiting: list[float]


def _lay_out(lanes: Sequence[_Lane], state: State) -> float:
    """When the last job would end if jobs start as soon as there is room, from now."""
    free = dict(state.room)
    left = {lane.rule: len(lane.going) + len(lane.waiting) for lane in lanes}
    ends: list[tuple[float, int]] = []
    for i, lane in enumerate(lanes):
        for seconds in lane.going:
            _take(free, lane.needs, -1)
            heapq.heappush(ends, (seconds, i))
    now = 0.0
    queues = [list(lane.waiting) for lane in lanes]
    while True:
        for i, lane in enumerate(lanes):
            if queues[i] and not any(left.get(rule) for rule in state.after.get(lane.rule, ())):
                while queues[i] and (not ends or _fits(free, lane.needs)):
                    _take(free, lane.needs, -1)
                    heapq.heappush(ends, (now + queues[i].pop(), i))
        if not ends:
            return now
        now, i = heapq.heappop(ends)
        left[lanes[i].rule] -= 1
        _take(free, lanes[i].needs, 1)


def _fits(free: Mapping[str, float], needs: Mapping[str, float]) -> bool:
    return all(free[name] >= amount for name, amount in needs.items() if name in free)


def _take(free: dict[str, float], needs: Mapping[str, float], sign: int) -> None:
    for name, amount in needs.items():
        if name in free:
            free[name] += sign * amount
