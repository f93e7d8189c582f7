"""The archive that the kernel unpacks, read back by an independent reader."""

import stat

from cis490.lab import cpio


def read(content):
    """(name, mode, size, device) and bytes of each entry, the trailer left out."""
    found, at = {}, 0
    while True:
        assert content[at : at + 6] == b"070701"
        fields = [int(content[at + 6 + 8 * i : at + 14 + 8 * i], 16) for i in range(13)]
        name = content[at + 110 : at + 110 + fields[11] - 1].decode()
        at += (110 + fields[11] + 3) // 4 * 4
        body = content[at : at + fields[6]]
        at += (fields[6] + 3) // 4 * 4
        if name == "TRAILER!!!":
            assert set(content[at:]) <= {0}
            return found
        assert fields[2] == fields[3] == fields[5] == 0, "root's, and of no time"
        found[name] = fields[1], body, (fields[9], fields[10]), fields[0]


ENTRIES = [
    cpio.file("init", b"#!/bin/sh\n", executable=True),
    cpio.folder("dev"),
    cpio.character_device("dev/console", 5, 1),
    cpio.file("odd", b"12345"),
    cpio.file("empty", b""),
]


def test_what_was_put_in_is_there():
    found = read(cpio.archive(ENTRIES))
    assert found["init"][:2] == (stat.S_IFREG | 0o755, b"#!/bin/sh\n")
    assert found["odd"][:2] == (stat.S_IFREG | 0o644, b"12345")
    assert found["dev"][0] == stat.S_IFDIR | 0o755
    assert found["dev/console"][0] == stat.S_IFCHR | 0o600
    assert found["dev/console"][2] == (5, 1)
    assert found["empty"][1] == b""


def test_each_entry_is_a_file_of_its_own():
    """Two entries of one inode number would be taken for one file with two names."""
    numbers = [entry[3] for entry in read(cpio.archive(ENTRIES)).values()]
    assert len(set(numbers)) == len(ENTRIES)


def test_a_folder_comes_before_what_is_in_it_whatever_the_order():
    backwards = cpio.archive(reversed(ENTRIES))
    names = list(read(backwards))
    assert names.index("dev") < names.index("dev/console")
    assert backwards == cpio.archive(ENTRIES)
