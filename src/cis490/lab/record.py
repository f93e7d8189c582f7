"""A run of the recorder: slots side by side, each episode in a process that dies with this one."""

from __future__ import annotations

import fcntl
import os
import resource
import selectors
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Final, NamedTuple, NoReturn

import msgspec

from cis490.episodes.store import append, read_index
from cis490.errors import LabError, StoreError
from cis490.files import StrPath
from cis490.lab import image as images
from cis490.lab import machine, network
from cis490.lab.episode import Recorded, Setting, boots, play
from cis490.lab.hosts import Host
from cis490.lab.lifeline import die_with
from cis490.lab.schedule import EpisodePlan, expected_hours, stagger_s
from cis490.logs import MILESTONE, logger
from cis490.watch import Stop
from cis490.words import about, count, duration

_LOOK_S: Final = 0.5
_TRIES: Final = 2  # at one episode
_MOST_FAILURES: Final = 3  # in a row
_ENDING: Final = (signal.SIGINT, signal.SIGHUP, signal.SIGTERM)
_GRACE_S: Final = 5.0  # for slots to end their guests
_KVM_S: Final = 20.0  # a guest that hangs under KVM does so for ever
_BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")

Play = Callable[[EpisodePlan, int, Path], Recorded]


def record(
    store: StrPath,
    plans: Sequence[EpisodePlan],
    *,
    parallel: int = 3,
    cache: Path | None = None,
    uptime_netflow: bool = False,
    live: bool = False,
) -> None:
    """Record the episodes of a plan that a store does not hold yet.

    Args:
        store: the folder of episodes, made if need be.
        plans: in the order in which they are recorded.
        parallel: how many guests run side by side.
        cache: where the image is and guests' disks lie meanwhile; None for the default.
        uptime_netflow: as of `Setting`.
        live: whether progress is one line that is rewritten, rather than a line an episode.

    Raises:
        LabError: something that recording needs is missing, episodes fail in a row, some failed at
            the end, or it was stopped; says what to do.
        StoreError: the store cannot be written.
    """
    image = images.load(cache)
    qemu = machine.find_qemu()
    folder = Path(store)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise LabError(f"cannot make the store {folder}: {error.strerror}") from None
    runs = (cache or images.default_cache()) / "runs"
    with _alone(folder), _run_folder(runs) as scratch, Stop() as stop:
        left = missing(folder, plans)
        if len(left) < len(plans):
            there = count(len(plans) - len(left), "episode")
            logger.log(MILESTONE, "%s in %s already, %d to record", there, folder, len(left))
        if not left:
            return
        check_network()
        known = (cache or images.default_cache()) / "no-kvm"
        accelerator = choose_accelerator(image, qemu, left[0].host, scratch, known)
        setting = Setting(image, qemu, accelerator, parallel, uptime_netflow)
        many, long = count(len(left), "episode"), about(3600 * expected_hours(left, parallel))
        said = "%s with %s, %d at once: %s or so; slots wait at times, lest they keep step"
        logger.log(MILESTONE, said, many, accelerator.upper(), parallel, long)
        run = Run(
            lambda plan, slot, at: play(plan, setting, slot, at),
            lambda plan, content: append(folder, plan.host.host_id, plan.episode_id, content),
            scratch,
            parallel,
            lambda slot, nth: stagger_s(left[0].seed, slot, nth, left[0].duration_s),
            live=live,
        )
        run.go(left, lambda: stop.asked > 0)


def missing(store: Path, plans: Sequence[EpisodePlan]) -> list[EpisodePlan]:
    """The plans whose episodes the store does not hold: no whole record, or no file."""
    if not (store / "index.jsonl").exists():
        return list(plans)
    try:
        records = read_index(store).records
    except StoreError:  # nothing in it yet
        return list(plans)
    there = {
        record.text("episode_id")
        for record in records
        if record.complete and record.problem is None and (store / record.content["path"]).is_file()
    }
    return [plan for plan in plans if plan.episode_id not in there]


