"""What a check says."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal

State = Literal["ok", "warning", "fault", "unknown"]
_SHOWN: Final = 5


@dataclass(frozen=True)
class Finding:
    """What one check came to.

    Attributes:
        check: what was looked at.
        state: "ok"; "warning": of no harm by itself; "fault": unfit; "unknown": cannot be judged.
        what: what was found, in a sentence.
        limit: what is asked.
        figures: the numbers, for machines.
        header, rows: a table that a person may want; empty where the sentence says it all.
        align: of its columns, as of `markdown.table`.
    """

    check: str
    state: State
    what: str
    limit: str
    figures: dict[str, Any] = field(default_factory=dict)
    header: tuple[str, ...] = ()
    rows: tuple[tuple[Any, ...], ...] = ()
    align: str = "l"


def unknown(name: str, why: str, limit: str) -> Finding:
    """What cannot be judged, and why."""
    return Finding(name, "unknown", f"cannot be judged: {why}", limit)


def names(names: Sequence[str]) -> str:
    """The first few of them, and how many more."""
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more
