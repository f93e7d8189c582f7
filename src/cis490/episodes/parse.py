"""JSON lines of one member to rows, strictly.

The compiled decoder (kernel.py) takes members of plain numbers and texts; what it does not take a
fast one reads as a whole, and what that cannot vouch for is read again line by line, which is slow,
judges strictly, and can say which line is wrong and why. All three give the same rows.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from cis490.channels import SAMPLED, of_source
from cis490.episodes import kernel, strict
from cis490.episodes.faults import Fault
from cis490.episodes.tarball import Limits
from cis490.episodes.telemetry import COLUMNS, Rows

LARGEST: Final = 1e300
_ENOUGH = 1000

# What a field may hold: a time is required; the rest may be absent or null, which is "missing".
_TIME, _WORD, _NUMBER, _INTEGER, _TEXT, _PROTO = "time word number integer text proto".split()
_TYPES: Final[dict[str, Any]] = {
    _TIME: int,
    _WORD: str,
    _NUMBER: int | float | None,
    _INTEGER: int | None,
    _TEXT: str | None,
    _PROTO: str | int | None,
}
# The same with their bounds, as the fast decoder takes them.
_INT64: Final = Annotated[int, msgspec.Meta(ge=strict.INT64.start, le=strict.INT64.stop - 1)]
_FLOAT: Final = Annotated[float, msgspec.Meta(ge=-LARGEST, le=LARGEST)]
_BOUNDED: Final[dict[str, Any]] = {
    _TIME: _INT64,
    _WORD: str,
    _NUMBER: _INT64 | _FLOAT | None,
    _INTEGER: _INT64 | None,
    _TEXT: str | None,
    _PROTO: str | _INT64 | None,
}
_NAMES: Final = {
    _TIME: "an integer",
    _WORD: "text",
    _NUMBER: "a number",
    _INTEGER: "an integer",
    _TEXT: "text",
    _PROTO: "text or an integer",
}
_REQUIRED: Final = (_TIME, _WORD)
_ROW_TIMES = {"t_wall_ns": _TIME, "t_mono_ns": _TIME}
FIELDS: Final[dict[str, dict[str, str]]] = {
    "labels": {**_ROW_TIMES, "phase": _WORD},
    **{
        source: {**_ROW_TIMES, **{channel.name: _NUMBER for channel in of_source(source)}}
        for source in SAMPLED
    },
    "netflow": {
        **_ROW_TIMES,
        **{"proto": _PROTO, "src": _TEXT, "sport": _INTEGER, "dst": _TEXT, "dport": _INTEGER},
        **dict.fromkeys(("pkts_out", "bytes_out", "pkts_in", "bytes_in"), _NUMBER),
        **{"tcp_flags": _INTEGER, "new": _NUMBER},
    },
    "exec": {**_ROW_TIMES, "event": _TEXT, "pid": _INTEGER, "ppid": _INTEGER, "cmdline": _TEXT},
}


def _row_type(table: str) -> type[msgspec.Struct]:
    fields: list[Any] = [
        (name, _BOUNDED[kind]) if kind in _REQUIRED else (name, _BOUNDED[kind], None)
        for name, kind in FIELDS[table].items()
    ]
    return msgspec.defstruct(f"{table}_row", fields, gc=False)


_ROWS: Final = {table: _row_type(table) for table in FIELDS}
_DECODERS: Final = {table: msgspec.json.Decoder(row) for table, row in _ROWS.items()}

# For the compiled decoder: what is kept, then what must be there too.
_KEYS: Final = {
    table: kernel.Keys(
        [*COLUMNS[table], *(fields.keys() - COLUMNS[table].keys())],
        texts=[name for name, kind in fields.items() if kind in (_WORD, _TEXT, _PROTO)],
    )
    for table, fields in FIELDS.items()
}


def parse(table: str, content: bytes, *, limits: Limits) -> tuple[Rows | None, list[Fault]]:
    """Parse the member `<table>.jsonl`.

    Args:
        table: a key of `FIELDS`.
        content: the member.
        limits: the longest line and the most lines allowed.

    Returns:
        The rows and no faults; or None and, of each kind of fault, the first one with its line.
    """
    columns = kernel.plain_rows(
        content, _KEYS[table], most_rows=limits.rows, longest_line=limits.line_bytes
    )
    if columns is not None:
        return Rows(table, columns[: len(COLUMNS[table])]), []
    is_end = np.frombuffer(content, np.uint8) == ord("\n")
    n_lines = int(np.count_nonzero(is_end)) + (not content.endswith(b"\n") and bool(content))
    if n_lines > limits.rows:
        text = f"{table}.jsonl: {n_lines} lines, limits.rows is {limits.rows}"
        return None, [Fault("over_limit", text)]
    lines = _Lines.of(content, is_end)
    if (too_long := lines.length > limits.line_bytes).any():
        number = int(too_long.argmax())
        text = f"{lines.length[number]} bytes, limits.line_bytes is {limits.line_bytes}"
        return None, [Fault("over_limit", f"{table}.jsonl line {number + 1}: {text}")]
    if (rows := _parse_fast(table, content, lines)) is not None:
        return Rows.of(table, rows), []
    rows, faults = _parse_strictly(table, content)
    return (None, faults) if faults else (Rows.of(table, rows), [])


@dataclass(frozen=True)
class _Lines:
    """Where the lines of a member begin and end, without their line feed."""

    begin: NDArray[np.intp]
    end: NDArray[np.intp]

    @classmethod
    def of(cls, content: bytes, is_end: NDArray[np.bool_]) -> _Lines:
        ends = np.flatnonzero(is_end)
        if content and not content.endswith(b"\n"):
            ends = np.append(ends, len(content))
        begins = np.zeros_like(ends)
        begins[1:] = ends[:-1] + 1
        return cls(begins, ends)

    @property
    def length(self) -> NDArray[np.intp]:
        return self.end - self.begin


def _parse_fast(table: str, content: bytes, lines: _Lines) -> list[Any] | None:
    """Rows, if the decoder is sure of each: one object a line, all types right; else None.

    The decoder takes any white space between objects for an end of line, so with as many lines as
    objects there may still be two on one line and none on the next: each line must begin and end
    with a brace.
    """
    try:
        if not content.isascii():
            content.decode()
        rows = _DECODERS[table].decode_lines(content)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
    text = np.frombuffer(content, np.uint8)
    # Of an empty line the end is the begin, and holds no brace.
    braces = (text[lines.begin] == ord("{")) & (text[lines.end - 1] == ord("}"))
    return rows if len(rows) == len(lines.begin) and bool(braces.all()) else None


def _parse_strictly(table: str, content: bytes) -> tuple[list[Any], list[Fault]]:
    rows: list[Any] = []
    faults: dict[str, Fault] = {}
    n_wrong = 0
    lines = content.split(b"\n")
    if lines[-1] == b"":
        lines.pop()
    for number, line in enumerate(lines, start=1):
        try:
            rows.append(_ROWS[table](*_strict_row(FIELDS[table], line)))
        except _Wrong as wrong:
            text = f"{table}.jsonl line {number}: {wrong.text}"
            faults.setdefault(wrong.code, Fault(wrong.code, text))
            n_wrong += 1
            if n_wrong == _ENOUGH:  # what else is wrong there will not change the verdict
                break
    return rows, list(faults.values())


class _Wrong(Exception):
    def __init__(self, code: str, text: str) -> None:
        super().__init__(text)
        self.code, self.text = code, text


def _strict_row(fields: dict[str, str], line: bytes) -> tuple[Any, ...]:
    row = strict_object(line, _Wrong)
    for name, kind in fields.items():
        value = row.get(name)
        if value is None and kind not in _REQUIRED:
            continue
        if name not in row:
            raise _Wrong("missing_field", f"{name} is missing")
        if isinstance(value, bool) or not isinstance(value, _TYPES[kind]):
            shown = json.dumps(value)[:40]  # noqa: TID251 - lone surrogates too
            raise _Wrong("wrong_type", f"{name} is {shown}, not {_NAMES[kind]}")
        if isinstance(value, str) and not strict.is_unicode(value):
            raise _Wrong("not_utf8", f"{name} holds a lone surrogate")
        if isinstance(value, int) and value not in strict.INT64:
            raise _Wrong("bad_value", f"{name} is an integer outside int64")
        if isinstance(value, float) and not abs(value) <= LARGEST:
            raise _Wrong("bad_value", f"{name} is {value}, beyond 1e300")
    return tuple(row.get(name) for name in fields)


def strict_object(text: bytes, wrong: Callable[[str, str], Exception]) -> dict[str, Any]:
    """Decode one JSON object, NaN and Infinity refused; `wrong(code, text)` makes the exception."""
    try:
        value = strict.loads(text)
    except UnicodeDecodeError as error:
        raise wrong("not_utf8", f"byte {error.start + 1} is not UTF-8") from None
    except ValueError as error:
        raise wrong("not_json", f"not JSON: {error}" if text.strip() else "empty") from None
    if not isinstance(value, dict):
        raise wrong("wrong_type", f"a {type(value).__name__} where an object belongs")
    return value
