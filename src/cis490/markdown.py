"""Tables and lists that read well in a terminal and as rendered Markdown."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Final

# Within the backticks of code it is text already.
_TAG: Final = re.compile(r"<(?=[a-zA-Z/!?][^`]*(?:`[^`]*`[^`]*)*$)")


def table(header: Sequence[str], rows: Sequence[Sequence[Any]], align: str = "l") -> list[str]:
    """Lines of a Markdown table with aligned columns.

    `align` has an l (left) or r (right) for each column; those it does not name are right-aligned.
    A pipe or a line break in a cell would break the table and is written as `/` or a space, and
    what a page would take for a tag as text.
    """
    align = align.ljust(len(header), "r")
    body = [[_text(cell).replace("|", "/") for cell in row] for row in rows]
    widths = [max(len(row[i]) for row in [list(header), *body]) for i in range(len(header))]

    def line(cells: Sequence[str]) -> str:
        padded = [
            cell.ljust(width) if side == "l" else cell.rjust(width)
            for side, cell, width in zip(align, cells, widths, strict=True)
        ]
        return f"| {' | '.join(padded)} |"

    rule = [
        "-" * (width + 2) if side == "l" else "-" * (width + 1) + ":"
        for side, width in zip(align, widths, strict=True)
    ]
    return [line(header), f"|{'|'.join(rule)}|", *(line(row) for row in body)]


def records(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> list[str]:
    """Lines of a Markdown list, for a table whose cells are sentences: an item a row.

    The first cell is an item's name, the others stand below it, each behind its column's name.
    """
    lines = []
    for row in rows:
        first, *others = (_text(cell) for cell in row)
        lines.append(f"- **{first}**")
        lines += [f"  - {name}: {cell}" for name, cell in zip(header[1:], others, strict=True)]
    return lines


def _text(cell: Any) -> str:
    return _TAG.sub("&lt;", one_line(cell))


def one_line(value: Any) -> str:
    """Any text without line breaks or runs of spaces."""
    return " ".join(str(value).split())
