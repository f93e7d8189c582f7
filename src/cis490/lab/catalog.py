"""What a guest can run: the samples and the benign jobs, each a file with a few words at its top.

A new one is a file in a folder and nothing else (docs/lab.md).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from cis490.errors import LabError
from cis490.files import StrPath

Kind = Literal["sample", "job"]

_GUEST: Final = Path(__file__).parent / "guest"
_FIRST: Final = (
    *("cpu-saturate", "io-walk", "low-and-slow"),
    *("scan-and-dial", "beacon-burst", "fork-churn"),
)
_HEADER: Final = re.compile(r"# (imitates|twin|needs): (.+)")
_NAME: Final = re.compile(r"[a-z0-9][a-z0-9-]{0,63}")


@dataclass(frozen=True)
class Program:
    """A program of the guest, a harmless load emulator.

    Attributes:
        name: the file's, without its suffix.
        kind: "sample", which has phases, or "job", which is benign.
        profile: a sample's folder; None for a job.
        imitates: the real behaviour whose load shape this is.
        twin: the profile that a job looks like; None for a sample, and for a job that looks like
            none.
        path: the file.
        network: whether it needs hosts that answer.
    """

    name: str
    kind: Kind
    profile: str | None
    imitates: str
    twin: str | None
    path: Path
    network: bool

    @property
    def inside(self) -> str:
        """Its path in the guest, as the command `start` takes it."""
        parts = ("samples", self.profile) if self.profile else ("jobs",)
        return "/".join([*parts, self.path.name])


def profiles() -> tuple[str, ...]:
    """The profiles of which samples ship: the format's own in its order, then others by name."""
    found = {folder.name for folder in (_GUEST / "samples").iterdir() if folder.is_dir()}
    return *(name for name in _FIRST if name in found), *sorted(found.difference(_FIRST))


def samples(folder: StrPath | None = None) -> list[Program]:
    """The samples, sorted by profile and name.

    Args:
        folder: holds `samples/<profile>/<name>.sh`; None: what this package ships.

    Raises:
        LabError: a file's name or header is wrong, or there is no sample.
    """
    place = _place(folder) / "samples"
    found = [_read(path, "sample", path.parent.name) for path in sorted(place.glob("*/*.sh"))]
    return _all_different(found, place)


def jobs(folder: StrPath | None = None) -> list[Program]:
    """The benign jobs, sorted by name.

    Args:
        folder: holds `jobs/<name>.sh`; None: what this package ships.

    Raises:
        LabError: a file's name or header is wrong, or there is no job.
    """
    place = _place(folder) / "jobs"
    return _all_different([_read(path, "job", None) for path in sorted(place.glob("*.sh"))], place)


def _place(folder: StrPath | None) -> Path:
    return _GUEST if folder is None else Path(folder)


def _read(path: Path, kind: Kind, profile: str | None) -> Program:
    for name in filter(None, (path.stem, profile)):
        if not _NAME.fullmatch(name):
            raise LabError(f"{path}: the name {name!r} has more than a-z, 0-9 and -; rename it")
    said: dict[str, str] = {}
    for line in path.read_text().splitlines():
        if not line.startswith("#"):
            break
        if match := _HEADER.fullmatch(line):
            said[match[1]] = match[2].strip()
    needed = ("imitates",) if kind == "sample" else ("imitates", "twin")
    if missing := [key for key in needed if key not in said]:
        raise LabError(f"{path}: no line `# {missing[0]}: …` at its top; write one")
    if said.get("needs", "network") != "network":
        raise LabError(f"{path}: needs {said['needs']!r} is unknown; it may say `# needs: network`")
    twin = said.get("twin") if kind == "job" else None
    return Program(
        path.stem,
        kind,
        profile,
        said["imitates"],
        None if twin == "none" else twin,
        path,
        "needs" in said,
    )


def _all_different(found: list[Program], place: Path) -> list[Program]:
    if not found:
        raise LabError(f"{place}: no program there; install cis490 again")
    paths: dict[str, Path] = {}
    for program in found:
        if program.name in paths:
            raise LabError(f"{program.path} and {paths[program.name]} have one name; rename one")
        paths[program.name] = program.path
    return found
