"""What a guest says of itself: cut into lines, believed in form only."""

from __future__ import annotations

import json

import pytest

from cis490.channels import of_source
from cis490.lab.observers.guest import Agent, Lines, Processes

NAMES = [channel.name for channel in of_source("guest")]


def test_lines_are_put_together_from_pieces():
    lines = Lines()
    assert lines.cut(b"one\ntw") == [b"one"]
    assert lines.cut(b"o") == []
    assert lines.cut(b"\nthree\n") == [b"two", b"three"]
    assert lines.lost == 0


def test_a_line_without_end_is_dropped_once_and_the_next_is_taken():
    lines = Lines()
    for _ in range(10):
        assert lines.cut(b"x" * 50_000) == []
    assert lines.cut(b"the rest\nnext\n") == [b"next"]
    assert lines.lost == 1


def test_the_agent_s_numbers_become_a_row_in_the_format_s_order():
    said = {name: i for i, name in enumerate(reversed(NAMES))}
    row = Agent().row(json.dumps({**said, "more": 1}).encode())
    assert list(row) == NAMES
    assert row["cpu_user"] == len(NAMES) - 1


def test_what_is_no_value_is_missing():
    row = Agent().row(b'{"cpu_user": null, "ctxt": 9223372036854775808, "intr": 5}')
    assert row == {"intr": 5}


@pytest.mark.parametrize(
    "line", [b"", b"ready", b"[1]", b'{"cpu_user": "7"}', b'{"cpu_user": NaN}', b'{"cpu', b"\xff"]
)
def test_a_line_that_is_no_object_of_numbers_is_counted_as_lost(line):
    agent = Agent()
    assert agent.row(line) is None
    assert agent.lost == 1


def event(kind, pid, ppid=1, cmdline="sleep 2"):
    return json.dumps({"event": kind, "pid": pid, "ppid": ppid, "cmdline": cmdline}).encode()


def test_a_snapshot_tells_who_is_alive_with_its_latest_command():
    processes = Processes()
    for line in (
        event("snapshot", 1, 0, "init"),
        event("start", 10, 1, "sh"),
        event("start", 11, 1, "sh"),
        event("exec", 10, 1, "sleep 5"),
        event("exit", 11, 1, "sh"),
    ):
        processes.row(line)
    assert processes.snapshot() == [
        {"event": "snapshot", "pid": 1, "ppid": 0, "cmdline": "init"},
        {"event": "snapshot", "pid": 10, "ppid": 1, "cmdline": "sleep 5"},
    ]


def test_an_event_becomes_a_row():
    row = Processes().row(event("exec", 12, 3, "dd bs=4k"))
    assert row == {"event": "exec", "pid": 12, "ppid": 3, "cmdline": "dd bs=4k"}


@pytest.mark.parametrize(
    "line",
    [
        b"{}",
        event("born", 1),
        event("start", "1"),
        event("start", 2**63),
        b'{"event":"start"',
        b"\xff",
    ],
)
def test_a_line_that_is_no_event_is_counted_as_lost(line):
    processes = Processes()
    assert processes.row(line) is None
    assert processes.lost == 1


def test_a_guest_cannot_fill_our_memory_with_processes():
    processes = Processes()
    for pid in range(1, 40_000):
        processes.row(event("start", pid))
    assert len(processes.snapshot()) == 1 << 15
