"""The pictures of the report by name, for those that must know them without drawing any."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

# Of the whole store; all others are of one split.
STORE_PICTURES: Final = ("episodes",)
# Which single episodes are shown in time.
RANKS: Final = ("best", "median", "worst")


def split_pictures(modes: Sequence[str]) -> list[str]:
    """The pictures of a split, in the order of the page; a name's first word is its kind."""
    return [
        "forest",
        "transfer",
        "profiles",
        *(f"confusion_{mode}" for mode in modes),
        "since_infection",
        *(f"timeline_{rank}" for rank in RANKS),
        "reliability",
        "phases",
    ]
