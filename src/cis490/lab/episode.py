"""One episode, from the start of its guest to the packed file: all within one process and loop."""

from __future__ import annotations

import hashlib
import io
import resource
import tarfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import msgspec
import zstandard

from cis490 import __version__
from cis490.channels import NOMINAL_INTERVAL_S
from cis490.episodes.validate import SCHEMA_VERSION
from cis490.errors import LabError
from cis490.files import to_json
from cis490.lab import network
from cis490.lab.hosts import Host
from cis490.lab.image import Image
from cis490.lab.loop import Loop
from cis490.lab.machine import Machine
from cis490.lab.observers.guest import Agent, Lines, Processes
from cis490.lab.observers.netflow import Flows, Ring
from cis490.lab.observers.proc import Proc
from cis490.lab.observers.qmp import QmpObserver, poll_balloon
from cis490.lab.qmp import Qmp, Refused
from cis490.lab.schedule import EpisodePlan
from cis490.lab.schedule import Job as PlannedJob

_NS: Final = 1_000_000_000
BOOT_S: Final = 120.0  # a guest takes 2.5 to 7 s; far more on a machine that does other work
_START_S: Final = 30.0  # until the guest has started a program
_LAST_S: Final = 1.0  # for the last answers
_FLUSH_NS: Final = round(NOMINAL_INTERVAL_S["netflow"] * _NS)
_LEAST: Final = 0.8  # of the rows that a source promises; the format's own gate is at a half
_LEVEL: Final = 19  # of zstd
_CHUNK: Final = 1 << 16
_IN_GUEST: Final = {"infected_running": "running"}  # what programs call a phase

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Setting:
    """What all episodes of a run share.

    Attributes:
        image: what guests boot.
        qemu: the path of QEMU.
        accelerator: "kvm" or "tcg".
        parallel: how many guests run side by side.
        uptime_netflow: whether `t_mono_ns` in netflow counts from the host's boot, as in the first
            corpus: a fault, for tests of readers.
    """

    image: Image
    qemu: str
    accelerator: str
    parallel: int
    uptime_netflow: bool = False


class Recorded(msgspec.Struct, frozen=True):
    """A packed episode, and what it cost: seconds of processor and of time, without the guest's."""

    content: bytes
    cpu_s: float
    wall_s: float


def play(plan: EpisodePlan, setting: Setting, slot: int, folder: Path) -> Recorded:
    """Record one episode; this process is in a network namespace of its own afterwards.

    Args:
        plan: what happens when.
        setting: how.
        slot: which of those side by side this is, from 0.
        folder: an empty one, for the guest's disk and logs.

    Raises:
        LabError: it failed; says why.
    """
    began = time.monotonic()
    time.sleep(plan.wait_s)
    with _Guest(plan.host, setting, folder) as guest:
        content = _Episode(plan, setting, slot, guest).record()
    spent = resource.getrusage(resource.RUSAGE_SELF)
    return Recorded(content, spent.ru_utime + spent.ru_stime, time.monotonic() - began)


def boots(host: Host, setting: Setting, folder: Path, limit_s: float) -> None:
    """Boot a guest until it is ready, and end it.

    Raises:
        LabError: it was not ready in time; says why.
    """
    with _Guest(host, setting, folder) as guest:
        guest.boot(limit_s)


