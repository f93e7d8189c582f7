"""The client of QEMU's monitor, against a socket that answers as QEMU does."""

from __future__ import annotations

import json
import socket

import pytest

from cis490.errors import LabError
from cis490.lab.qmp import Qmp, Refused

GREETING = {"QMP": {"version": {"qemu": {"major": 7, "minor": 2, "micro": 22}}}}


@pytest.fixture
def ends():
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    yield ours, theirs
    ours.close()
    theirs.close()


def sent(end):
    return [json.loads(line) for line in end.recv(1 << 16).splitlines()]


def answer(end, *messages):
    end.sendall(b"".join(json.dumps(message).encode() + b"\r\n" for message in messages))


def test_the_greeting_tells_the_version_after_the_negotiation(ends):
    qmp, versions = Qmp(ends[0]), []
    qmp.greet(versions.append)
    answer(ends[1], GREETING)
    assert qmp.read()
    (command,) = sent(ends[1])
    assert command["execute"] == "qmp_capabilities"
    assert versions == []
    answer(ends[1], {"return": {}, "id": command["id"]})
    qmp.read()
    assert versions == ["7.2.22"]


def test_answers_find_their_questions_in_any_order_and_past_events(ends):
    qmp, got = Qmp(ends[0]), []
    qmp.execute("a", lambda value: got.append(("a", value)))
    qmp.execute("b", lambda value: got.append(("b", value)), {"path": "/x"})
    one, two = sent(ends[1])
    assert two["arguments"] == {"path": "/x"}
    assert "arguments" not in one
    answer(
        ends[1],
        {"event": "RTC_CHANGE", "data": {}},
        {"return": 2, "id": two["id"]},
        {"return": 1, "id": one["id"]},
        {"return": 9, "id": 999},
    )
    qmp.read()
    assert got == [("b", 2), ("a", 1)]


def test_a_refusal_is_told_as_one(ends):
    qmp, got = Qmp(ends[0]), []
    qmp.execute("x-query-jit", got.append)
    answer(ends[1], {"error": {"class": "GenericError", "desc": "only with TCG"}, "id": 0})
    qmp.read()
    assert got == [Refused("only with TCG")]


def test_an_answer_in_pieces_is_put_together(ends):
    qmp, got = Qmp(ends[0]), []
    qmp.execute("a", got.append)
    for piece in (b'{"return": [1, ', b'2], "id"', b": 0}\r", b"\n"):
        ends[1].sendall(piece)
        assert qmp.read()
    assert got == [[1, 2]]
    assert qmp.read(), "nothing there is no end"


def test_the_end_is_seen_and_a_command_after_it_refused(ends):
    qmp = Qmp(ends[0])
    ends[1].close()
    assert not qmp.read()
    with pytest.raises(LabError, match="does not take the command query-status"):
        qmp.execute("query-status", print)
