"""The compiled decoder of plain rows; without it the pure one of parse.py does all."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from cis490 import compiled

SOURCE: Final = Path(__file__).with_name("_rows.c")


_POINTER, _INT64 = ctypes.c_void_p, ctypes.c_int64
_whole_rows = compiled.load(
    SOURCE,
    "cis490_whole_rows",
    [ctypes.c_char_p, _INT64, _POINTER, _POINTER, ctypes.c_int, _INT64, _INT64, _POINTER],
    _INT64,
)


class Keys:
    """Keys of a row, as the compiled decoder takes them."""

    def __init__(self, names: Sequence[str]) -> None:
        keys = [name.encode() for name in names]
        self.n = len(keys)
        self.names = (ctypes.c_char_p * self.n)(*keys)
        self.sizes = (ctypes.c_int64 * self.n)(*map(len, keys))
        # {"key":0,...}: no line of a row is shorter.
        self.least_bytes = sum(len(key) + 5 for key in keys) + 1


def whole_rows(
    content: bytes, keys: Keys, *, most_rows: int, longest_line: int
) -> NDArray[np.int64] | None:
    """Rows of JSON lines that hold nothing but integers.

    Args:
        content: lines, each an object with every key once; other keys are ignored.
        keys: what to take.
        most_rows, longest_line: more rows or bytes of a line are not plain.

    Returns:
        int64 (n_keys, n_rows); None if a line is not plain, or there is no compiled decoder.
    """
    if _whole_rows is None:
        return None
    room = min(len(content) // keys.least_bytes + 1, most_rows)
    columns = np.empty((keys.n, room), np.int64)
    n_rows = _whole_rows(
        *(content, len(content), keys.names, keys.sizes, keys.n),
        *(longest_line, room, columns.ctypes.data),
    )
    return None if n_rows < 0 else columns[:, :n_rows]
