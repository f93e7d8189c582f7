"""QEMU's monitor protocol over one end of a socket pair, without waiting for its answers."""

from __future__ import annotations

import itertools
import socket
from collections.abc import Callable
from typing import Any, Final

import msgspec

from cis490.errors import LabError

_CHUNK: Final = 1 << 16

Then = Callable[[Any], None]


class Qmp:
    """A client of one QEMU.

    Args:
        connection: connected to the monitor, not blocking.
    """

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._buffer = b""
        self._ids = itertools.count()
        self._waiting: dict[int, Then] = {}
        self._greeting: Then | None = None
        self._decoder = msgspec.json.Decoder()

    def greet(self, then: Then) -> None:
        """Wait for QEMU's greeting and leave the negotiation; `then` gets its version as text."""

        def negotiate(greeting: Any) -> None:
            version = greeting["version"]["qemu"]
            text = f"{version['major']}.{version['minor']}.{version['micro']}"
            self.execute("qmp_capabilities", lambda _: then(text))

        self._greeting = negotiate

    def execute(self, command: str, then: Then, arguments: dict[str, Any] | None = None) -> None:
        """Send a command; `then` gets what it returns, or a `Refused`, when the answer is there.

        Raises:
            LabError: QEMU does not read what it is sent.
        """
        number = next(self._ids)
        message: dict[str, Any] = {"execute": command, "id": number}
        if arguments is not None:
            message["arguments"] = arguments
        self._waiting[number] = then
        try:
            self._connection.sendall(msgspec.json.encode(message) + b"\n")
        except OSError as error:
            raise LabError(f"QEMU does not take the command {command}: {error.strerror}") from None

    def read(self) -> bool:
        """Take what has arrived; False if QEMU has closed the connection."""
        try:
            chunk = self._connection.recv(_CHUNK)
        except BlockingIOError:
            return True
        except ConnectionError:
            return False
        *lines, self._buffer = (self._buffer + chunk).split(b"\n")
        for line in lines:
            if line.strip():
                self._take(self._decoder.decode(line))
        return bool(chunk)

    def _take(self, message: dict[str, Any]) -> None:
        if "QMP" in message:
            if self._greeting is not None:
                self._greeting(message["QMP"])
        elif "event" not in message:
            then = self._waiting.pop(message.get("id", -1), None)
            if then is not None:
                failed = message.get("error")
                then(Refused(failed.get("desc", "")) if failed else message["return"])


class Refused(msgspec.Struct, frozen=True):
    """The answer to a command that QEMU could not follow."""

    why: str
