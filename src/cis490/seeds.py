"""How far the trainings of one model differ by their seeds, on val and on test alike."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Final

UNSTABLE: Final = 0.05  # a larger standard deviation of macro F1 over seeds is flagged


def deviation(figures: Sequence[float]) -> float | None:
    """The standard deviation (of a sample) of one figure a seed; None of fewer than two."""
    return statistics.stdev(figures) if len(figures) > 1 else None
