"""A guest's network: a namespace of its own with a bridge, no way out, and peers that answer."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import socket
import struct
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final

from cis490.errors import LabError
from cis490.lab.lifeline import die_with
from cis490.lab.loop import Loop

GUEST: Final = "10.77.0.50"
TAP: Final = "tap0"
ADDRESSES: Final = ("10.77.0.1", *(f"10.77.0.{n}" for n in range(100, 110)))
SINK, SOURCE, BEACON = 9001, 9002, 9003

_BRIDGE: Final = "br0"
_CLONE_NEWUSER, _CLONE_NEWNET = 0x10000000, 0x40000000
_SIOCSIFADDR, _SIOCSIFNETMASK = 0x8916, 0x891C
_SIOCGIFFLAGS, _SIOCSIFFLAGS, _SIOCGIFINDEX = 0x8913, 0x8914, 0x8933
_SIOCBRADDBR, _SIOCBRADDIF = 0x89A0, 0x89A2
_TUNSETIFF: Final = 0x400454CA
_IFF_UP, _IFF_TAP, _IFF_NO_PI = 0x1, 0x2, 0x1000
_NO_NAMESPACE: Final = (
    "the kernel gives no network namespace: {reason}. Run as root, or let others have user "
    "namespaces: sysctl -w user.max_user_namespaces=10000, on Debian also "
    "kernel.unprivileged_userns_clone=1, on Ubuntu also "
    "kernel.apparmor_restrict_unprivileged_userns=0"
)
_NO_TAP: Final = (
    "cannot make a tap device ({reason}): /dev/net/tun must be there (modprobe tun) and open to you"
)


def enter() -> int:
    """Move this process into a network namespace of its own, and build the guest's network there.

    Without root it gets a user namespace too, in which it is root. Only for a process of one
    thread that is to die with its parent; children of it are in the namespace as well, and it is
    gone with the last of them.

    Returns:
        The descriptor of the tap device, for QEMU.

    Raises:
        LabError: the kernel forbids it; with what to do.
    """
    _unshare()
    # The bridge would ask for routers and say who listens, each time at another moment.
    for setting in ("all", "default"):
        with suppress(OSError):
            Path(f"/proc/sys/net/ipv6/conf/{setting}/disable_ipv6").write_text("1")
    try:
        tap = os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK)
        fcntl.ioctl(tap, _TUNSETIFF, struct.pack("16sH22x", TAP.encode(), _IFF_TAP | _IFF_NO_PI))
    except OSError as error:
        raise LabError(_NO_TAP.format(reason=error.strerror)) from None
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
            _build(control)
    except OSError as error:
        raise LabError(
            f"cannot make a bridge ({error.strerror}): the kernel needs its module, modprobe bridge"
        ) from None
    return tap


def _unshare() -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    uid, gid, parent = os.geteuid(), os.getegid(), os.getppid()
    if libc.unshare(_CLONE_NEWNET) == 0:
        return
    if ctypes.get_errno() != errno.EPERM:
        raise LabError(_NO_NAMESPACE.format(reason=os.strerror(ctypes.get_errno())))
    if libc.unshare(_CLONE_NEWUSER | _CLONE_NEWNET) != 0:
        raise LabError(_NO_NAMESPACE.format(reason=os.strerror(ctypes.get_errno())))
    try:
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"0 {uid} 1")
        Path("/proc/self/gid_map").write_text(f"0 {gid} 1")
    except OSError as error:
        raise LabError(_NO_NAMESPACE.format(reason=error.strerror)) from None
    die_with(parent)


def _build(control: socket.socket) -> None:
    fcntl.ioctl(control, _SIOCBRADDBR, _BRIDGE.encode() + b"\0")
    index = struct.unpack("16xi20x", fcntl.ioctl(control, _SIOCGIFINDEX, _request(TAP)))[0]
    fcntl.ioctl(control, _SIOCBRADDIF, _request(_BRIDGE, struct.pack("i", index)))
    for number, address in enumerate(ADDRESSES):
        name = f"{_BRIDGE}:{number}" if number else _BRIDGE
        for call, value in ((_SIOCSIFADDR, address), (_SIOCSIFNETMASK, "255.255.255.0")):
            plain = struct.pack("HH4s", socket.AF_INET, 0, socket.inet_aton(value))
            fcntl.ioctl(control, call, _request(name, plain))
    for name in ("lo", TAP, _BRIDGE):
        flags = struct.unpack("16xh22x", fcntl.ioctl(control, _SIOCGIFFLAGS, _request(name)))[0]
        fcntl.ioctl(control, _SIOCSIFFLAGS, _request(name, struct.pack("h", flags | _IFF_UP)))


def _request(name: str, value: bytes = b"") -> bytes:
    return struct.pack("16s24s", name.encode(), value)


class Peers:
    """The servers that the guest talks to, on every address of the bridge, in the slot's loop.

    `SINK` reads until the guest closes. `SOURCE` reads a line with a number and sends so many
    bytes. `BEACON` reads a line, answers with a short one and closes.

    Args:
        loop: that serves them.
        ports: of sink, source and beacon; 0 takes a free one, for tests.

    Raises:
        LabError: a port is taken.
    """

    _MOST: Final = 64 << 20  # bytes that a source sends at once
    _LINE: Final = 64  # longest line of a request

    def __init__(self, loop: Loop, ports: tuple[int, int, int] = (SINK, SOURCE, BEACON)) -> None:
        self._loop = loop
        self._room = bytearray(1 << 16)
        self._filling = memoryview(bytes(range(256)) * 256)
        self._listeners = []
        self.ports = []
        for port, serve in zip(ports, (self._sink, self._source, self._beacon), strict=True):
            listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                listener.bind(("", port))
            except OSError as error:
                raise LabError(f"cannot serve on port {port}: {error.strerror}") from None
            listener.listen(256)
            self._listeners.append(listener)
            self.ports.append(listener.getsockname()[1])
            loop.watch(listener.fileno(), self._accepting(listener, serve))

    def _accepting(
        self, listener: socket.socket, serve: Callable[[socket.socket], None]
    ) -> Callable[[], None]:
        def accept() -> None:
            with suppress(OSError):  # who asked may have gone already
                connection, _ = listener.accept()
                connection.setblocking(False)
                serve(connection)

        return accept

    def _sink(self, connection: socket.socket) -> None:
        def read() -> None:
            if not self._receive(connection):
                self._close(connection)

        # What the guest sends comes a frame at a time; there is no use in waking for each.
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, 1 << 15)
        self._loop.watch(connection.fileno(), read)

    def _receive(self, connection: socket.socket) -> int | None:
        """How much was read, into `_room`; 0 at the end, None where nothing is there yet."""
        try:
            return connection.recv_into(self._room)
        except BlockingIOError:
            return None
        except OSError:
            return 0

    def _line_then(
        self, connection: socket.socket, then: Callable[[socket.socket, bytes], None]
    ) -> None:
        line = bytearray()

        def read() -> None:
            count = self._receive(connection)
            if count is None:
                return
            line.extend(self._room[:count])
            if b"\n" in line or (count == 0 and line):
                then(connection, bytes(line.partition(b"\n")[0]))
            elif count == 0 or len(line) > self._LINE:
                self._close(connection)

        self._loop.watch(connection.fileno(), read)

    def _source(self, connection: socket.socket) -> None:
        self._line_then(connection, self._send)

    def _send(self, connection: socket.socket, line: bytes) -> None:
        text = line.strip()
        left = min(int(text), self._MOST) if text.isdigit() and len(text) < 12 else 0

        def write() -> None:
            nonlocal left
            try:
                while left:
                    left -= connection.send(self._filling[:left])
            except BlockingIOError:
                return
            except OSError:
                pass
            self._finish(connection)

        self._loop.watch(connection.fileno(), write, write=True)

    def _beacon(self, connection: socket.socket) -> None:
        def answer(connection: socket.socket, line: bytes) -> None:
            del line
            with suppress(OSError):
                connection.send(b"ok\n")
            self._finish(connection)

        self._line_then(connection, answer)

    def _finish(self, connection: socket.socket) -> None:
        """Close our side, and all of it once the guest has closed its own."""
        with suppress(OSError):
            connection.shutdown(socket.SHUT_WR)

        def read() -> None:
            if self._receive(connection) == 0:
                self._close(connection)

        self._loop.watch(connection.fileno(), read)

    def _close(self, connection: socket.socket) -> None:
        self._loop.ignore(connection.fileno())
        connection.close()

    def close(self) -> None:
        """Stop listening."""
        for listener in self._listeners:
            self._loop.ignore(listener.fileno())
            listener.close()
