"""A matrix in shades, as all pictures of counts and of figures by cell share it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from cis490.report.style import (
    FAINT,
    INK,
    PAPER,
    ROW,
    SMALL,
    SOFT,
    WIDTH,
    Canvas,
    drawing,
    label,
    shade,
    text_width,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_NARROWEST: Final = 36.0
_WIDEST: Final = 84.0
_GAP: Final = 0.25  # of a column, before one that stands apart


class Column(NamedTuple):
    """A column: its name, which breaks after each word; what stands below it; a gap before it."""

    name: str
    note: str = ""
    apart: bool = False


class Cell(NamedTuple):
    """A cell: what is written, and its shade in [0, 1]; None: none, for what is not comparable."""

    text: str
    share: float | None = None
    bold: bool = False


@dataclass(frozen=True)
class Row:
    """A row, or a heading over rows if it has no cells."""

    name: str
    cells: Sequence[Cell] = ()
    colour: str = INK
    bold: bool = False


def draw(columns: Sequence[Column], rows: Sequence[Row], corner: str = "") -> Canvas:
    """Draw it as wide as a page's column where it fits; with many columns it is wider."""
    with drawing():
        return _draw(columns, rows, corner)


def _draw(columns: Sequence[Column], rows: Sequence[Row], corner: str) -> Canvas:
    names = [corner, *(label(row.name) for row in rows)]
    left = max(text_width(name) for name in names) + 14
    places, x = [], 0.0
    for column in columns:
        x += _GAP * column.apart
        places.append(x)
        x += 1
    heads = [re.sub(r"([-_]) ?| ", "\\1\n", label(column.name)) for column in columns]
    widest = max(text_width(line, SMALL) for head in heads for line in head.split("\n"))
    width = min(max(_NARROWEST, widest + 4, (WIDTH - left - 6) / x), _WIDEST)
    noted = any(column.note for column in columns)
    top = 14 * max(head.count("\n") + 1 for head in heads) + 10 + 16 * noted
    canvas = Canvas.of(left + width * x + 6, top + ROW * len(rows) + 6)
    axes = canvas.axes(left, top, width * x, ROW * len(rows))
    axes.set(xlim=(0, x), ylim=(len(rows), 0))
    axes.set_axis_off()
    canvas.text(left - 10, top - 7, corner, ha="right", va="bottom", size=SMALL, color=SOFT)
    for column, head, place in zip(columns, heads, places, strict=True):
        middle = left + width * (place + 0.5)
        low = top - 7 - 15 * noted
        canvas.text(middle, low, head, ha="center", va="bottom", size=SMALL, linespacing=1.1)
        canvas.text(middle, top - 7, column.note, ha="center", va="bottom", size=SMALL, color=SOFT)
    for y, row in enumerate(rows):
        style: dict[str, Any] = {"weight": "bold" if row.bold else "normal", "color": row.colour}
        canvas.text(
            left - 10, top + ROW * (y + 0.5), label(row.name), ha="right", va="center", **style
        )
        for cell, place in zip(row.cells, places, strict=True) if row.cells else ():
            _cell(axes, cell, place, y)
    return canvas


def _cell(axes: Axes, cell: Cell, x: float, y: float) -> None:
    from matplotlib.patches import Rectangle

    face, ink = (FAINT, SOFT) if cell.share is None else shade(cell.share)
    axes.add_patch(Rectangle((x, y), 1, 1, facecolor=face, edgecolor=PAPER, linewidth=2))
    weight = "bold" if cell.bold else "normal"
    style: dict[str, Any] = {"ha": "center", "va": "center", "size": SMALL, "weight": weight}
    axes.text(x + 0.5, y + 0.5, cell.text, color=ink, **style)
