"""Running the workflow whenever new episodes have arrived, for a store that grows each night.

Snakemake knows what is to be done; all that is decided here is when to start it. An index is looked
at by its size and time, and read only once it has been still for a while, so that a night's upload
costs one run and not one an episode.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from cis490 import runlock
from cis490.episodes.store import read_index
from cis490.errors import ConfigError, StoreError
from cis490.files import to_compact_json
from cis490.words import count, duration

_LOOK_S: Final = 5.0
_CANCEL_S: Final = 20.0  # for jobs to go after they were interrupted, before they are killed
_LONGEST_PAUSE_S: Final = 86_400.0
_LOGS_KEPT: Final = 100
_PR_SET_PDEATHSIG: Final = 1

Say = Callable[[str], None]


@dataclass(frozen=True)
class Pace:
    """How long to wait for what, in seconds.

    Attributes:
        still_s: that an index must not have changed for.
        patience_s: from its first change until a run, however much it changes.
        retry_s: after a failed run, twice as long after each further one, a day at most.
        grace_s: that running jobs have to end when the watch is stopped.
    """

    still_s: float = 60.0
    patience_s: float = 3600.0
    retry_s: float = 600.0
    grace_s: float = 60.0

    @property
    def look_s(self) -> float:
        """Between two looks at the store."""
        return min(_LOOK_S, max(self.still_s / 4, 0.02))


class Index:
    """Whether an index has changed, and is still again; it is not read."""

    def __init__(self, store: Path, pace: Pace) -> None:
        self.path, self._pace = store / "index.jsonl", pace
        self._seen: tuple[int, int, int] | None = None
        self._first = self._last = float("nan")  # changes that were not acted on
        self.pending = False

    def look(self) -> bool:
        """Whether it is another than at the last look.

        Raises:
            OSError: it cannot be looked at.
        """
        status = self.path.stat()
        seen = status.st_size, status.st_mtime_ns, status.st_ino
        if seen == self._seen:
            return False
        # What lay there before the watch began has been still for as long as it is old.
        age = max(time.time() - status.st_mtime, 0.0) if self._seen is None else 0.0
        self._seen = seen
        self.touch(age)
        return True

    def touch(self, age_s: float = 0.0) -> None:
        """Count a change that is so old."""
        now = time.monotonic()
        self._first = self._first if self.pending else now
        self._last, self.pending = now - age_s, True

    def due(self) -> bool:
        """Whether there was a change, and it is still or has not been for too long."""
        now = time.monotonic()
        still = now - self._last >= self._pace.still_s
        return self.pending and (still or now - self._first >= self._pace.patience_s)


class Arrivals:
    """The episodes that have arrived in a store, each told once.

    An episode has arrived when the index holds its whole record and its file is there. A store that
    cannot be read is waited for.
    """

    def __init__(self, store: Path, pace: Pace, say: Say) -> None:
        self._store, self._pace, self._say = store, pace, say
        self._index = Index(store, pace)
        self._told: set[tuple[str, str | None]] = set()
        self._awaited: set[Path] = set()  # files that the index names and that are not there
        self._next_await = 0.0
        self.gone = ""  # why the store cannot be read

    def look(self) -> int:
        """How many have arrived since it was last told, once the index is still; 0 before."""
        new = 0
        try:
            pending = self._index.pending
            if self._index.look() and self._told and not pending:
                still = duration(self._pace.still_s)
                self._say(f"the index has changed; waiting until it is still for {still}")
            if self._has_come():
                self._index.touch()
            if self._index.due():
                new = self._take()
                self._index.pending = False
        except (OSError, StoreError) as error:
            self._wait_for(str(error.strerror if isinstance(error, OSError) else error))
        else:
            if self.gone:
                self._say(f"the store {self._store} is back")
            self.gone = ""
        return new

    def _has_come(self) -> bool:
        if time.monotonic() < self._next_await or self._index.pending:
            return False
        self._next_await = time.monotonic() + self._pace.still_s
        return any(map(os.path.isfile, self._awaited))

    def _take(self) -> int:
        awaited, arrived = set(), set()
        for record in read_index(self._store).records:
            key = str(record.text("episode_id")), record.text("sha256")
            if record.problem is not None or key in self._told:
                continue
            path = self._store / record.content["path"]
            if path.is_file():
                arrived.add(key)
            else:
                awaited.add(path)
        if awaited - self._awaited:
            first = min(awaited).relative_to(self._store)
            self._say(f"the index names {count(len(awaited), 'file')} not there, such as {first}")
        self._awaited = awaited
        self._told |= arrived
        return len(arrived)

    def _wait_for(self, reason: str) -> None:
        if reason != self.gone:
            self._say(f"the store {self._store} cannot be read: {reason}; waiting for it")
        self.gone = reason


@dataclass
class Stop:
    """How often the watch was asked to stop: once is a wish, twice an order."""

    asked: int = 0
    _before: dict[int, object] = field(default_factory=dict)

    def __enter__(self) -> Stop:
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            # What is ignored stays so: nohup, or the background of a shell.
            if signal.getsignal(number) is not signal.SIG_IGN:
                self._before[number] = signal.signal(number, self._ask)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]

    def _ask(self, *_: object) -> None:
        self.asked += 1

    def wait(self, seconds: float, times: int = 1) -> bool:
        """Wait, no longer than until it was asked so often; whether it was."""
        end = time.monotonic() + seconds
        while self.asked < times and (left := end - time.monotonic()) > 0:
            time.sleep(min(left, 0.1))
        return self.asked >= times


def snakemake(store: Path, configfile: Path | None, options: Sequence[str]) -> list[str]:
    """The command that runs the workflow on a store.

    Args:
        store: the folder of episodes; it takes the place of the config's.
        configfile: settings, or None.
        options: further ones of Snakemake; without any it may use all cores and one GPU.

    Raises:
        ConfigError: `options` names a config file, which would take the place of `configfile`.
    """
    if any(re.match("--configfiles?(=|$)", option) for option in options):
        raise ConfigError("watch: --configfile stands before the --, not among Snakemake's options")
    own = [f"store={to_compact_json(str(store))}"]
    rest = list(options) or ["--cores", "all", "--resources", "gpu=1"]
    # Of two --config Snakemake takes the last alone.
    place = next((i for i, option in enumerate(rest) if option in ("--config", "-C")), None)
    if place is not None:
        rest[place + 1 : place + 1] = own
        own = []
    return [
        *(sys.executable, "-m", "snakemake"),
        *(["--config", *own] if own else []),
        *(["--configfile", str(configfile.resolve())] if configfile else []),
        "--rerun-incomplete",  # and no list before it takes a target of the user's for its own
        *rest,
    ]


def directory_of(options: Sequence[str]) -> Path:
    """The working directory of a run with these options of Snakemake."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--directory", "-d", default=".")
    return Path(parser.parse_known_args(list(options))[0].directory)


