"""The store's index: what was received, what was torn, what nobody named; and its receiver."""

from __future__ import annotations

import fcntl
import hashlib
import os
import posixpath
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, NamedTuple

from cis490 import files
from cis490.episodes import SUFFIX, strict
from cis490.errors import StoreError
from cis490.files import StrPath

INDEX: Final = "index.jsonl"

_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_FIELDS = frozenset(
    "schema_version episode_id host_id path sha256 size_bytes received_wall_ns".split()
)
# A path in normal form that stays in the store: nearly all are, and need no closer look.
_PLAIN_PATH = re.compile(r"(?:[A-Za-z0-9_-][A-Za-z0-9._-]*/)*[A-Za-z0-9_-][A-Za-z0-9._-]*")
# Records are flat, so a whole one in a torn line has no brace between its own two.
_FLAT_OBJECT = re.compile(rb"\{[^{}]*\}")


class Record(NamedTuple):
    """One complete record of the index.

    Attributes:
        line: line number in index.jsonl, from 1.
        content: the JSON object as it stands there.
        problem: why it cannot be followed, None if it can.
    """

    line: int
    content: dict[str, Any]
    problem: str | None = None

    @property
    def complete(self) -> bool:
        """Whether all fields of a record are there; a piece of one never replaces a whole one."""
        return self.content.keys() >= _FIELDS

    @property
    def place(self) -> str:
        """Its path in normal form, "." if it has none."""
        path = self.text("path") or "."
        return path if _PLAIN_PATH.fullmatch(path) else posixpath.normpath(path)

    def text(self, key: str) -> str | None:
        """The value of `key` if it is text that UTF-8 can hold, else None."""
        value = self.content.get(key)
        return value if type(value) is str and strict.is_unicode(value) else None

    def integer(self, key: str) -> int | None:
        """The value of `key` if it is an integer within int64, else None."""
        value = self.content.get(key)
        return value if type(value) is int and value in strict.INT64 else None


@dataclass(frozen=True)
class Torn:
    """A lost piece of a line (`n_recovered` 0, `text` its beginning), or a line with records."""

    line: int
    byte_offset: int
    n_bytes: int
    n_recovered: int
    text: str


@dataclass
class Index:
    """What index.jsonl says.

    Attributes:
        records: one an episode_id, in order of first appearance; of several the last one counts.
        superseded: (line, episode_id, line of the record that counts).
        first: when the contents of episodes that came again were received first, by id and sha256.
        paths: of all records, superseded ones too.
        torn: lost pieces of lines, and lines of which records were recovered.
    """

    records: list[Record] = field(default_factory=list)
    superseded: list[tuple[int, str, int]] = field(default_factory=list)
    first: dict[tuple[str | None, str | None], int] = field(default_factory=dict)
    torn: list[Torn] = field(default_factory=list)
    paths: set[str] = field(default_factory=set)

    def received_wall_ns(self, record: Record) -> int | None:
        """When the content of a record was received first; None if the index does not tell."""
        if self.first:
            key = record.text("episode_id"), record.text("sha256")
            if key in self.first:
                return self.first[key]
        return record.integer("received_wall_ns")


def read_index(store: StrPath) -> Index:
    """Read index.jsonl; whole records in torn lines are recovered, lost bytes are reported.

    Raises:
        StoreError: there is no store, no index, or no record in it.
    """
    path = Path(store) / INDEX
    if not Path(store).is_dir():
        raise StoreError(f"store {store}: no such folder; set `store` to a folder of episodes")
    try:
        content = path.read_bytes()
    except OSError as error:
        raise StoreError(
            f"store {store}: cannot read index.jsonl ({error.strerror}); "
            "a store has one line there for each received episode"
        ) from None
    index = Index()
    slots: dict[Any, Record] = {}
    losers: list[tuple[Record, Any]] = []
    for record in _records(content, index.torn):
        # A dict keeps the place of an id's first appearance, whatever arrives for it later.
        key = record.text("episode_id") or len(slots)
        earlier = slots.get(key)
        if earlier is None or record.complete or not earlier.complete:
            slots[key] = record
        if earlier is not None:
            losers.append((record if slots[key] is earlier else earlier, key))
            # The same content sent again is no new arrival.
            for each in (earlier, record):
                received = index.received_wall_ns(each)
                if received is not None:
                    content_of = each.text("episode_id"), each.text("sha256")
                    index.first[content_of] = min(received, index.first.get(content_of, received))
        index.paths.add(record.place)
    if not slots:
        raise StoreError(f"store {store}: empty: index.jsonl holds no record of an episode")
    index.records = list(slots.values())
    index.superseded = [(loser.line, str(key), slots[key].line) for loser, key in losers]
    return index