def check_network() -> None:
    """See whether a guest can have its network here.

    Raises:
        LabError: it cannot; says what to do.
    """

    def enter() -> bytes:
        os.close(network.enter())
        return b""

    child = Child(enter)
    try:
        child.result()
    finally:
        child.end()


def choose_accelerator(
    image: images.Image, qemu: str, host: Host, folder: Path, known: Path
) -> str:
    """What QEMU is to run guests with: "kvm" where one boots with it in time, else "tcg".

    KVM can be there to be opened and the guest still hang.

    Args:
        image, qemu, host: what is tried.
        folder: for the guest that tries it.
        known: file that remembers, until the machine boots again, that it was in vain.
    """
    if not os.access("/dev/kvm", os.R_OK | os.W_OK):
        return "tcg"
    here = f"{_BOOT_ID.read_text().strip()} {qemu} {image.digest}"
    with suppress(OSError):
        if known.read_text() == here:
            said = "KVM did not work when it was tried; remove %s to try it again"
            logger.log(MILESTONE, said, known)
            return "tcg"
    setting = Setting(image, qemu, "kvm", 1)

    def probe(at: Path) -> bytes:
        boots(host, setting, at, _KVM_S)
        return b""

    place = folder / "probe"
    place.mkdir()
    logger.log(MILESTONE, "trying KVM, %.0f s at most", _KVM_S)
    child = Child(lambda: probe(place))
    try:
        child.result()
    except LabError as error:
        why = str(error).partition(":")[0]
        said = "KVM does not work here, as on many virtual machines: %s. TCG does, only slower"
        logger.log(MILESTONE, said, why)
        if "not ready" in why:  # not what may be otherwise the next time, such as a killed process
            with suppress(OSError):
                known.write_text(here)
        return "tcg"
    finally:
        child.end()
        shutil.rmtree(place)
    return "kvm"


class Child:
    """A forked process that calls a function, hands back its bytes, and dies with this one.

    Attributes:
        fd: readable when bytes are there to `read`.
    """

    def __init__(self, work: Callable[[], bytes]) -> None:
        sys.stdout.flush()
        sys.stderr.flush()
        parent = os.getpid()
        self.fd, theirs = os.pipe()
        # Held back until the child has handlers of its own, for the parent's may raise.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, _ENDING)
        try:
            self.pid = os.fork()
            if self.pid == 0:
                try:
                    _be_child(work, parent, theirs, before)
                finally:
                    os._exit(1)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        os.close(theirs)
        os.set_blocking(self.fd, False)
        self._said = b""
        self._over = False

    def read(self) -> bool:
        """Take what it has sent; whether it has ended."""
        with suppress(BlockingIOError):
            while chunk := os.read(self.fd, 1 << 20):
                self._said += chunk
            self._over = True
        return self._over

    def result(self) -> bytes:
        """Wait for what the function returned.

        Raises:
            LabError: it failed.
        """
        while not self._over:
            with selectors.DefaultSelector() as selector:
                selector.register(self.fd, selectors.EVENT_READ)
                selector.select()
            self.read()
        kind, content = self._said[:1], self._said[1:]
        if kind == b"+":
            return content
        raise LabError(content.decode() if kind == b"-" else "its process was killed")

    def ask_to_end(self) -> None:
        """Have it end its guest and then itself."""
        with suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGTERM)

    def end(self) -> None:
        """Wait until it is gone, some seconds long, then kill it; its guest dies with it."""
        deadline = time.monotonic() + _GRACE_S
        while time.monotonic() < deadline:
            if os.waitpid(self.pid, os.WNOHANG)[0]:
                break
            time.sleep(0.01)
        else:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
        os.close(self.fd)


