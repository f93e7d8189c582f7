"""Code as an input: a hash that an edit changes and a comment does not.

Snakemake does not see an edit in the library. Each rule names the files that decide what it makes,
and their hash is one of its params, so that a bug fix reruns exactly what it touches.
"""

from __future__ import annotations

import ast
import hashlib
import re
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Final

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


def code_hash(paths: Iterable[Path]) -> str:
    """Hash of the code in Python and C files, and in all below those that are folders.

    Comments, layout and docstrings do not count.

    Raises:
        FileNotFoundError: one of `paths` does not exist.
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
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            first = node.body[0] if node.body else None
            if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant):
                node.body = node.body[1:]
    return ast.dump(tree)
