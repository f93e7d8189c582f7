"""The event loop: deadlines that hold their rate, descriptors that are served."""

from __future__ import annotations

import itertools
import os

import pytest

from cis490.lab import loop as loops
from cis490.lab.loop import following

MS = 1_000_000


class Time:
    """A clock that moves only when the loop waits, or when a test says so."""

    def __init__(self, monkeypatch, loop):
        self.now = 5_000 * MS
        self._poll = loop._poll
        monkeypatch.setattr(loops.time, "monotonic_ns", lambda: self.now)
        loop._poll = self

    def poll(self, wait_s):
        ready = self._poll.poll(0)
        if not ready:
            self.now += round(wait_s * 1e9)
        return ready

    def __getattr__(self, name):
        return getattr(self._poll, name)


@pytest.fixture
def clock(monkeypatch, loop):
    return Time(monkeypatch, loop)


def run_for(loop, clock, ms):
    over = []
    loop.at(clock.now + ms * MS, lambda: over.append(True))
    loop.run(lambda: bool(over))


def test_a_rate_does_not_drift_however_long_its_work_takes(loop, clock):
    origin, times = clock.now, []

    def work():
        times.append((clock.now - origin) // MS)
        clock.now += (7 + len(times) % 3) * MS

    loop.every(origin, 20 * MS, work)
    run_for(loop, clock, 1010)
    assert times == list(range(0, 1001, 20))


@pytest.mark.parametrize(
    ("now_ms", "next_ms"), [(0, 100), (1, 100), (49, 100), (51, 200), (120, 200), (399, 500)]
)
def test_after_a_late_call_the_next_is_at_least_half_a_period_away(now_ms, next_ms):
    assert following(1000 * MS, 100 * MS, (1000 + now_ms) * MS) == (1000 + next_ms) * MS


def test_what_was_missed_is_left_out_and_not_made_up_for(loop, clock):
    origin, times = clock.now, []

    def work():
        times.append((clock.now - origin) // MS)
        if len(times) == 2:
            clock.now += 95 * MS

    loop.every(origin, 20 * MS, work)
    run_for(loop, clock, 200)
    assert times == [0, 20, 140, 160, 180]


def test_a_call_that_comes_late_is_told_so_and_leaves_the_grid_as_it_is(loop, clock):
    origin, times = clock.now, []
    loop.at(origin + 15 * MS, lambda: setattr(clock, "now", origin + 47 * MS))
    loop.every(origin, 20 * MS, lambda: times.append((clock.now - origin) // MS))
    run_for(loop, clock, 100)
    assert times == [0, 47, 60, 80]


def test_a_rate_begins_at_the_next_moment_of_its_own_grid(loop, clock):
    for offset in (1010, -1010):
        times = []
        origin = clock.now + offset * MS
        loop.every(origin, 50 * MS, lambda o=origin, t=times: t.append((clock.now - o) % (50 * MS)))
        run_for(loop, clock, 120)
        assert times[:2] == [0, 0]


def test_deadlines_come_in_order_whatever_order_they_were_set_in(loop, clock):
    called = []
    loop.at(clock.now + 20 * MS, lambda: called.append("b"))
    loop.at(clock.now + 10 * MS, lambda: called.append("a"))
    loop.at(clock.now + 20 * MS, lambda: called.append("c"))
    loop.run(lambda: len(called) == 3)
    assert called == ["a", "b", "c"]


def test_a_descriptor_is_served_until_it_is_ignored(loop, clock):
    read, write = os.pipe()
    said = []

    def take():
        said.append(os.read(read, 1))
        if len(said) == 2:
            loop.ignore(read)

    loop.watch(read, take)
    os.write(write, b"abc")
    run_for(loop, clock, 30)
    assert said == [b"a", b"b"]
    os.close(read)
    os.close(write)


def test_a_descriptor_that_never_rests_does_not_keep_deadlines_waiting(loop, clock):
    read, write = os.pipe()
    os.write(write, b"x")
    called, rounds = [], itertools.count()

    def take():  # and leaves it readable
        clock.now += MS
        assert next(rounds) < 100

    loop.watch(read, take)
    loop.at(clock.now + 20 * MS, lambda: called.append(True))
    loop.run(lambda: bool(called))
    os.close(read)
    os.close(write)