def _be_child(
    work: Callable[[], bytes], parent: int, out: int, mask: set[signal.Signals | int]
) -> NoReturn:
    """Life of the forked process.

    Raises:
        SystemExit: it was asked to end, wherever it was then; the caller ends the process.
    """

    def end(*_: object) -> NoReturn:
        # Once: neither what ends the guest nor the way out of here is interrupted again.
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        sys.exit()

    try:
        # Away from the terminal's Ctrl-C, which the parent answers for all.
        os.setpgid(0, 0)
        for number in (signal.SIGINT, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, end)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        die_with(parent)
        said = b"+" + work()
    except SystemExit:
        raise
    except LabError as error:
        said = f"-{error}".encode()
    except BaseException:
        said = f"-unexpected: {traceback.format_exc()}".encode()
    with suppress(OSError), open(out, "wb", closefd=False) as pipe:
        pipe.write(said)
    os._exit(0)


class _Try(NamedTuple):
    plan: EpisodePlan
    number: int
    child: Child
    folder: Path


@dataclass
class Run:
    """Plays plans in slots.

    Attributes:
        play: records one episode, in a child.
        deliver: puts a packed episode into the store, here.
        folder: for the episodes' own folders.
        parallel: how many slots there are.
        stagger_s: what a slot waits before its nth episode.
        live: as of `record`.
    """

    play: Play
    deliver: Callable[[EpisodePlan, bytes], object]
    folder: Path
    parallel: int
    stagger_s: Callable[[int, int], float] = lambda _slot, _nth: 0.0
    live: bool = False
    done: int = 0
    failed: int = 0
    cpu_s: float = 0.0
    wall_s: float = 0.0
    _begun: Counter[int] = field(default_factory=Counter)
    _in_a_row: list[str] = field(default_factory=list)
    _slots: dict[int, _Try] = field(default_factory=dict)

    def go(self, plans: Sequence[EpisodePlan], stopped: Callable[[], bool]) -> None:
        """Play all plans; one that fails is tried once more and then left out.

        Raises:
            LabError: three failures in a row, some were left out, or it was stopped.
        """
        waiting, again = iter(plans), list[tuple[EpisodePlan, int]]()
        began, own_s = time.monotonic(), _own_cpu_s()
        try:
            while not stopped():
                for slot in range(self.parallel):
                    if slot not in self._slots and (next_one := _next(waiting, again)):
                        self._start(slot, *next_one)
                if not self._slots:
                    break
                self._await(again)
                if self.live:
                    logger.info("%s", self._progress(len(plans), began))
        finally:
            self._abandon()
        of_all = f"{self.done} of {count(len(plans), 'episode')} recorded"
        if self.wall_s:
            cost = 100 * (self.cpu_s + _own_cpu_s() - own_s) / self.wall_s
            per_hour = 3600 * self.done / (time.monotonic() - began)
            of_all += f", {per_hour:.0f} an hour, {cost:.1f} % of a core a guest"
        if stopped():
            raise LabError(f"stopped: {of_all}; the same command goes on from there")
        if self.failed:
            raise LabError(f"{of_all}, {self.failed} failed; the same command tries them again")
        logger.log(MILESTONE, "%s", of_all)

    def _start(self, slot: int, plan: EpisodePlan, number: int) -> None:
        place = self.folder / f"{slot}-{plan.episode_id}-{number}"
        place.mkdir()
        pause_s = self.stagger_s(slot, self._begun[slot])
        self._begun[slot] += 1

        def work() -> bytes:
            time.sleep(pause_s)
            return msgspec.msgpack.encode(self.play(plan, slot, place))

        child = Child(work)
        self._slots[slot] = _Try(plan, number, child, place)

    def _await(self, again: list[tuple[EpisodePlan, int]]) -> None:
        """Wait a moment for slots to end; settle those that have."""
        with selectors.DefaultSelector() as selector:
            for slot, each in self._slots.items():
                selector.register(each.child.fd, selectors.EVENT_READ, slot)
            ready = [key.data for key, _ in selector.select(_LOOK_S)]
        for slot in ready:
            each = self._slots[slot]
            if not each.child.read():
                continue
            del self._slots[slot]
            try:
                self._settle(slot, each, again)
            finally:
                each.child.end()
                shutil.rmtree(each.folder, ignore_errors=True)

    def _settle(self, slot: int, each: _Try, again: list[tuple[EpisodePlan, int]]) -> None:
        plan = each.plan
        what = f"episode {plan.number} ({plan.host.host_id} {plan.profile} {plan.sample_name})"
        try:
            recorded = msgspec.msgpack.decode(each.child.result(), type=Recorded)
        except LabError as error:
            retry = each.number < _TRIES
            after = "tried once more" if retry else "left out"
            logger.warning("%s in slot %d failed, %s: %s", what, slot, after, error)
            self._in_a_row.append(str(error))
            if len(self._in_a_row) >= _MOST_FAILURES:
                raise LabError(
                    f"{_MOST_FAILURES} failures in a row, the last: {self._in_a_row[-1]}"
                ) from None
            if retry:
                again.append((plan, each.number + 1))
            else:
                self.failed += 1
            return
        self.deliver(plan, recorded.content)
        self._in_a_row.clear()
        self.done += 1
        self.cpu_s += recorded.cpu_s
        self.wall_s += recorded.wall_s
        if not self.live:
            size = len(recorded.content) / 1000
            logger.log(MILESTONE, "%d recorded: %s, %.0f kB", self.done, what, size)

    def _progress(self, total: int, began: float) -> str:
        text = f"{self.done}/{total} episodes"
        passed = time.monotonic() - began
        if self.done:
            left = about(passed / self.done * (total - self.done))
            text += f", {3600 * self.done / passed:.0f} an hour, {left} left"
        else:
            text += f", the first under way for {duration(passed)}"
        return f"{text}, {self.failed} failed" if self.failed else text

    def _abandon(self) -> None:
        """End what is under way; nothing of it is kept."""
        for each in self._slots.values():
            each.child.ask_to_end()
        for each in self._slots.values():
            each.child.end()
            shutil.rmtree(each.folder, ignore_errors=True)
        self._slots.clear()


