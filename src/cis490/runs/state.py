"""How a run is doing, from the events of its journal."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath

from cis490.runs.journal import Event, seconds


@dataclass
class Job:
    """A job that was started.

    Attributes:
        rule: its rule, which is its stage.
        name: what tells it from others of its rule; empty if it is the only one.
        started: seconds since 1970; on a cluster, when it was handed in.
        log: paths of its logs, from the working directory.
        benchmark: path of its benchmark file.
        threads: that it takes.
        resources: that it takes, those that are numbers.
        final: whether it makes no file of its own, as the rule `all`.
        ended: seconds since 1970; None while it runs.
        usage: what the event of its end says of it (`seconds`, `cpu_seconds`, `peak_bytes`).
    """

    rule: str
    name: str
    started: float
    log: tuple[str, ...] = ()
    benchmark: str | None = None
    threads: int = 1
    resources: Mapping[str, float] = field(default_factory=dict)
    final: bool = False
    ended: float | None = None
    usage: Mapping[str, float] = field(default_factory=dict)

    def __str__(self) -> str:
        """Rule and name."""
        return f"{self.rule} {self.name}".strip()


@dataclass
class State:
    """A run as it stands after some events.

    Attributes:
        planned: rule and number of jobs, in the order of the data.
        after: rule and those that it waits for.
        room: how much of each resource jobs may take together, `_cores` among them.
        remote: whether jobs go to a cluster.
        running: jobs that were started and have not ended, by their number.
        done: jobs that ended well.
        failed: jobs that failed and were not started again, by their number.
        stopping: whether somebody stops it.
        began, ended: seconds since 1970.
        outcome: "finished", "failed" or "stopped", once the run has ended.
        host, pid: where its main process runs.
    """

    planned: dict[str, int] = field(default_factory=dict)
    after: dict[str, list[str]] = field(default_factory=dict)
    room: dict[str, float] = field(default_factory=dict)
    remote: bool = False
    running: dict[int, Job] = field(default_factory=dict)
    done: list[Job] = field(default_factory=list)
    failed: dict[int, Job] = field(default_factory=dict)
    stopping: bool = False
    began: float | None = None
    ended: float | None = None
    outcome: str | None = None
    host: str | None = None
    pid: int | None = None
    cpu_seconds: float | None = None

    @classmethod
    def of(cls, events: Iterable[Event]) -> State:
        """After all events of one run."""
        state = cls()
        for event in events:
            state.apply(event)
        return state

    def apply(self, event: Event) -> Job | None:
        """Take one more event in; one of an unknown kind changes nothing.

        Returns:
            The job that ended with it, if it is news that one did.
        """
        at = seconds(event["time"])
        match event["event"]:
            case "run_started":
                self.began, self.host, self.pid = at, event.get("host"), event.get("pid")
            case "planned":
                self.planned = dict(event["jobs"])
                self.after = event.get("after", {})
                self.room = event.get("room", {})
                self.remote = event.get("remote", False)
            case "job_started":
                self._start(event, at)
            case "job_finished":
                if job := self._end(event, at):
                    self.done.append(job)
                return job
            case "job_failed":
                # Snakemake may know of a failure before it says what it started.
                if event["jobid"] not in self.failed | self.running and event.get("rule"):
                    self._start(event, at)
                if job := self._end(event, at):
                    job.log = tuple(event.get("log", job.log))
                    self.failed[event["jobid"]] = job
                return job
            case "stopping":
                self.stopping = True
            case "run_finished":
                self.ended, self.outcome = at, event["outcome"]
                self.cpu_seconds = event.get("cpu_seconds")
        return None

    def _start(self, event: Event, at: float) -> None:
        number, rule = event["jobid"], event["rule"]
        self.failed.pop(number, None)  # it was started again
        self.planned.setdefault(rule, 0)
        self.running[number] = Job(
            rule,
            name_of(rule, event.get("benchmark"), event.get("wildcards", {})),
            at,
            tuple(event.get("log", ())),
            event.get("benchmark"),
            event.get("threads", 1),
            event.get("resources", {}),
            event.get("final", False),
        )

    def _end(self, event: Event, at: float) -> Job | None:
        job = self.running.pop(event["jobid"], None)
        if job is not None:
            job.ended = at
            job.usage = {k: v for k, v in event.items() if isinstance(v, int | float)}
        return job

    @property
    def n_planned(self) -> int:
        """All jobs of the run."""
        return sum(self.planned.values())

    def counts(self) -> dict[str, tuple[int, int, int, int]]:
        """Of each rule, in the order of the data: jobs done, running, failed and planned.

        A rule that only asks for files, as `all`, is no stage.
        """
        of: dict[str, list[int]] = {rule: [0, 0, 0] for rule in self.planned}
        final = set()
        for kind, jobs in enumerate((self.done, self.running.values(), self.failed.values())):
            for job in jobs:
                of[job.rule][kind] += 1
                final |= {job.rule} if job.final else set()
        waited_for = {rule for rules in self.after.values() for rule in rules}
        return {
            rule: (done, running, failed, max(self.planned[rule], done + running + failed))
            for rule, (done, running, failed) in of.items()
            if rule not in final and not self._asks_only(rule, done + running + failed, waited_for)
        }

    def _asks_only(self, rule: str, begun: int, waited_for: set[str]) -> bool:
        """Whether it looks like a rule that asks for files, until it begins and says what it is."""
        return (
            not begun and self.planned[rule] == 1 and rule not in waited_for and rule in self.after
        )


def name_of(rule: str, benchmark: str | None, wildcards: Mapping[str, str]) -> str:
    """What tells a job from others of its rule: its benchmark's path, else its wildcards."""
    if benchmark:
        path = PurePosixPath(benchmark)
        if rule in path.parts[:-1]:
            return str(PurePosixPath(*path.parts[path.parts.index(rule) + 1 :]).with_suffix(""))
        if path.stem == rule:
            return ""
    return "/".join(str(value) for value in wildcards.values())
