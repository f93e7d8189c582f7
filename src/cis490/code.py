"""Code as an input: a hash that an edit changes and a comment does not.

Snakemake does not see an edit in the library. Each rule names the files that decide what it makes,
and their hash is one of its params, so that a bug fix reruns exactly what it touches.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from types import CodeType
from typing import Any, Final

# Below src/cis490: what decides what a model learns, and what it says.
LEARNING: Final = (
    "channels.py",
    "compiled.py",
    "hardware.py",
    "schema.py",
    "seeds.py",
    "models",
    "training",
    "windows",
)

_MEANS: Final = (
    *("co_name", "co_code", "co_exceptiontable", "co_flags", "co_names", "co_varnames"),
    *("co_freevars", "co_cellvars", "co_argcount", "co_posonlyargcount", "co_kwonlyargcount"),
)


def code_hash(paths: Iterable[Path]) -> str:
    """Hash of the code in Python and C files, and in all below those that are folders.

    Comments, layout, docstrings and assertions do not count. Another minor version of Python gives
    another hash.

    Raises:
        FileNotFoundError: one of `paths` does not exist.
        SyntaxError: one is no Python.
    """
    digest = hashlib.sha256()
    for path in sorted(set(paths)):
        if not path.exists():
            raise FileNotFoundError(f"{path} is named as code of a rule but does not exist")
        for file in _files(path):
            digest.update(f"{file.name}\n{_bare(file.read_bytes(), file.suffix)}\n".encode())
    return digest.hexdigest()[:16]


def _files(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path]
    return sorted(file for file in path.rglob("*") if file.suffix in (".py", ".c"))


@cache  # rules share files
def _bare(source: bytes, suffix: str) -> str:
    if suffix == ".c":
        return " ".join(re.sub(r"/\*.*?\*/", " ", source.decode(), flags=re.DOTALL).split())
    # What Python makes of it, which takes a third of the time that its syntax tree does: each start
    # of Snakemake, and each job on a cluster, waits for this.
    return repr(_parts(compile(source, "", "exec", dont_inherit=True, optimize=2)))


def _parts(value: Any) -> Any:
    """A constant of compiled code, without names of files, places of lines and orders of sets."""
    if isinstance(value, CodeType):
        return [getattr(value, name) for name in _MEANS] + list(map(_parts, value.co_consts))
    if isinstance(value, tuple):
        return tuple(map(_parts, value))
    if isinstance(value, frozenset):
        return "set", sorted(map(repr, map(_parts, value)))
    return value