def _own_cpu_s() -> float:
    spent = resource.getrusage(resource.RUSAGE_SELF)
    return spent.ru_utime + spent.ru_stime


def _next(
    waiting: Iterator[EpisodePlan], again: list[tuple[EpisodePlan, int]]
) -> tuple[EpisodePlan, int] | None:
    if again:
        return again.pop(0)
    plan = next(waiting, None)
    return (plan, 1) if plan is not None else None


@contextmanager
def _alone(store: Path) -> Iterator[None]:
    """Hold a store against other recorders, which would record the same episodes."""
    descriptor = os.open(store, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise LabError(f"another cis490 lab record is at work on {store}: wait for it") from None
    try:
        yield
    finally:
        os.close(descriptor)


@contextmanager
def _run_folder(runs: Path) -> Iterator[Path]:
    """A folder for this run's guests; what dead runs left is removed."""
    try:
        runs.mkdir(parents=True, exist_ok=True)
        folder, lock = _claim(runs)
    except OSError as error:
        raise LabError(f"cannot write to {runs}: {error.strerror}; set --cache") from None
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        lock.close()


def _claim(runs: Path) -> tuple[Path, IO[str]]:
    """Remove the folders of runs that are dead, make one and hold its lock."""
    with (runs / "lock").open("w") as one_at_a_time:
        fcntl.flock(one_at_a_time, fcntl.LOCK_EX)
        for folder in filter(Path.is_dir, list(runs.iterdir())):
            # Who gets the lock knows that nobody of that run lives: slots hold it too.
            if (lock := _lock(folder)) is not None:
                shutil.rmtree(folder, ignore_errors=True)
                lock.close()
        mine = Path(tempfile.mkdtemp(dir=runs))
        lock = _lock(mine)
        assert lock is not None
        return mine, lock


def _lock(folder: Path) -> IO[str] | None:
    file = (folder / "lock").open("w")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        return None
    return file
