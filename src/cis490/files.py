"""The one way files are written: whole or not at all, and the same bytes for the same content."""

from __future__ import annotations

import glob
import hashlib
import json
import logging
import math
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec

from cis490.errors import DamagedError, FormatError

if TYPE_CHECKING:
    import polars as pl

logger = logging.getLogger("cis490")

StrPath = str | Path

_SHOWN: Final = 5  # places that a warning names
_NAMES: Final = {math.inf: "Infinity", -math.inf: "-Infinity"}
_NUMBERLESS: Final = frozenset({str, int, bool, type(None)})  # what can never be such a number


@contextmanager
def replacing(path: StrPath) -> Iterator[Path]:
    """Yield a path beside `path` to write to; on success it takes `path`'s place, synced to disk.

    A reader sees the old file or the new one, never a part. What a killed writer left beside it is
    removed by the next one.
    """
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    for stale in target.parent.glob(f".{glob.escape(target.name)}.*.partial"):
        if not _alive(stale.suffixes[-2]):
            stale.unlink(missing_ok=True)
    partial = target.with_name(f".{target.name}.{os.getpid()}.partial")
    try:
        yield partial
        with partial.open("rb") as written:
            os.fsync(written.fileno())
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)
    sync_folder(target.parent)


def sync_folder(folder: StrPath) -> None:
    """Sync to disk which files a folder holds."""
    opened = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)


@contextmanager
def scratch(folder: StrPath) -> Iterator[Path]:
    """Yield an empty folder within `folder`, which is made if need be; it is removed at the end.

    What a killed process left is removed by the next one.
    """
    target = Path(folder)
    target.mkdir(parents=True, exist_ok=True)
    mine = target / f".pieces.{os.getpid()}.scratch"
    for stale in target.glob(".pieces.*.scratch"):
        if stale == mine or not _alive(stale.suffixes[-2]):
            shutil.rmtree(stale, ignore_errors=True)
    mine.mkdir()
    try:
        yield mine
    finally:
        shutil.rmtree(mine, ignore_errors=True)


def write_bytes(path: StrPath, content: bytes) -> None:
    """Write `content` to `path`, whole or not at all."""
    with replacing(path) as partial:
        partial.write_bytes(content)


def write_text(path: StrPath, content: str) -> None:
    """Write `content` to `path` as UTF-8, whole or not at all."""
    write_bytes(path, content.encode())


def write_if_changed(path: StrPath, content: str) -> bool:
    """Write `content` unless the file already says so; return whether it was written.

    Snakemake looks at modification times first, so a plan that rewrote its files on each parse
    would make every checksum be computed anew.
    """
    try:
        if Path(path).read_bytes() == content.encode():
            return False
    except FileNotFoundError:
        pass
    write_text(path, content)
    return True


def to_json(value: Any, *, name: str = "JSON") -> str:
    """Serialise to strict, readable JSON with sorted keys and a final newline.

    Numbers and arrays of numpy and torch become plain ones, paths text, enums their value, and
    dataclasses objects. Dates and times become ISO 8601: a time keeps the offset from UTC that it
    has, "Z" for none, so give it one. A set becomes a sorted list. Integers are written in full,
    though some readers other than Python's round beyond 2**53. What JSON cannot hold, NaN and the
    infinities, becomes null, and a warning in the log names the places.

    Args:
        name: whose places they are: the file's path.

    Raises:
        TypeError: `value` holds something that has no JSON form, or a key that is no text.
    """
    return msgspec.json.format(to_compact_json(value, name=name), indent=1) + "\n"


def to_compact_json(value: Any, *, name: str = "JSON") -> str:
    """As `to_json`, in one line without spaces, for hashes and for lines of a file."""
    text = msgspec.json.encode(value, enc_hook=_plain, order="sorted")
    # A lost number is a null, so most values need no search, which takes longer than the encoding.
    if b"null" in text and _may_lose(value):
        plain = msgspec.to_builtins(value, enc_hook=_plain, order="sorted")
        _report(list(_not_finite(plain)), name)
    return text.decode()


def write_json(path: StrPath, value: Any) -> None:
    """Write `to_json(value)` to `path`, whole or not at all."""
    write_text(path, to_json(value, name=os.fspath(path)))


def read_json(path: StrPath) -> Any:
    """Read one JSON document.

    Raises:
        DamagedError: it is none.
    """
    try:
        return json.loads(Path(path).read_bytes())
    except ValueError as error:  # also of bytes that are no text
        raise DamagedError(
            f"{path} is damaged: it holds no JSON ({error}); delete it and make it anew"
        ) from None


