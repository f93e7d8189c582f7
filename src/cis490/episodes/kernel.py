"""The compiled decoder of plain rows; without it the pure one of parse.py does all."""

from __future__ import annotations

import ctypes
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from cis490 import compiled

SOURCE: Final = Path(__file__).with_name("_rows.c")


_POINTER, _INT64 = ctypes.c_void_p, ctypes.c_int64
_plain_rows = compiled.load(
    SOURCE,
    "cis490_plain_rows",
    [
        *(ctypes.c_char_p, _INT64, _POINTER, _POINTER, ctypes.c_int, ctypes.c_uint64),
        *(_INT64, _INT64, _POINTER, _POINTER, _POINTER),
    ],
    _INT64,
)


class Keys:
    """Keys of a row, as the compiled decoder takes them; those of `texts` hold text."""

    def __init__(self, names: Sequence[str], texts: Collection[str] = ()) -> None:
        keys = [name.encode() for name in names]
        self.n = len(keys)
        self.texts = [i for i, name in enumerate(names) if name in texts]
        self.mask = sum(1 << i for i in self.texts)
        self.names = (ctypes.c_char_p * self.n)(*keys)
        self.sizes = (ctypes.c_int64 * self.n)(*map(len, keys))
        # {"key":0,...}: no line of a row is shorter.
        self.least_bytes = sum(len(key) + 5 for key in keys) + 1


def plain_rows(
    content: bytes, keys: Keys, *, most_rows: int, longest_line: int
) -> list[NDArray[np.int64] | bytes] | None:
    """Columns of JSON lines that hold nothing but integers and texts of plain ASCII.

    Args:
        content: lines, each an object with every key once; other keys are ignored.
        keys: what to take.
        most_rows, longest_line: more rows or bytes of a line are not plain.

    Returns:
        Of each key int64 (n_rows,), or the texts, each ended by a zero, which none of them
        holds; None if a line is not plain, or there is no compiled decoder.
    """
    if _plain_rows is None:
        return None
    room = min(len(content) // keys.least_bytes + 1, most_rows)
    values = np.empty((keys.n, room), np.int64)
    joined = np.empty((len(keys.texts), len(content)), np.uint8)
    sizes = np.zeros(len(keys.texts), np.int64)
    n_rows = _plain_rows(
        *(content, len(content), keys.names, keys.sizes, keys.n, keys.mask, longest_line, room),
        *(values.ctypes.data, joined.ctypes.data, sizes.ctypes.data),
    )
    if n_rows < 0:
        return None
    columns: list[NDArray[np.int64] | bytes] = list(values[:, :n_rows])
    for i, texts, size in zip(keys.texts, joined, sizes.tolist(), strict=True):
        columns[i] = texts[:size].tobytes()
    return columns