def append(
    store: StrPath,
    host_id: str,
    episode_id: str,
    content: bytes,
    *,
    received_wall_ns: int | None = None,
) -> dict[str, Any]:
    """Receive an episode: its file first, then its line of the index, both synced to disk.

    Writers may be many: they take turns by a kernel lock on the index, which ends with its holder.
    One that dies in between leaves a file that no record names, never a record without its file. A
    line that somebody else left torn is closed first, so that it costs no other.

    Args:
        store: folder of episodes, made if need be.
        host_id, episode_id: as in the episode's meta.json. An episode that is there already is
            superseded.
        content: the episode's file.
        received_wall_ns: Unix time in ns; None: now.

    Returns:
        The record, as it stands in the index.

    Raises:
        StoreError: an id is not safe to be a file's name, or the disk refuses.
    """
    path = f"{host_id}/{episode_id}{SUFFIX}"
    record = {
        "schema_version": 1,
        "episode_id": episode_id,
        "host_id": host_id,
        "path": path,
        "sha256": hashlib.sha256(content).hexdigest(),
        "size_bytes": len(content),
        "received_wall_ns": time.time_ns() if received_wall_ns is None else received_wall_ns,
    }
    if (problem := _problem(record)) is not None:
        raise StoreError(f"store {store}: {problem}: nothing was stored")
    if host_id == INDEX:
        raise StoreError(f"store {store}: host_id {host_id!r} is the index's own name")
    try:
        with _locked_index(Path(store)) as index:
            folder = Path(store) / host_id
            if not folder.is_dir():
                folder.mkdir()
                files.sync_folder(store)
            # Under the lock: of two writers of one episode the last line names what is there.
            _put(Path(store) / path, content)
            _append_line(index, files.to_compact_json(record).encode())
    except OSError as error:
        raise StoreError(
            f"store {store}: {path} cannot be stored ({error.strerror or error}): make room or "
            "mend the folder, then append it again"
        ) from None
    return record


@contextmanager
def _locked_index(store: Path) -> Iterator[int]:
    """The open index of a store, made if need be, which no other writer has meanwhile."""
    store.mkdir(parents=True, exist_ok=True)
    new = not (store / INDEX).exists()
    index = os.open(store / INDEX, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        fcntl.flock(index, fcntl.LOCK_EX)
        if new:
            files.sync_folder(store)
        yield index
    finally:
        os.close(index)


def _put(path: Path, content: bytes) -> None:
    """Write a file whole or not at all, for the one who holds the lock.

    `files.replacing` looks through the folder for what killed writers left, which takes 0.1 s
    beside 30,000 episodes. Here one name is enough: whoever comes next writes over it.
    """
    partial = path.with_name(".incoming.partial")
    try:
        with partial.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
    files.sync_folder(path.parent)


def _append_line(index: int, line: bytes) -> None:
    """Append a line in one write and sync it; a line before it without an end is ended."""
    size = os.fstat(index).st_size
    torn = size and os.pread(index, 1, size - 1) != b"\n"
    whole = (b"\n" if torn else b"") + line + b"\n"
    if (written := os.write(index, whole)) != len(whole):
        raise OSError(f"{written} of {len(whole)} bytes of the index's line written")
    os.fsync(index)


def _records(content: bytes, torn: list[Torn]) -> Iterator[Record]:
    offset = 0
    for number, line in enumerate(content.split(b"\n"), start=1):
        if not line.strip():
            offset += len(line) + 1
            continue
        try:
            value = strict.loads(line)
        except ValueError:
            value = None
        if isinstance(value, dict):
            yield Record(number, value, _problem(value))
        else:
            yield from _recover(number, line, offset, torn)
        offset += len(line) + 1


def _recover(number: int, line: bytes, offset: int, torn: list[Torn]) -> Iterator[Record]:
    """Whole records in a torn line; what lies between them is reported as lost."""
    n_recovered = position = 0

    def lose(start: int, end: int) -> None:
        if piece := line[start:end].strip():
            text = piece[:80].decode("utf-8", "replace")
            torn.append(Torn(number, offset + start, end - start, 0, text))

    for match in _FLAT_OBJECT.finditer(line):
        try:
            value = strict.loads(match[0])
        except ValueError:
            continue
        if value.keys() >= _FIELDS:
            lose(position, match.start())
            position = match.end()
            n_recovered += 1
            yield Record(number, value, _problem(value))
    lose(position, len(line))
    if n_recovered:
        torn.append(Torn(number, offset, len(line), n_recovered, ""))


def _problem(content: dict[str, Any]) -> str | None:
    """Why a record cannot be followed: without a safe id, host and path no file can be opened."""
    for key in ("episode_id", "host_id", "path"):
        value = content.get(key)
        if not isinstance(value, str):
            return f"{key} is {'missing' if value is None else 'not text'}"
        if key != "path" and not _ID.fullmatch(value):
            return f"{key} {value[:80]!r} does not match [A-Za-z0-9][A-Za-z0-9._-]{{0,63}}"
    path = content["path"]
    if _PLAIN_PATH.fullmatch(path):
        return None
    if (
        not strict.is_unicode(path)
        or "\0" in path
        or path.startswith("/")
        or ".." in path.split("/")
    ):
        return f"path {path[:80]!r} leaves the store"
    return None