class _Guest:
    """A guest with its network, and its loop."""

    def __init__(self, host: Host, setting: Setting, folder: Path) -> None:
        tap = network.enter()
        self.loop = Loop()
        self.peers = network.Peers(self.loop)
        # From the first frame on, so that no flow is new that only was not seen.
        self.ring = Ring(network.TAP) if host.netflow else None
        self.machine = Machine(host, setting.image, folder, setting.accelerator, tap, setting.qemu)
        self.qmp = Qmp(self.machine.qmp)
        self.qemu_version = ""
        self.ready_ns = 0
        self._lines = {name: Lines() for name in self.machine.ports}
        self.takes: dict[str, Callable[[bytes], None]] = {"control": self._greet}

    def __enter__(self) -> _Guest:
        return self

    def __exit__(self, *_: object) -> None:
        self.machine.kill()

    def boot(self, limit_s: float) -> None:
        """Serve until the guest is ready."""

        def greeted(version: str) -> None:
            self.qemu_version = version
            poll_balloon(self.qmp, polling)

        def polling(answer: Any) -> None:
            if isinstance(answer, Refused):
                raise LabError(f"QEMU has no statistics of the balloon: {answer.why}")

        def late() -> None:
            if not self.ready_ns:
                words = self.machine.last_words()
                raise LabError(
                    f"the guest was not ready after {limit_s:.0f} s (is the machine busy with "
                    f"other work?): {words}"
                )

        self.qmp.greet(greeted)
        self.loop.watch(self.machine.pidfd, self._ended)
        self.loop.watch(self.machine.qmp.fileno(), self._read_qmp)
        for name in self.machine.ports:
            self.loop.watch(self.machine.ports[name].fileno(), self._reading(name))
        self.loop.at(time.monotonic_ns() + round(limit_s * _NS), late)
        self.loop.run(lambda: self.ready_ns > 0)

    def say(self, text: str) -> None:
        """Send a line to the guest's control port."""
        try:
            self.machine.ports["control"].sendall(f"{text}\n".encode())
        except OSError as error:
            raise LabError(f"the guest does not take {text!r}: {error.strerror}") from None

    @property
    def lost(self) -> dict[str, int]:
        """Lines too long to be taken, by port."""
        return {name: lines.lost for name, lines in self._lines.items()}

    def _greet(self, line: bytes) -> None:
        if line.strip() == b"ready":
            self.ready_ns = time.monotonic_ns()

    def _ended(self) -> None:
        raise LabError(f"the guest died: {self.machine.last_words()}")

    def _read_qmp(self) -> None:
        if not self.qmp.read():
            self.loop.ignore(self.machine.qmp.fileno())

    def _reading(self, name: str) -> Callable[[], None]:
        port, lines = self.machine.ports[name], self._lines[name]

        def read() -> None:
            try:
                chunk = port.recv(_CHUNK)
            except BlockingIOError:
                return
            except ConnectionError:
                chunk = b""
            if not chunk:
                self.loop.ignore(port.fileno())
            take = self.takes.get(name)
            for line in lines.cut(chunk):
                if take is not None:
                    take(line)

        return read


class _Clock:
    """Both times of a row from one reading, so that a step of the wall clock tears no episode."""

    def __init__(self) -> None:
        self.wall_ns, self.mono_ns = time.time_ns(), time.monotonic_ns()

    def now(self) -> dict[str, int]:
        passed = time.monotonic_ns() - self.mono_ns
        return {"t_wall_ns": self.wall_ns + passed, "t_mono_ns": passed}


@dataclass
class _Run:
    """A program in the guest; times are `time.monotonic_ns()`, None for what did not happen."""

    name: str
    pace: float
    started: Callable[[], None]
    started_ns: int | None = None
    ended_ns: int | None = None


@dataclass
class _Programs:
    """Starts and stops programs in the guest, and hears of it."""

    guest: _Guest
    salt: str
    runs: dict[str, _Run] = field(default_factory=dict)

    def start(
        self, path: str, run: _Run, seed: int, environment: Mapping[str, str] | None = None
    ) -> str:
        """Start a program of the image; returns its ID."""
        key = str(len(self.runs))
        self.runs[key] = run
        told = {"PACE": f"{run.pace:g}", "SEED": str(_seed(seed, key)), **(environment or {})}
        name = hashlib.sha256(f"{self.salt} {key}".encode()).hexdigest()[:8]
        self.guest.say(" ".join(["start", key, name, path, *(f"{k}={v}" for k, v in told.items())]))

        def late() -> None:
            if run.started_ns is None:
                raise LabError(f"the guest did not start {path} within {_START_S:.0f} s")

        self.guest.loop.at(time.monotonic_ns() + round(_START_S * _NS), late)
        return key

    def stop(self, key: str) -> None:
        """Stop a program."""
        self.guest.say(f"stop {key}")

    def take(self, line: bytes) -> None:
        """Hear what the guest says on its control port."""
        verb, _, rest = line.decode(errors="replace").strip().partition(" ")
        key, _, status = rest.partition(" ")
        run = self.runs.get(key)
        if run is None:
            return
        now = time.monotonic_ns()
        if verb == "started" and run.started_ns is None:
            run.started_ns = now
            run.started()
        elif verb in ("stopped", "ended") and run.ended_ns is None:
            run.ended_ns = now
            if verb == "ended" and status != "0":
                raise LabError(f"{run.name} failed in the guest with status {status}")


def _seed(seed: int, key: str) -> int:
    """A seed of its own for each program of an episode, below 2**31."""
    return int.from_bytes(hashlib.sha256(f"{seed} {key}".encode()).digest()[:4], "big") >> 1


