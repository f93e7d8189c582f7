"""Pictures as SVG: files that stand alone, and parts of a page that take its colours and font."""

from __future__ import annotations

import io
import re
import xml.etree.ElementTree as ET
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from cis490.files import write_text
from cis490.report.blocks import Block, legal
from cis490.report.style import PALETTE, SMALL, SOFT, WIDTH, Canvas, drawing, text_width

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_LINK: Final = "{http://www.w3.org/1999/xlink}href"
_VARIABLES: Final = {light: f"var(--{name})" for name, (light, _) in PALETTE.items()}


@dataclass(frozen=True)
class Picture:
    """A picture, or why there is none.

    Attributes:
        title: what it shows, for those who cannot see it.
        caption: how to read it, with n, unit and what an interval is; may hold Markdown's strong.
        figure: what is drawn; None if there is nothing to draw, and then `caption` says why.
        blocks: the numbers behind it, where no section of the report has them.
    """

    title: str
    caption: str
    figure: Figure | None
    blocks: tuple[Block, ...] = ()


def to_svg(picture: Picture) -> str:
    """The picture as an SVG document in light colours; the same figure gives the same text."""
    figure = picture.figure or _note(picture.caption)
    out = io.StringIO()
    with drawing():
        description = {"Title": picture.title, "Description": picture.caption}
        figure.savefig(out, format="svg", metadata={"Date": None, "Creator": None, **description})
    return legal(out.getvalue())


def write_picture(picture: Picture, path: Path) -> str:
    """Write the picture as a file and return its text."""
    text = to_svg(picture)
    write_text(path, text)
    return text


def _note(reason: str) -> Figure:
    """A picture of words, where there is nothing to draw."""
    with drawing():
        per_line = int((WIDTH - 20) / text_width("x", SMALL))
        lines = re.findall(rf"\S.{{0,{per_line - 1}}}(?=\s|$)", reason)
        canvas = Canvas.of(WIDTH, 20 + 16 * len(lines))
        for i, line in enumerate(lines):
            canvas.text(10, 16 + 16 * i, line, size=SMALL, color=SOFT, va="center")
        return canvas.figure


def inline_svg(svg: str, name: str, label: str) -> str:
    """An SVG document as an element of a page.

    Its colours become the page's variables, its text takes the page's font, and its ids get a
    prefix, for ids must not meet within a page.

    Args:
        svg: of `to_svg`, or any that matplotlib wrote with colours of `PALETTE`.
        name: prefix of its ids, one of its own for each picture of a page.
        label: its text alternative.
    """
    root = ET.fromstring(svg)
    for parent in list(root.iter()):
        for child in list(parent):
            if child.tag.rpartition("}")[2] in ("metadata", "style"):
                parent.remove(child)
    used = set(re.findall(r'(?:url\(|href=")#([^")]+)', svg))
    for element in root.iter():
        element.tag = element.tag.rpartition("}")[2]
        element.attrib = _attributes(element, name, used)
    width, height = root.attrib["viewBox"].split()[2:]
    root.attrib = {
        "viewBox": root.attrib["viewBox"],
        "role": "img",
        "aria-label": label,
        "style": f"--width:{float(width):g}px;aspect-ratio:{float(width):g}/{float(height):g}",
    }
    return re.sub(r">\s+<", "><", ET.tostring(root, encoding="unicode"))


def _attributes(element: ET.Element, name: str, used: set[str]) -> dict[str, str]:
    kept = {}
    for key, value in element.attrib.items():
        if key == "id":
            if value in used:
                kept["id"] = f"{name}-{value}"
        elif key == _LINK:
            kept["href"] = value.replace("#", f"#{name}-")
        elif key == "style":
            kept["style"] = _style(value)
        elif key == "clip-path":
            kept[key] = value.replace("#", f"#{name}-")
        elif key in ("d", "x", "y"):
            kept[key] = re.sub(r"-?\d+\.\d+", lambda n: f"{float(n[0]):.2f}", value)
        elif key == "transform" and re.match(r"rotate\(-?0[ )]", value):
            continue  # matplotlib turns all text, mostly by nothing
        else:
            kept[key] = value
    return kept


def _style(style: str) -> str:
    style = re.sub(r"font-family:[^;]*;?\s*", "", style)
    return re.sub(r"#[0-9a-f]{6}", lambda colour: _VARIABLES.get(colour[0], colour[0]), style)
