"""Write an initial file system for Linux: a cpio archive of the kind "newc"."""

from __future__ import annotations

import stat
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

_MAGIC: Final = "070701"
_TRAILER: Final = "TRAILER!!!"
_BLOCK: Final = 512


@dataclass(frozen=True)
class Entry:
    """One thing in the archive; all of them are root's, and of 1970.

    Attributes:
        name: its path, without a leading slash.
        mode: kind and permissions, as in `os.stat_result.st_mode`.
        content: a file's bytes, a link's target, nothing for a folder.
        device: major and minor number of a device.
    """

    name: str
    mode: int
    content: bytes = b""
    device: tuple[int, int] = (0, 0)


def folder(name: str) -> Entry:
    """A folder that anyone may read."""
    return Entry(name, stat.S_IFDIR | 0o755)


def file(name: str, content: bytes, *, executable: bool = False) -> Entry:
    """A file that anyone may read."""
    return Entry(name, stat.S_IFREG | (0o755 if executable else 0o644), content)


def character_device(name: str, major: int, minor: int) -> Entry:
    """A character device of root's alone."""
    return Entry(name, stat.S_IFCHR | 0o600, device=(major, minor))


def archive(entries: Iterable[Entry]) -> bytes:
    """The archive of `entries`: the same bytes for the same entries, whatever their order.

    A folder must be among them before anything in it, or the kernel drops what is in it; sorted by
    name they are.
    """
    parts = [
        _record(number, entry)
        for number, entry in enumerate(sorted(entries, key=lambda entry: entry.name), start=1)
    ]
    whole = b"".join([*parts, _record(0, Entry(_TRAILER, 0))])
    return whole + b"\0" * (-len(whole) % _BLOCK)


def _record(inode: int, entry: Entry) -> bytes:
    name = entry.name.encode() + b"\0"
    links = 2 if stat.S_ISDIR(entry.mode) else 1
    fields = (
        *(inode, entry.mode, 0, 0, links, 0, len(entry.content)),  # user, group and time are 0
        *(0, 0, *entry.device, len(name), 0),
    )
    head = _MAGIC.encode() + b"".join(b"%08X" % number for number in fields) + name
    return _padded(head) + _padded(entry.content)


def _padded(content: bytes) -> bytes:
    return content + b"\0" * (-len(content) % 4)
