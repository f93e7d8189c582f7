"""One thread's event loop: file descriptors that can be read, and deadlines that never drift."""

from __future__ import annotations

import heapq
import itertools
import select
import time
from collections.abc import Callable
from typing import Final

_NS: Final = 1_000_000_000
# A late loop has its timers' work first, then each descriptor once.
_LONGEST_WAIT_S: Final = 1.0


class Loop:
    """Calls what was asked for when a descriptor is ready or a moment has come.

    Times are `time.monotonic_ns()`.
    """

    def __init__(self) -> None:
        self._poll = select.epoll()
        self._calls: dict[int, Callable[[], None]] = {}
        self._timers: list[tuple[int, int, Callable[[], None]]] = []
        self._order = itertools.count()  # of timers that are due at the same moment

    def watch(self, fd: int, call: Callable[[], None], *, write: bool = False) -> None:
        """Call `call` while `fd` can be read (or written to); it takes the place of an earlier."""
        events = select.EPOLLOUT if write else select.EPOLLIN
        if fd in self._calls:
            self._poll.modify(fd, events)
        else:
            self._poll.register(fd, events)
        self._calls[fd] = call

    def ignore(self, fd: int) -> None:
        """Forget a descriptor, before it is closed."""
        if self._calls.pop(fd, None) is not None:
            self._poll.unregister(fd)

    def at(self, when_ns: int, call: Callable[[], None]) -> None:
        """Call `call` once, at `when_ns` or as soon after as can be."""
        heapq.heappush(self._timers, (when_ns, next(self._order), call))

    def every(self, origin_ns: int, period_ns: int, call: Callable[[], None]) -> None:
        """Call `call` at the coming moments `origin_ns` + k · `period_ns`, for integers k.

        A call that comes late does not move those after it; one that is due within half a period
        of a late one is left out, so that calls never come in bunches.
        """

        def tick() -> None:
            call()
            self.at(following(origin_ns, period_ns, time.monotonic_ns()), tick)

        now = time.monotonic_ns()
        self.at(origin_ns + -((origin_ns - now) // period_ns) * period_ns, tick)

    def run(self, done: Callable[[], bool]) -> None:
        """Serve until `done` says so; it is asked after each round of calls."""
        while not done():
            now = time.monotonic_ns()
            if self._timers and self._timers[0][0] <= now:
                heapq.heappop(self._timers)[2]()
                continue
            wait_s = _LONGEST_WAIT_S
            if self._timers:
                wait_s = min(wait_s, (self._timers[0][0] - now) / _NS)
            for fd, _ in self._poll.poll(wait_s):
                if call := self._calls.get(fd):
                    call()

    def close(self) -> None:
        """Give back the loop's own descriptor."""
        self._poll.close()


def following(origin_ns: int, period_ns: int, now_ns: int) -> int:
    """The first moment origin + k · period that is more than half a period after `now_ns`."""
    return origin_ns + ((now_ns - origin_ns + period_ns // 2) // period_ns + 1) * period_ns
