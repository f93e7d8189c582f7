"""Functions compiled from our C, where the installation found a compiler (hatch_build.py).

Each has a twin in Python that does the same, more slowly, and is all there is without a compiler.
"""

from __future__ import annotations

import ctypes
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any


def load(
    source: Path,
    function: str,
    argtypes: Sequence[Any],
    restype: Any = None,
    *,
    library: Path | None = None,
) -> Any:
    """A function of a compiled C file, through ctypes.

    Args:
        source: the C file.
        function: its name there.
        argtypes, restype: ctypes of what it takes and returns (None: nothing).
        library: what was compiled from it; None: beside it, with the suffix .so.

    Returns:
        The function; None if nothing was compiled, or something else than this very source.
    """
    try:
        loaded = ctypes.CDLL(str(library or source.with_suffix(".so")))
        loaded.cis490_source.restype = ctypes.c_char_p
        if loaded.cis490_source().decode() != hashlib.sha256(source.read_bytes()).hexdigest():
            return None
        found = getattr(loaded, function)
    except (OSError, AttributeError):
        return None
    found.argtypes, found.restype = list(argtypes), restype
    return found
