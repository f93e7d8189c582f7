"""What a report is made of, paragraphs and tables, as Markdown or as HTML: one source, two twins.

Paragraphs and cells may hold `**strong**` and `` `code` `` of Markdown, and nothing else of it.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any, Final

from cis490 import markdown


@dataclass(frozen=True)
class Table:
    """A table as both twins show it.

    Attributes:
        header: a name for each column.
        rows: of cells; any value that `str` knows.
        align: an l (left) or r (right) for each column; those it does not name are right-aligned.
        grey: positions of rows that rest on too little to be read as a figure.
        prose: whether cells are sentences, too wide for a table of text: Markdown has a list.
    """

    header: Sequence[str]
    rows: Sequence[Sequence[Any]]
    align: str = "l"
    grey: Collection[int] = ()
    prose: bool = False


Block = str | Table
# First cells of more characters than this may break into lines.
_LONG: Final = 40


@dataclass(frozen=True)
class Section:
    """A piece of the report on one split.

    Attributes:
        chapter: of the page that it belongs to, one of `CHAPTERS`.
        heading: its name, unique within a split.
        blocks: what it says.
        pictures: names of those that show it, above its blocks.
    """

    chapter: str
    heading: str
    blocks: list[Block]
    pictures: tuple[str, ...] = ()


def to_markdown(blocks: Sequence[Block]) -> list[str]:
    """Lines of Markdown, an empty one between two blocks."""
    lines: list[str] = []
    for block in blocks:
        lines += [""] * bool(lines)
        if isinstance(block, Table):
            if block.prose:
                lines += markdown.records(block.header, block.rows)
            else:
                lines += markdown.table(block.header, block.rows, block.align)
        else:
            lines.append(block)
    return lines


def to_html(blocks: Sequence[Block]) -> str:
    """Paragraphs and tables; a table scrolls within itself where the screen is narrow."""
    return "\n".join(
        _table(block) if isinstance(block, Table) else f"<p>{inline(block)}</p>" for block in blocks
    )


def inline(text: Any) -> str:
    """One piece of text as HTML: escaped, with `**strong**` and `` `code` `` as elements."""
    safe = escape(legal(markdown.one_line(text)))
    safe = re.sub(r"\*\*(\S(?:.*?\S)?)\*\*", r"<strong>\1</strong>", safe)
    return re.sub(r"`(.+?)`", r"<code>\1</code>", safe)


def legal(text: str) -> str:
    """Text without the characters that neither HTML nor XML may hold."""
    return re.sub(r"[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]", "\ufffd", text)


def _table(table: Table) -> str:
    sides = table.align.ljust(len(table.header), "r")
    head = "".join(
        f'<th scope="col"{_side(side)}>{inline(name)}</th>'
        for name, side in zip(table.header, sides, strict=True)
    )
    body = []
    for i, row in enumerate(table.rows):
        first, *others = (
            f"{_side(side)}>{inline(cell)}" for cell, side in zip(row, sides, strict=True)
        )
        cells = "".join(f"<td{cell}</td>" for cell in others)
        kind = ' class="few"' if i in table.grey else ""
        body.append(f'<tr{kind}><th scope="row"{first}</th>{cells}</tr>')
    rows = "\n".join(body)
    long = any(len(str(row[0])) > _LONG for row in table.rows)
    kind = ' class="long"' if long else ""
    return (
        f'<div class="scroll"><table{kind}>\n<thead><tr>{head}</tr></thead>\n'
        f"<tbody>\n{rows}\n</tbody>\n</table></div>"
    )


def _side(side: str) -> str:
    return ' class="n"' if side == "r" else ""
