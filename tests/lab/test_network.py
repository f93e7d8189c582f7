"""Peers that answer a guest, and what is said where the kernel gives no network."""

from __future__ import annotations

import errno
import socket
import time
from pathlib import Path

import pytest

from cis490.errors import LabError
from cis490.lab import network
from cis490.lab.network import Peers


def open_files():
    return len(list(Path("/proc/self/fd").iterdir()))


@pytest.fixture
def peers(loop):
    peers = Peers(loop, (0, 0, 0))
    yield dict(zip(("sink", "source", "beacon"), peers.ports, strict=True))
    peers.close()


def serve(loop, until, patience_s=10.0):
    deadline = time.monotonic() + patience_s
    loop.at(time.monotonic_ns() + round(patience_s * 1e9), lambda: None)
    loop.run(lambda: until() or time.monotonic() > deadline)
    assert until()


class Caller:
    """A client in the servers' own loop, as nc is one in a guest."""

    def __init__(self, loop, port, say=b""):
        self.said, self.over, self._loop = b"", False, loop
        self.socket = socket.create_connection(("127.0.0.1", port))
        self.socket.sendall(say)
        loop.watch(self.socket.fileno(), self._read)

    def _read(self):
        try:
            chunk = self.socket.recv(1 << 20)
        except ConnectionError:
            chunk = b""
        self.said += chunk
        if not chunk:
            self.over = True
            self._loop.ignore(self.socket.fileno())
            self.socket.close()


def test_a_source_sends_as_many_bytes_as_asked_and_closes(loop, peers):
    caller = Caller(loop, peers["source"], b"300000\n")
    serve(loop, lambda: caller.over)
    assert len(caller.said) == 300_000


@pytest.mark.parametrize("line", [b"\n", b"many\n", b"-5\n", b"99999999999999999999\n", b"x" * 99])
def test_a_source_that_is_asked_for_nonsense_closes(loop, peers, line):
    caller = Caller(loop, peers["source"], line)
    serve(loop, lambda: caller.over)
    assert caller.said == b""


def test_a_beacon_answers_one_short_line(loop, peers):
    caller = Caller(loop, peers["beacon"], b"still here\n")
    serve(loop, lambda: caller.over)
    assert caller.said == b"ok\n"


def test_a_line_may_end_with_the_connection(loop, peers):
    caller = Caller(loop, peers["source"], b"7")
    caller.socket.shutdown(socket.SHUT_WR)
    serve(loop, lambda: caller.over)
    assert len(caller.said) == 7


def test_a_sink_reads_until_the_caller_closes(loop, peers):
    caller = Caller(loop, peers["sink"], b"x" * 100_000)
    caller.socket.shutdown(socket.SHUT_WR)
    serve(loop, lambda: caller.over)
    assert caller.said == b""


def test_callers_that_vanish_leave_no_descriptor(loop, peers):
    before = open_files()
    callers = [Caller(loop, peers[kind], b"1000000\n") for kind in peers]
    for caller in callers:
        loop.ignore(caller.socket.fileno())
        caller.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        caller.socket.close()
    serve(loop, lambda: open_files() == before)


def test_a_port_that_is_taken_is_said(loop, peers):
    with pytest.raises(LabError, match=f"cannot serve on port {peers['sink']}"):
        Peers(loop, (peers["sink"], 0, 0))


@pytest.mark.parametrize("failures", [[errno.EPERM, errno.EPERM], [errno.EPERM, errno.ENOSPC]])
def test_a_kernel_without_namespaces_is_said_with_what_to_do(monkeypatch, failures):
    class Libc:
        def unshare(self, flags):
            assert flags
            return -1

    left = list(failures)
    monkeypatch.setattr(network.ctypes, "CDLL", lambda *_, **__: Libc())
    monkeypatch.setattr(
        network.ctypes, "get_errno", lambda: left.pop(0) if len(left) > 1 else left[0]
    )
    with pytest.raises(LabError, match="Run as root, or let others have user namespaces: sysctl"):
        network.enter()
