"""The guest's own view, line by line through a virtio-serial port; none of it is to be trusted."""

from __future__ import annotations

from typing import Final, Literal

import msgspec

from cis490.channels import of_source

_INT64: Final = range(-(2**63), 2**63)

Row = dict[str, int | float | str]


class Lines:
    """Cuts what arrives at a port into lines; a line that is too long is dropped and counted."""

    _LONGEST: Final = 1 << 16

    def __init__(self) -> None:
        self._rest = b""
        self._skipping = False
        self.lost = 0

    def cut(self, chunk: bytes) -> list[bytes]:
        """The lines that `chunk` completes."""
        *lines, self._rest = (self._rest + chunk).split(b"\n")
        if lines and self._skipping:
            del lines[0]
            self._skipping = False
        if len(self._rest) > self._LONGEST:
            self.lost += not self._skipping
            self._rest, self._skipping = b"", True
        return lines


class Agent:
    """Turns the agent's lines into rows of the twelve guest channels."""

    def __init__(self) -> None:
        self._names = [channel.name for channel in of_source("guest")]
        self._decoder = msgspec.json.Decoder(dict[str, int | float | None])
        self.lost = 0

    def row(self, line: bytes) -> Row | None:
        """The channels that a line tells, or None for a line that is no object of numbers."""
        try:
            said = self._decoder.decode(line)
        except (msgspec.DecodeError, UnicodeDecodeError):
            self.lost += 1
            return None
        return {name: said[name] for name in self._names if _is_value(said.get(name))}  # type: ignore[misc]


def _is_value(value: int | float | None) -> bool:
    return value is not None and (isinstance(value, float) or value in _INT64)


class _Event(msgspec.Struct):
    event: Literal["snapshot", "start", "exec", "exit"]
    pid: int
    ppid: int
    cmdline: str


class Processes:
    """The guest's processes, from its events.

    What runs when a record begins is told there as `snapshot`, in the order of its start.
    """

    _MOST: Final = 1 << 15  # processes that a guest can have us remember

    def __init__(self) -> None:
        self._decoder = msgspec.json.Decoder(_Event)
        self._alive: dict[int, _Event] = {}
        self.lost = 0

    def row(self, line: bytes) -> Row | None:
        """The row of an event, or None for a line that is none."""
        try:
            told = self._decoder.decode(line)
        except (msgspec.DecodeError, UnicodeDecodeError):
            self.lost += 1
            return None
        if told.pid not in _INT64 or told.ppid not in _INT64:
            self.lost += 1
            return None
        if told.event == "exit":
            self._alive.pop(told.pid, None)
        elif told.pid in self._alive or len(self._alive) < self._MOST:
            self._alive[told.pid] = told
        return _row(told.event, told)

    def snapshot(self) -> list[Row]:
        """A row for each process that is alive."""
        return [_row("snapshot", each) for each in self._alive.values()]


def _row(event: str, told: _Event) -> Row:
    return {"event": event, "pid": told.pid, "ppid": told.ppid, "cmdline": told.cmdline}
