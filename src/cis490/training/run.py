"""What surrounds a training: who watches it, and where it keeps what outlives its being killed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from cis490.training.finder import RateCache

Row = Mapping[str, float | int | None]  # of a history: see `checkpoint.HISTORY_SCHEMA`
History = list[dict[str, float | int | None]]


def _nobody(row: Row) -> None:
    """Listen to nothing."""


@dataclass(frozen=True)
class Run:
    """Where a training keeps things and whom it tells. Nothing here decides what is learned.

    Attributes:
        data: hash of the data that it sees.
        code: hash of the code. What was kept of other data or code is not used.
        folder: for the states of trainings that are killed; None: keep none.
        rates: for learning rates that are found; None: keep none.
        listen: told of each row of the history as it comes.
        profile: where to write a trace of some steps; None: make none.
    """

    data: str = ""
    code: str = ""
    folder: Path | None = None
    rates: RateCache | None = None
    listen: Callable[[Row], None] = _nobody
    profile: Path | None = None
