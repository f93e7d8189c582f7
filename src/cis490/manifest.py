"""Which files of features and tensors the jobs of a split read: one small file for all of them.

Each model reads the windows of every batch. Were each batch an input of each such job, Snakemake
would plan little else: 13,000 of 18,300 inputs in a run on 76,660 episodes. A manifest names the
files with their size and time, as the plan of a batch does its episodes, so that what depends on it
is made again when one of them was, came or went.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cis490 import files
from cis490.errors import FormatError
from cis490.files import StrPath


@dataclass(frozen=True)
class Manifest:
    """The windows of some batches.

    Attributes:
        features, tensors: paths, as a job finds them; a file of each kind for each batch.
        n_bytes: by kind, "features" and "tensors".
    """

    features: list[Path]
    tensors: list[Path]
    n_bytes: dict[str, int]

    def here(self) -> Manifest:
        """Itself, for a job that is about to read the files.

        Raises:
            FormatError: one is not there; with its path and what to do.
        """
        for path in (*self.features, *self.tensors):
            if not path.exists():
                raise FormatError(f"{path} is gone: run `snakemake data`, then the same again")
        return self


def write_manifest(features: Sequence[StrPath], tensors: Sequence[StrPath], out: StrPath) -> None:
    """Write which files there are, with the size and time of each.

    Args:
        features, tensors: a file of each kind for each batch.
        out: JSON to write: under "features" and "tensors" [path, bytes, mtime in ns] of each.

    Raises:
        FileNotFoundError: one is not there.
    """
    files.write_json(out, {"features": _looked_at(features), "tensors": _looked_at(tensors)})


def read_manifest(path: StrPath) -> Manifest:
    """Read what `write_manifest` wrote.

    Raises:
        FileNotFoundError: it is not there.
        FormatError: it is no manifest; with its path and what to do.
    """
    try:
        content = files.read_json(path)
        paths, n_bytes = {}, {}
        for kind in ("features", "tensors"):
            paths[kind] = [Path(name) for name, _, _ in content[kind]]
            n_bytes[kind] = sum(int(size) for _, size, _ in content[kind])
        return Manifest(**paths, n_bytes=n_bytes)
    except (ValueError, TypeError, KeyError) as error:
        reason = " ".join(str(error).split())[:200]
        raise FormatError(
            f"{path} is no manifest of windows ({reason}): remove it and run the workflow again"
        ) from None


def _looked_at(paths: Sequence[StrPath]) -> list[list[Any]]:
    found = []
    for path in paths:
        status = Path(path).stat()
        found.append([str(path), status.st_size, status.st_mtime_ns])
    return found