@dataclass
class Watch:
    """Watches one store for one working directory.

    Attributes:
        store: folder of episodes.
        command: what runs the workflow.
        folder: its working directory.
        pace: how long to wait for what.
        say: takes one line an event.
    """

    store: Path
    command: Sequence[str]
    folder: Path
    pace: Pace
    say: Say

    def follow(self) -> None:
        """Run the workflow now and each time that episodes have arrived, until asked to stop.

        Raises:
            ConfigError: another watch is at work in the same working directory.
        """
        with self._alone() as other, Stop() as stop:
            if other is not None:
                raise ConfigError(
                    f"another cis490 watch is at work in {self.folder.resolve()}, process {other}: "
                    "stop it first"
                )
            self.say(f"watching {self.store}")
            self._follow(stop)
            self.say("stopped")

    def once(self) -> int:
        """Run the workflow once, as soon as the index is still.

        Returns:
            The exit code: 0 too if it was left to another watch, or was stopped.

        Raises:
            StoreError: there is no index.
        """
        with self._alone() as other, Stop() as stop:
            if other is not None:
                self.say(f"left to another cis490 watch (process {other})")
                return 0
            index = Index(self.store, self.pace)
            try:
                index.look()
                while not index.due():
                    if stop.wait(self.pace.look_s):
                        return 0
                    index.look()
            except OSError as error:
                raise StoreError(
                    f"store {self.store}: cannot read index.jsonl ({error.strerror})"
                ) from None
            code = self._run(stop)
            return 0 if stop.asked else code

    @contextlib.contextmanager
    def _alone(self) -> Iterator[str | None]:
        """Hold the lock of watches; yields the process that has it, None if it is ours."""
        file, other = runlock.hold(self.folder / ".snakemake" / "cis490-watch.lock")
        try:
            yield other
        finally:
            if file is not None:
                file.close()

    def _follow(self, stop: Stop) -> None:
        arrivals = Arrivals(self.store, self.pace, self.say)
        failures, retry_at = 0, float("inf")
        while not stop.wait(self.pace.look_s):
            new = arrivals.look()
            if not new and (arrivals.gone or time.monotonic() < retry_at):
                continue
            self.say(
                f"{count(new, 'new episode') if new else 'trying again'}: running the workflow"
            )
            if self._run(stop) == 0:
                failures, retry_at = 0, float("inf")
            elif not stop.asked:
                failures = 1 if new else failures + 1
                pause = min(self.pace.retry_s * 2.0 ** (failures - 1), _LONGEST_PAUSE_S)
                retry_at = time.monotonic() + pause
                self.say(f"next try in {duration(pause)}, or when episodes arrive")

    def _run(self, stop: Stop) -> int:
        """Run the workflow to its end, or until asked to stop; returns its exit code."""
        told = False
        while runlock.held(self.folder / ".snakemake"):
            if not told:
                self.say("another run is at work here; waiting for its end")
                told = True
            if stop.wait(self.pace.look_s):
                return 1
        try:
            return self._run_now(stop)
        except OSError as error:  # such as a disk that is full
            self.say(f"the workflow cannot be run: {error}")
            return 1

    def _run_now(self, stop: Stop) -> int:
        start, log = time.monotonic(), self._log()
        with log.open("wb") as out:
            child = _start(self.command, out.fileno())
        try:
            while not _ended(child) and not stop.wait(0.2):
                pass
            if not _ended(child):
                self._end(child, stop)
        finally:
            _kill(child)
        took = duration(time.monotonic() - start)
        if child.returncode == 0:
            self.say(f"done after {took}")
        elif not stop.asked:
            self.say(f"failed after {took} (exit code {child.returncode}): {why(log)}; see {log}")
        return child.returncode

    def _end(self, child: subprocess.Popen[bytes], stop: Stop) -> None:
        """Let a run end: no new jobs, then a while for running ones, then none."""
        self.say(f"stopping; running jobs have {duration(self.pace.grace_s)} to end")
        child.send_signal(signal.SIGTERM)
        end = time.monotonic() + self.pace.grace_s
        while not _ended(child) and time.monotonic() < end and not stop.wait(0.2, times=2):
            pass
        if not _ended(child):
            self.say("interrupting the jobs that still run; the next run goes on with them")
            os.killpg(child.pid, signal.SIGINT)
            end = time.monotonic() + _CANCEL_S
            while not _ended(child) and time.monotonic() < end:
                time.sleep(0.2)

    def _log(self) -> Path:
        folder = self.folder / "results/logs/watch"
        folder.mkdir(parents=True, exist_ok=True)
        for old in sorted(folder.glob("*.log"))[: -_LOGS_KEPT + 1]:
            old.unlink(missing_ok=True)
        return folder / f"{datetime.now(UTC):%Y%m%dT%H%M%S.%fZ}.log"