class _Episode:
    """What is being recorded; rows are kept from the record's start to its end."""

    def __init__(self, plan: EpisodePlan, setting: Setting, slot: int, guest: _Guest) -> None:
        self._plan, self._setting, self._slot, self._guest = plan, setting, slot, guest
        self._loop = guest.loop
        self._programs = _Programs(guest, plan.salt)
        self._jobs: list[tuple[PlannedJob, _Run]] = []
        self._phase, self._of_phase = "clean", ""
        self._clock: _Clock | None = None
        self._ended_wall_ns = 0
        self._ending = self._done = False
        self._rows: dict[str, list[Row]] = {
            name: [] for name in ("labels", "proc", "qmp", "guest", *self._optional())
        }
        self._agent, self._processes, self._flows = Agent(), Processes(), Flows()

    def _optional(self) -> list[str]:
        host = self._plan.host
        return ["exec"] * host.exec + ["netflow"] * host.netflow

    def record(self) -> bytes:
        """Boot, let the plan happen, and pack what was seen.

        Raises:
            LabError: it failed.
        """
        guest, plan = self._guest, self._plan
        guest.takes["events"] = self._take_event
        guest.boot(BOOT_S)
        guest.takes["agent"] = self._take_agent
        guest.takes["control"] = self._programs.take
        self._proc = Proc(guest.machine.pid)
        self._qmp = QmpObserver(guest.qmp, self._take_qmp)
        start_ns = guest.ready_ns + round(plan.preroll_s * _NS)
        self._loop.at(start_ns, self._begin)
        for at_s, phase in plan.phases:
            self._loop.at(start_ns + round(at_s * _NS), self._entering(phase))
        for job in plan.jobs:
            self._loop.at(start_ns + round(job.start_s * _NS), self._starting(job, start_ns))
        # What disturbs the guest goes on all the time, so that the record's start leaves no trace.
        self._loop.every(start_ns, round(_NS / plan.host.qmp_hz), self._qmp.look)
        if guest.ring is not None:
            self._loop.every(start_ns, _FLUSH_NS, self._flush)
        self._loop.run(lambda: self._done)
        self._check()
        content = _pack(self._members())
        self._proc.close()
        return content

    def _begin(self) -> None:
        self._flush()  # what came before belongs to no interval of the record
        clock = self._clock = _Clock()
        self._rows["labels"].append({**clock.now(), "phase": self._phase})
        self._add_proc()
        if "exec" in self._rows:
            now = clock.now()
            self._rows["exec"] += [{**now, **row} for row in self._processes.snapshot()]
        self._loop.at(clock.mono_ns + round(self._plan.duration_s * _NS), self._end)
        period_ns = round(_NS / self._plan.host.proc_hz)
        self._loop.every(clock.mono_ns + period_ns, period_ns, self._add_proc)

    def _end(self) -> None:
        # A last look at the end itself, for the interval before it.
        self._add_proc()
        self._flush()
        self._ending = True
        self._qmp.look()
        self._loop.at(time.monotonic_ns() + round(_LAST_S * _NS), self._finish)

    def _finish(self) -> None:
        if not self._done:
            assert self._clock is not None
            self._ended_wall_ns = self._clock.now()["t_wall_ns"]
            self._done = True

    def _entering(self, phase: str) -> Callable[[], None]:
        def enter() -> None:
            plan = self._plan
            if self._of_phase:
                self._programs.stop(self._of_phase)
            self._of_phase = self._programs.start(
                f"samples/{plan.profile}/{plan.sample_name}.sh",
                _Run(plan.sample_name, plan.pace, lambda: self._label(phase)),
                plan.seed,
                {"PHASE": _IN_GUEST.get(phase, phase)},
            )

        return enter

    def _label(self, phase: str) -> None:
        self._phase = phase
        if self._clock is not None and not self._ending:
            self._rows["labels"].append({**self._clock.now(), "phase": phase})

    def _starting(self, job: PlannedJob, start_ns: int) -> Callable[[], None]:
        def start() -> None:
            run = _Run(job.name, job.pace, lambda: None)
            key = self._programs.start(f"jobs/{job.name}.sh", run, self._plan.seed)
            self._jobs.append((job, run))
            if job.stop_s is not None:
                stop_ns = start_ns + round(job.stop_s * _NS)
                self._loop.at(stop_ns, lambda: self._programs.stop(key))

        return start

    def _add(self, source: str, row: Row) -> None:
        if self._clock is not None:
            self._rows[source].append({**self._clock.now(), **row})

    def _add_proc(self) -> None:
        if self._ending:
            return
        try:
            self._add("proc", self._proc.look())
        except OSError:
            raise LabError(f"the guest died: {self._guest.machine.last_words()}") from None

    def _take_qmp(self, row: Row) -> None:
        self._add("qmp", row)
        if self._ending:
            self._finish()

    def _take_agent(self, line: bytes) -> None:
        if self._clock is not None and (row := self._agent.row(line)) is not None:
            self._add("guest", row)

    def _take_event(self, line: bytes) -> None:
        row = self._processes.row(line)
        if row is not None and "exec" in self._rows:
            self._add("exec", row)

    def _flush(self) -> None:
        ring = self._guest.ring
        if ring is None or self._ending:
            return
        ring.drain(self._flows)
        records = self._flows.flush(time.time_ns())
        if self._clock is None:
            return
        now = self._clock.now()
        if self._setting.uptime_netflow:
            now["t_mono_ns"] = time.monotonic_ns()
        self._rows["netflow"] += [{**now, **record} for record in records]

    def _check(self) -> None:
        """What readers of a store would reject is not to get there."""
        host = self._plan.host
        for source, hz in (("proc", host.proc_hz), ("qmp", host.qmp_hz), ("guest", host.guest_hz)):
            got, promised = len(self._rows[source]), self._plan.duration_s * hz
            if got < promised * _LEAST:
                raise LabError(f"{source} gave {got} rows of {promised:.0f}: too crowded?")

    def _members(self) -> dict[str, bytes]:
        order = ("labels", "proc", "qmp", "guest", "exec", "netflow")
        encode = msgspec.json.Encoder().encode_lines
        rows = {f"{n}.jsonl": encode(self._rows[n]) for n in order if n in self._rows}
        return {"meta.json": to_json(self._meta()).encode(), **rows}

    def _meta(self) -> dict[str, Any]:
        plan, host, setting, guest = self._plan, self._plan.host, self._setting, self._guest
        assert self._clock is not None
        jobs = [self._told(job, run) for job, run in self._jobs]
        sources: dict[str, dict[str, float]] = {
            "proc": {"hz": host.proc_hz},
            "qmp": {"hz": host.qmp_hz},
            "guest": {"hz": host.guest_hz},
        }
        if host.netflow:
            sources["netflow"] = {"interval_s": NOMINAL_INTERVAL_S["netflow"]}
        if host.exec:
            sources["exec"] = {}
        lost = {
            "guest": self._agent.lost + guest.lost["agent"],
            "exec": self._processes.lost + guest.lost["events"],
            "netflow": guest.ring.lost if guest.ring is not None else 0,
        }
        return {
            "schema_version": SCHEMA_VERSION,
            "episode_id": plan.episode_id,
            "host_id": host.host_id,
            "profile": plan.profile,
            "sample_name": plan.sample_name,
            "pace": plan.pace,
            "background": _within(jobs, plan.duration_s),
            "jobs": jobs,
            "seed": plan.seed,
            "preroll_s": -(self._since(guest.ready_ns) or 0.0),
            "slot": self._slot,
            "parallel": setting.parallel,
            "started_wall_ns": self._clock.wall_ns,
            "ended_wall_ns": self._ended_wall_ns,
            "recorder": f"cis490 {__version__}",
            "image": setting.image.digest,
            "qemu": guest.qemu_version,
            "accelerator": setting.accelerator,
            "guest": {
                "machine": host.machine,
                "cpu": host.cpu,
                "memory_mib": host.memory_mib,
                "vcpus": host.vcpus,
                "disk_cache": host.disk_cache,
            },
            "sources": sources,
            "lost": lost,
        }

    def _told(self, job: PlannedJob, run: _Run) -> dict[str, Any]:
        return {
            "name": job.name,
            "start_s": self._since(run.started_ns),
            "stop_s": self._since(run.ended_ns),
            "pace": job.pace,
        }

    def _since(self, t_ns: int | None) -> float | None:
        assert self._clock is not None
        return None if t_ns is None else round((t_ns - self._clock.mono_ns) / _NS, 3)


def _within(jobs: Sequence[Mapping[str, Any]], duration_s: float) -> list[str]:
    """The names of the jobs that ran at any time of the record."""
    return list(
        dict.fromkeys(
            job["name"]
            for job in jobs
            if job["start_s"] is not None
            and job["start_s"] < duration_s
            and (job["stop_s"] is None or job["stop_s"] > 0)
        )
    )


def _pack(members: Mapping[str, bytes]) -> bytes:
    """A tar of the members in one zstd frame, the same bytes for the same members."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for name, content in members.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    return zstandard.ZstdCompressor(level=_LEVEL).compress(packed.getvalue())
