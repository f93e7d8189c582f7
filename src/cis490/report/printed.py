"""What a terminal shows of a written report: its first page, or the sections asked for."""

from __future__ import annotations

import re
from pathlib import Path

from cis490.errors import Cis490Error
from cis490.report.headline import END_OF_HEADLINE


def first_page(report: Path) -> str:
    """The top of comparison_v2.md: from its title to the end of the headline tables.

    Raises:
        Cis490Error: there is no such report.
    """
    return _read(report).partition(END_OF_HEADLINE)[0].rstrip()


def sections_about(report: Path, asked: str) -> str:
    """The sections of comparison_v2.md whose heading has some words, with all that is below them.

    Args:
        report: the file.
        asked: words as they stand in a heading, in upper or lower case.

    Raises:
        Cis490Error: there is no such report, or no such section.
    """
    lines = _read(report).splitlines()
    headings = [
        (i, len(match[1]), match[2].replace("`", ""))
        for i, line in enumerate(lines)
        if (match := re.match("(#{2,}) (.*)", line))
    ]
    found, end = list[str](), 0
    for n, (start, level, heading) in enumerate(headings):
        if start < end or asked.casefold() not in heading.casefold():
            continue
        end = next((i for i, other, _ in headings[n + 1 :] if other <= level), len(lines))
        section = [line for line in lines[start:end] if line != END_OF_HEADLINE]
        found.append("\n".join(section).rstrip())
    if not found:
        known = "; ".join(heading for _, _, heading in headings)
        raise Cis490Error(f"no heading of {report} has {asked!r} in it; there are: {known}")
    return "\n\n".join(found)


def _read(report: Path) -> str:
    try:
        return report.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise Cis490Error(f"there is no {report}: run the workflow first") from None