def _start(command: Sequence[str], out: int) -> subprocess.Popen[bytes]:
    """Start a command as the head of a process group of its own.

    A Ctrl-C in the terminal reaches the watch alone, which decides what becomes of the jobs. If the
    watch is killed, the run is asked to end, where the kernel can do that.
    """
    libc = ctypes.CDLL(None) if sys.platform == "linux" else None

    def follow_parent() -> None:
        if libc is not None:
            libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)

    return subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=out,
        stderr=subprocess.STDOUT,
        start_new_session=True,
        preexec_fn=follow_parent,
    )


def _ended(child: subprocess.Popen[bytes]) -> bool:
    """Whether a child has ended; its number stays taken, so that nobody else's group has it."""
    return os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


def _kill(child: subprocess.Popen[bytes]) -> None:
    """Leave nothing of a process group."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGKILL)
    child.wait()


def why(log: Path) -> str:
    """What a failed run says of its failure, in one line: ours, or the rules that failed."""
    lines = log.read_text(errors="replace").splitlines()
    ours = [line.strip() for line in lines if line.startswith("error: ")]
    rules = [found[1] for line in lines if (found := re.match(r"Error in rule (\w+)", line))]
    if rules:
        ours.insert(0, f"in rule {', '.join(dict.fromkeys(rules))}")
    last = next((line.strip() for line in reversed(lines) if line.strip()), "it said nothing")
    return ": ".join(ours[:2]) or last