def write_parquet(
    path: StrPath,
    frame: pl.DataFrame | pl.LazyFrame,
    metadata: Mapping[str, str] | None = None,
    group_rows: int | None = None,
) -> None:
    """Write a polars frame as zstd-compressed Parquet, whole or not at all; a lazy one in pieces.

    `metadata` goes to the file's key-value metadata (`polars.read_parquet_metadata`); a row group
    has `group_rows` rows, or polars' number.
    """
    with replacing(path) as partial:
        write = frame.write_parquet if hasattr(frame, "write_parquet") else frame.sink_parquet
        write(partial, compression="zstd", metadata=dict(metadata or {}), row_group_size=group_rows)


def read_parquet(
    path: StrPath, columns: Sequence[str] | None = None, rows: range | None = None
) -> pl.DataFrame:
    """Read a Parquet file that an earlier stage wrote; of it, some columns or neighbouring rows.

    Raises:
        FormatError: it is damaged or lacks a column; with its path and what to do.
    """
    import polars as pl

    try:
        if rows is not None:
            some = pl.scan_parquet(Path(path)).slice(rows.start, len(rows))
            return (some.select(columns) if columns else some).collect()
        return pl.read_parquet(Path(path), columns=list(columns) if columns else None)
    except (pl.exceptions.PolarsError, OSError) as error:
        raise _damaged(path, error) from None


def content_sha256(path: StrPath) -> str:
    """Hash of a Parquet file's rows, which does not change with the version that wrote the file.

    Raises:
        FormatError: as `read_parquet`.
    """
    return hashlib.sha256(read_parquet(path).write_csv().encode()).hexdigest()


def read_parquet_metadata(path: StrPath) -> dict[str, str]:
    """The key-value metadata of a Parquet file.

    Raises:
        FormatError: as `read_parquet`.
    """
    import polars as pl

    try:
        return pl.read_parquet_metadata(Path(path))
    except (pl.exceptions.PolarsError, OSError) as error:
        raise _damaged(path, error) from None


def _damaged(path: StrPath, error: Exception) -> FormatError:
    reason = " ".join(str(error).split())[:200]
    return FormatError(f"{path} cannot be read ({reason}): remove it and run the workflow again")


def _alive(suffix: str) -> bool:
    """Whether the writer of a `.partial` or `.scratch` still runs, from the number in its name."""
    try:
        os.kill(int(suffix.removeprefix(".")), 0)
    except (ValueError, ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        pass
    return True


def _plain(value: Any) -> Any:
    """What JSON has for a value that is not JSON's own."""
    if isinstance(value, Mapping):
        return dict(value)
    if hasattr(value, "tolist"):  # numpy and torch, scalars and arrays, without importing either
        return value.tolist()
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    raise TypeError(f"{type(value).__name__} has no JSON form")


def _report(lost: Sequence[tuple[str, str]], name: str) -> None:
    if lost:
        shown = "; ".join(f"{place}: {number}" for place, number in lost[:_SHOWN])
        more = f" and {len(lost) - _SHOWN:,} more" if len(lost) > _SHOWN else ""
        logger.warning("%s: %s%s written as null", name, shown, more)


def _may_lose(value: Any) -> bool:
    """Whether a number that is not finite is there, or what might turn out to be one."""
    waiting = [value]
    while waiting:
        each = waiting.pop()
        kind = type(each)
        if kind is dict:
            waiting += [inner for inner in each.values() if type(inner) not in _NUMBERLESS]
        elif kind is list or kind is tuple:
            waiting += [inner for inner in each if type(inner) not in _NUMBERLESS]
        elif kind not in _NUMBERLESS and (kind is not float or not math.isfinite(each)):
            return True
    return False


def _not_finite(value: Any, *place: str) -> Iterator[tuple[str, str]]:
    """The place and name (NaN, Infinity, -Infinity) of each number that JSON cannot hold."""
    if isinstance(value, float):
        if not math.isfinite(value):
            yield ".".join(place) or "the value", _NAMES.get(value, "NaN")
    elif isinstance(value, dict):
        for key, inner in value.items():
            yield from _not_finite(inner, *place, key)
    elif isinstance(value, list | tuple):
        for i, inner in enumerate(value):
            yield from _not_finite(inner, *place, str(i))
