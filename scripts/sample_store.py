"""Make the sample store of a recorded one: the same episodes, left as a fleet leaves them.

    python scripts/sample_store.py RECORDED data/sample/store

The last three episodes are spoiled: one file is gone, one cut short, one has another sum than its
record tells. A record comes before its episode was whole and once more after, two records share a
line, and a file lies there that no record names. The same store in gives the same store out.
"""

from __future__ import annotations

import argparse
import hashlib
import shutil
import sys
from pathlib import Path

from cis490.episodes.store import INDEX, read_index
from cis490.errors import StoreError
from cis490.files import to_compact_json

EARLY = 4  # place in the index of the episode that was recorded before it was whole, too
TORN = 70  # and of the one whose line has no end
STRAY = "0123456789abcdef0123.tar.zst"


def spoil(recorded: Path, out: Path) -> None:
    """Copy a store, with a fleet's faults.

    Args:
        recorded: a whole store, whose records are in the order in which they came.
        out: a folder that does not exist yet.

    Raises:
        StoreError: `recorded` has faults already or too few episodes, or `out` exists.
    """
    index = read_index(recorded)
    if index.torn or index.superseded or len(index.records) < TORN + 5:
        raise StoreError(f"{recorded} is no whole store of {TORN + 5} episodes or more")
    if out.exists():
        raise StoreError(f"{out} exists; remove it first")
    records = [record.content for record in index.records]
    for record in records:
        (out / record["path"]).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(recorded / record["path"], out / record["path"])

    gone, cut = (out / record["path"] for record in records[-3:-1])
    gone.unlink()
    packed = cut.read_bytes()
    cut.write_bytes(packed[: len(packed) // 3])
    other = {"sha256": hashlib.sha256(packed).hexdigest()}
    stray = out / records[0]["path"]
    shutil.copyfile(stray, stray.with_name(STRAY))

    whole = [*records[:-1], records[-1] | other]
    lines = [to_compact_json(record) + "\n" for record in whole]
    lines[TORN] = lines[TORN].rstrip("\n")
    piece = b"not yet all of it"
    early = {"size_bytes": len(piece), "sha256": hashlib.sha256(piece).hexdigest()}
    lines.insert(0, to_compact_json(records[EARLY] | early) + "\n")
    (out / INDEX).write_text("".join(lines))


def main() -> None:
    """Do it, or say why not."""
    parser = argparse.ArgumentParser(description="Make the sample store of a recorded one.")
    parser.add_argument("recorded", type=Path)
    parser.add_argument("out", type=Path)
    args = parser.parse_args()
    try:
        spoil(args.recorded, args.out)
    except StoreError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
