"""The host's view of the VM process: its files in /proc, kept open and read again at each look."""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

_PAGE: Final = os.sysconf("SC_PAGE_SIZE")
_LONGEST: Final = 4096  # bytes of a file that is read


@dataclass
class _Thread:
    status: int
    schedstat: int
    seen: tuple[int, int, int, int] = (0, 0, 0, 0)


class Proc:
    """Reads a process and the sum of its threads.

    A thread that has ended keeps what it had in the sums, so that counters never go back.

    Args:
        pid: of the process.
        root: where proc is mounted.
    """

    def __init__(self, pid: int, root: str = "/proc") -> None:
        self._folder = f"{root}/{pid}"
        self._tasks = f"{self._folder}/task"
        self._stat, self._statm, self._io = (
            os.open(f"{self._folder}/{name}", os.O_RDONLY) for name in ("stat", "statm", "io")
        )
        self._threads: dict[str, _Thread] = {}
        self._ended = (0, 0, 0, 0)

    def look(self) -> dict[str, int]:
        """The twelve channels now.

        Raises:
            OSError: the process is gone.
        """
        # The name in brackets may hold spaces; fields are counted from behind it.
        stat = os.pread(self._stat, _LONGEST, 0).rpartition(b")")[2].split()
        resident = os.pread(self._statm, _LONGEST, 0).split()[1]
        io = os.pread(self._io, _LONGEST, 0).split()
        run_ns, wait_ns, voluntary, involuntary = self._sums()
        return {
            "utime_ticks": int(stat[11]),
            "stime_ticks": int(stat[12]),
            "minflt": int(stat[7]),
            "threads": int(stat[17]),
            "rss_bytes": int(resident) * _PAGE,
            "rchar": int(io[1]),
            "wchar": int(io[3]),
            "write_bytes": int(io[11]),
            "run_ns": run_ns,
            "wait_ns": wait_ns,
            "vol_ctxt": voluntary,
            "nonvol_ctxt": involuntary,
        }

    def _sums(self) -> tuple[int, ...]:
        names = os.listdir(self._tasks)  # noqa: PTH208, a Path for each would cost more than the look
        for name in names:
            if name not in self._threads:
                with suppress(OSError):
                    self._threads[name] = self._open(name)
        for name in list(self._threads):
            thread = self._threads[name]
            try:
                thread.seen = _counts(thread)
            except OSError:
                self._ended = _added(self._ended, thread.seen)
                self._forget(name)
        total = self._ended
        for thread in self._threads.values():
            total = _added(total, thread.seen)
        return total

    def _open(self, name: str) -> _Thread:
        status = os.open(f"{self._tasks}/{name}/status", os.O_RDONLY)
        try:
            return _Thread(status, os.open(f"{self._tasks}/{name}/schedstat", os.O_RDONLY))
        except OSError:
            os.close(status)
            raise

    def _forget(self, name: str) -> None:
        thread = self._threads.pop(name)
        os.close(thread.status)
        os.close(thread.schedstat)

    def close(self) -> None:
        """Close the files."""
        for name in list(self._threads):
            self._forget(name)
        for fd in (self._stat, self._statm, self._io):
            os.close(fd)


def _counts(thread: _Thread) -> tuple[int, int, int, int]:
    run_ns, wait_ns, _ = os.pread(thread.schedstat, _LONGEST, 0).split()
    # The last two lines of status: voluntary_ctxt_switches and nonvoluntary_ctxt_switches.
    words = os.pread(thread.status, _LONGEST, 0).rsplit(None, 4)
    return int(run_ns), int(wait_ns), int(words[-3]), int(words[-1])


def _added(one: tuple[int, ...], two: tuple[int, ...]) -> tuple[int, int, int, int]:
    a, b, c, d = (x + y for x, y in zip(one, two, strict=True))
    return a, b, c, d
