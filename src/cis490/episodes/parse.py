"""JSON lines of one member to typed columns, strictly.

A fast decoder reads whole members; what it cannot vouch for is read again line by line, which is
slow, judges strictly, and can say which line is wrong and why.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any, Final

import msgspec
import numpy as np
import polars as pl

from cis490.channels import of_source
from cis490.episodes import strict
from cis490.episodes.faults import Fault
from cis490.episodes.tarball import Limits
from cis490.episodes.telemetry import COLUMNS

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
        for source in ("proc", "qmp", "guest")
    },
    "netflow": {
        **_ROW_TIMES,
        **{"proto": _PROTO, "src": _TEXT, "sport": _INTEGER, "dst": _TEXT, "dport": _INTEGER},
        **dict.fromkeys(("pkts_out", "bytes_out", "pkts_in", "bytes_in"), _NUMBER),
        **{"tcp_flags": _INTEGER, "new": _NUMBER},
    },
    "exec": {**_ROW_TIMES, "event": _TEXT, "pid": _INTEGER, "ppid": _INTEGER, "cmdline": _TEXT},
}


def _decoder(table: str) -> msgspec.json.Decoder[msgspec.Struct]:
    fields: list[Any] = [
        (name, _TYPES[kind]) if kind in _REQUIRED else (name, _TYPES[kind], None)
        for name, kind in FIELDS[table].items()
    ]
    return msgspec.json.Decoder(msgspec.defstruct(f"{table}_row", fields, gc=False))


_DECODERS: Final = {table: _decoder(table) for table in FIELDS}


def parse(table: str, content: bytes, *, limits: Limits) -> tuple[pl.DataFrame | None, list[Fault]]:
    """Parse the member `<table>.jsonl`.

    Args:
        table: a key of `FIELDS`.
        content: the member.
        limits: the longest line and the most lines allowed.

    Returns:
        The rows as `telemetry.COLUMNS[table]` and no faults; or None and, of each kind of fault,
        the first one with its line.
    """
    n_lines = content.count(b"\n") + (not content.endswith(b"\n") and bool(content))
    if n_lines > limits.rows:
        text = f"{table}.jsonl: {n_lines} lines, limits.rows is {limits.rows}"
        return None, [Fault("over_limit", text)]
    limit = limits.line_bytes
    if len(content) > limit and (fault := _long_line(table, content, limit)):
        return None, [fault]
    rows = _parse_fast(table, content, n_lines)
    if rows is not None and (frame := _frame(table, rows)) is not None:
        return frame, []
    rows, faults = _parse_strictly(table, content)
    if faults:
        return None, faults
    frame = _frame(table, rows)
    assert frame is not None, "strict parsing lets through only what the columns can hold"
    return frame, []


def _long_line(table: str, content: bytes, limit: int) -> Fault | None:
    for number, line in enumerate(content.split(b"\n"), start=1):
        if len(line) > limit:
            text = f"{table}.jsonl line {number}: {len(line)} bytes, limits.line_bytes is {limit}"
            return Fault("over_limit", text)
    return None


def _parse_fast(table: str, content: bytes, n_lines: int) -> Sequence[Sequence[Any]] | None:
    """Rows, if the decoder is sure of each: one object a line, all types right; else None."""
    try:
        content.decode()
        rows = _DECODERS[table].decode_lines(content)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
    if len(rows) != n_lines or not _one_object_a_line(content):
        return None
    return [msgspec.structs.astuple(row) for row in rows]


def _one_object_a_line(content: bytes) -> bool:
    """Whether each line begins and ends with a brace, and is no piece of a longer object.

    The decoder takes any white space between objects for an end of line, so with as many lines as
    objects there may still be two on one line and none on the next.
    """
    if not content:
        return True
    text = np.frombuffer(content, np.uint8)
    ends = np.flatnonzero(text == ord("\n"))
    begins = np.append(0, ends + 1)
    if content.endswith(b"\n"):
        begins = begins[:-1]
    else:
        ends = np.append(ends, len(text))
    return bool((text[begins] == ord("{")).all() and (text[ends - 1] == ord("}")).all())


def _parse_strictly(table: str, content: bytes) -> tuple[list[tuple[Any, ...]], list[Fault]]:
    rows: list[tuple[Any, ...]] = []
    faults: dict[str, Fault] = {}
    n_wrong = 0
    lines = content.split(b"\n")
    if lines[-1] == b"":
        lines.pop()
    for number, line in enumerate(lines, start=1):
        try:
            rows.append(_strict_row(FIELDS[table], line))
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
            shown = json.dumps(value)[:40]
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


def _frame(table: str, rows: Sequence[Sequence[Any]]) -> pl.DataFrame | None:
    """Columns of rows in the order of `FIELDS`; None if a value does not fit its column."""
    names = list(FIELDS[table])
    columns = list(zip(*rows, strict=True)) if rows else [()] * len(names)
    series = []
    try:
        # Not kept, but it is a time like the other.
        if (mono := columns[names.index("t_mono_ns")]) and not _all_int64(mono):
            return None
        for name, dtype in COLUMNS[table].items():
            values = columns[names.index(name)]
            if FIELDS[table][name] == _PROTO:
                if not _all_int64([value for value in values if isinstance(value, int)]):
                    return None
                values = tuple(None if value is None else str(value) for value in values)
            series.append(_series(name, values, dtype, number=FIELDS[table][name] == _NUMBER))
    except (TypeError, OverflowError, ValueError, pl.exceptions.PolarsError):
        return None
    return pl.DataFrame(series)


def _all_int64(values: Sequence[int]) -> bool:
    return not values or (min(values) in strict.INT64 and max(values) in strict.INT64)


def _series(name: str, values: Sequence[Any], dtype: pl.DataType, *, number: bool) -> pl.Series:
    try:
        return pl.Series(name, values, dtype=dtype, strict=True)
    except (TypeError, OverflowError):
        if not number:
            raise
    return pl.Series(name, [None if v is None else _as_float(v) for v in values], pl.Float64())


def _as_float(value: int | float) -> float:
    if isinstance(value, int) and value not in strict.INT64:
        raise OverflowError
    if not abs(value) <= LARGEST:
        raise OverflowError
    return float(value)
