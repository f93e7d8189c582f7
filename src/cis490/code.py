"""Code as an input: a hash that an edit changes and a comment does not.

Snakemake does not see an edit in the library. Each rule names the files that decide what it makes,
and their hash is one of its params, so that a bug fix reruns exactly what it touches.
"""

from __future__ import annotations

import hashlib
import re
import sys
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from types import CodeType
from typing import Any, Final

from cis490 import files
from cis490.files import StrPath

# Below src/cis490: what decides what a model learns, and what it says.
LEARNING: Final = (
    "channels.py",
    "compiled.py",
    "hardware.py",
    "manifest.py",
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
            digest.update(f"{file.name}\n{_bare_hash(file.read_bytes(), file.suffix)}\n".encode())
    return digest.hexdigest()[:16]


def _files(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path]
    return sorted(file for file in path.rglob("*") if file.suffix in (".py", ".c"))


# What files mean, by what they hold: as an earlier process found it, and what this one asked for.
_recalled: dict[str, str] = {}
_asked: dict[str, str] = {}
_THIS: Final = Path(__file__).read_bytes()  # another way to look at code finds something else


def recall(path: StrPath) -> None:
    """Take over what an earlier process found of files (`keep`), so as not to compile them again.

    Nothing depends on it: what is not there, or damaged, is found anew.
    """
    with suppress(OSError, ValueError):
        found = files.read_json(path)
        if isinstance(found, dict) and all(isinstance(value, str) for value in found.values()):
            _recalled.update(found)


def keep(path: StrPath) -> None:
    """Write what was found of the files that were asked for, if some of it is new and it can be."""
    if not _asked.keys() <= _recalled.keys():
        with suppress(OSError):
            files.write_json(path, _asked)


def _bare_hash(source: bytes, suffix: str) -> str:
    """Hash of what a file means, found once for each content that it had: rules share files."""
    of = f"{sys.version_info[:2]} {suffix} ".encode()
    key = hashlib.sha256(_THIS + of + source).hexdigest()
    if key not in _asked:
        found = _recalled.get(key)
        _asked[key] = found or hashlib.sha256(_bare(source, suffix).encode()).hexdigest()
    return _asked[key]


def _bare(source: bytes, suffix: str) -> str:
    if suffix == ".c":
        return " ".join(re.sub(r"/\*.*?\*/", " ", source.decode(), flags=re.DOTALL).split())
    # What Python makes of it, which takes a third of the time that its syntax tree does.
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
