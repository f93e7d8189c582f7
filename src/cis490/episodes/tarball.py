"""One episode's file, unpacked into memory within limits."""

from __future__ import annotations

import hashlib
import io
import os
import stat
import tarfile
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import zstandard

from cis490.episodes.faults import Fault, Undecodable
from cis490.files import StrPath

_BLOCK = 512
_END = bytes(_BLOCK)
_BITE = 1024
# zstd's own default limit: a frame that asks for a larger window would cost gigabytes to unpack.
_MAX_WINDOW_BYTES = 1 << 27


@dataclass(frozen=True)
class Limits:
    """How large one episode may be (settings under `limits`)."""

    unpacked_bytes: int = 64 << 20
    line_bytes: int = 1 << 20
    members: int = 64
    duration_s: float = 3600.0
    rows: int = 200_000
    name_chars: int = 1024

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Limits:
        """Build from a resolved config."""
        return cls(**config["limits"])


@dataclass(frozen=True)
class Tarball:
    """What the file of an episode holds.

    Attributes:
        members: content by name, empty if it cannot be decoded; of one that is there twice, the
            first. Bytes of a name that are not UTF-8 are written as \\xff.
        twice, irregular: names of members that are there twice, or are no regular files.
        undecodable: why it cannot be decoded, None if it can.
        sha256: of the file as it lies on disk.
        size_bytes: likewise.
    """

    members: dict[str, bytes]
    sha256: str
    size_bytes: int
    twice: frozenset[str] = frozenset()
    irregular: frozenset[str] = frozenset()
    undecodable: Fault | None = None


def find(store: StrPath, path: str) -> Path:
    """The file of a record, links resolved.

    Raises:
        Undecodable: it leaves the store, is missing, or is not a regular file.
    """
    try:
        root = os.path.realpath(store)
        found = os.path.realpath(os.path.join(root, path))  # noqa: PTH118  a third of the time
        if not found.startswith(os.path.join(root, "")):  # noqa: PTH118
            raise Undecodable("bad_index_record", f"path {path!r} leads out of the store")
        mode = os.stat(found).st_mode  # noqa: PTH116
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise Undecodable("file_missing", f"{path}: {reason}") from None
    if not stat.S_ISREG(mode):  # opening a pipe would wait for ever
        raise Undecodable("file_missing", f"{path}: not a regular file")
    return Path(found)


def read(file: Path, limits: Limits) -> Tarball:
    """Unpack `file`; if it cannot be decoded it has no members and a fault that says why.

    Raises:
        Undecodable: the file cannot even be read, or is too large to be.
    """
    try:
        size = file.stat().st_size
        if size > limits.unpacked_bytes:
            text = f"{size} bytes packed, limits.unpacked_bytes is {limits.unpacked_bytes}"
            raise Undecodable("over_limit", text)
        packed = file.read_bytes()
    except OSError as error:
        raise Undecodable("file_missing", f"{file.name}: {error.strerror}") from None
    sha256, size = hashlib.sha256(packed).hexdigest(), len(packed)
    try:
        found = _members(_unzip(packed, limits.unpacked_bytes), limits.members)
    except Undecodable as undecodable:
        return Tarball({}, sha256, size, undecodable=undecodable.fault)
    return Tarball(found[0], sha256, size, frozenset(found[1]), frozenset(found[2]))


def _unzip(packed: bytes, limit: int) -> bytes:
    if not packed.startswith(zstandard.FRAME_HEADER):
        what = "empty" if not packed else f"begins with {packed[:4].hex()}"
        raise Undecodable("not_zstd", f"not a zstd frame: {what}")
    whole = zstandard.ZstdDecompressor(max_window_size=_MAX_WINDOW_BYTES)
    with suppress(zstandard.ZstdError):
        size = zstandard.get_frame_parameters(packed).content_size
        if size <= limit:  # not so for a frame that does not say its size
            return whole.decompress(packed, allow_extra_data=False)
    decompressor = whole.decompressobj()
    pieces, total, stop = [], 0, 0
    try:
        while not decompressor.eof and stop < len(packed):
            # Four bytes can unfold to 128 KiB: small bites keep the memory near the limit.
            start, stop = stop, stop + _BITE
            pieces.append(decompressor.decompress(packed[start:stop]))
            total += len(pieces[-1])
            if total > limit:
                raise Undecodable("over_limit", f"more than {limit} bytes unpacked")
    except zstandard.ZstdError as error:
        raise Undecodable("not_zstd", f"damaged zstd frame: {error}") from None
    if not decompressor.eof:
        raise Undecodable("cut_short", f"the zstd frame is unfinished after {len(packed)} bytes")
    if decompressor.unused_data or stop < len(packed):
        raise Undecodable("not_zstd", "there are bytes after the zstd frame")
    return b"".join(pieces)


def _plain_members(tar: bytes, limit: int) -> dict[str, bytes] | None:
    """The members of a tar of regular files with short names; None if anything is unusual.

    That is how recorders write, and tarfile takes ten times as long to find it out.
    """
    members: dict[str, bytes] = {}
    offset = 0
    while len(header := tar[offset : offset + _BLOCK]) == _BLOCK:
        if header == _END:
            return members
        name, size = header[:100].partition(b"\0")[0], header[124:136].rstrip(b"\0 ")
        plain = header[257:262] == b"ustar" and header[156] in b"0\0" and header[345] == 0
        if not (plain and name.isascii() and size.isdigit()):
            return None
        try:
            total = sum(header) - sum(header[148:156]) + 8 * 32
            if int(header[148:156].rstrip(b"\0 "), 8) != total:
                return None
            start = offset + _BLOCK
            stop = start + int(size, 8)
        except ValueError:
            return None
        if stop > len(tar) or len(members) == limit or name.decode() in members:
            return None
        members[name.decode()] = tar[start:stop]
        offset = start - (start - stop) // _BLOCK * _BLOCK
    return None


def _members(tar: bytes, limit: int) -> tuple[dict[str, bytes], set[str], set[str]]:
    """Members by name; the names that are there twice, and of those that are no regular files."""
    if (plain := _plain_members(tar, limit)) is not None:
        return plain, set(), set()
    members: dict[str, bytes] = {}
    twice: set[str] = set()
    irregular: set[str] = set()
    try:
        with tarfile.open(fileobj=io.BytesIO(tar), mode="r:") as archive:
            for i, info in enumerate(archive):
                if i >= limit:
                    raise Undecodable("over_limit", f"more than {limit} members")
                raw = info.name.encode("utf-8", "surrogateescape")
                name = raw.decode("utf-8", "backslashreplace")
                if name in members:
                    twice.add(name)
                    continue
                members[name] = b""
                if not info.isreg() or info.issparse():
                    irregular.add(name)
                    continue
                if info.size < 0:
                    raise Undecodable("not_tar", f"{name} claims {info.size} bytes")
                content = tar[info.offset_data : info.offset_data + info.size]
                if len(content) != info.size:
                    raise Undecodable("cut_short", f"{name} ends before its {info.size} bytes")
                members[name] = content
            end = tar[archive.offset : archive.offset + _BLOCK]
    except (tarfile.TarError, ValueError, EOFError, OverflowError) as error:
        code = "cut_short" if "unexpected end" in str(error) else "not_tar"
        raise Undecodable(code, f"not a whole tar: {error}") from None
    # Without the closing zero block the tar was cut between two members, and a source that is
    # merely cut off must not pass for one that the host does not have.
    if len(end) < _BLOCK or any(end):
        raise Undecodable("cut_short", "the tar has no end: members may be missing")
    return members, twice, irregular
