"""The journal of runs, results/run.jsonl: a JSON object a line, appended by each run under its id.

Every event has `time` (ISO 8601, UTC), `run` and `event`; docs/watching.md says what else each
kind has. A run that was killed may leave half a line: the next one begins on a line of its own, and
readers leave out what they cannot read.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import msgspec

from cis490.files import StrPath

NAME: Final = "run.jsonl"

Event = dict[str, Any]


def stamped(run: str, event: Event, at: float) -> Event:
    """An event of a run that happened at `at` (seconds since 1970), as the journal has it."""
    return {"time": stamp(at), "run": run, **event}


class Journal:
    """Appends events; the file is made with the first of them.

    Args:
        path: of the journal.
    """

    def __init__(self, path: StrPath) -> None:
        self.path = Path(path)
        self._file: int | None = None

    def append(self, event: Event) -> None:
        """Write one event of `stamped`.

        Raises:
            OSError: it cannot be written.
        """
        line = msgspec.json.encode(event) + b"\n"  # as it is: time and kind come first
        if self._file is None:
            self._file = self._open()
        os.write(self._file, line)  # at once, so that lines of two runs never mix

    def _open(self) -> int:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        file = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o666)
        size = os.fstat(file).st_size
        if size and os.pread(file, 1, size - 1) != b"\n":
            os.write(file, b"\n")  # the run before was killed while it wrote
        return file

    def close(self) -> None:
        """Close the file; another event would open it again."""
        if self._file is not None:
            os.close(self._file)
            self._file = None


def stamp(at: float) -> str:
    """Seconds since 1970 as ISO 8601 in UTC, to the millisecond."""
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def seconds(time: str) -> float:
    """The inverse of `stamp`."""
    return datetime.fromisoformat(time).timestamp()


def read(path: StrPath, last_bytes: int | None = None) -> list[Event]:
    """The events of a journal in the order of its lines; none if there is no journal.

    Args:
        path: of the journal.
        last_bytes: look at no more than this of its end.
    """
    try:
        with Path(path).open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            start = file.seek(max(size - last_bytes, 0) if last_bytes else 0)
            lines = file.read(size - start).split(b"\n")
    except FileNotFoundError:
        return []
    return [event for line in lines if (event := _event(line))]


def _event(line: bytes) -> Event | None:
    try:
        event = json.loads(line)
        seconds(event["time"])
    except (ValueError, TypeError, KeyError):  # half a line, or none of ours
        return None
    known = isinstance(event.get("run"), str) and isinstance(event.get("event"), str)
    return event if known else None


def last_run(events: Sequence[Event]) -> list[Event]:
    """The events of the run that began last; none if there are none."""
    started = [event["run"] for event in events if event["event"] == "run_started"]
    last = started[-1] if started else events[-1]["run"] if events else None
    return [event for event in events if event["run"] == last]
