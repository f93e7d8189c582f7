"""Classification metrics from counts, so that resampling episodes only ever sums counts.

Shapes: K phases in the order of `cis490.channels.PHASES`, or the classes of another task; `...` is
any leading shape (replicates, runs). A metric of a phase that the truth lacks is NaN, not zero: it
was not measured.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from cis490.channels import PHASES

K: Final = len(PHASES)

# The phases that count as an alarm (docs/statistics.md, alarm score).
ALARM_PHASES: Final = ("infecting", "infected_running", "dormant")


def confusion(
    truth: np.ndarray, predicted: np.ndarray, unit: np.ndarray, n: int, k: int = K
) -> np.ndarray:
    """Count windows per unit.

    Args:
        truth, predicted: (n_windows,) integer in [0, k), index into PHASES.
        unit: (n_windows,) integer in [0, n), the episode of each window.
        n: number of units.
        k: number of classes.

    Returns:
        (n, k, k) int64; [i, t, p] counts the windows of unit i with truth t and prediction p.
    """
    cell = (unit.astype(np.int64) * k + truth) * k + predicted
    return np.bincount(cell, minlength=n * k * k).reshape(n, k, k)


@dataclass(frozen=True)
class Sums:
    """Windows counted by phase, all that the metrics here need of a confusion matrix.

    Attributes:
        tp: (..., K) windows of a phase predicted as that phase.
        truth: (..., K) windows of a phase; may broadcast against the others.
        predicted: (..., K) windows predicted as a phase.
    """

    tp: np.ndarray
    truth: np.ndarray
    predicted: np.ndarray

    @classmethod
    def of(cls, matrix: np.ndarray) -> Sums:
        """From confusion matrices (..., K, K), truth in rows."""
        return cls(
            tp=np.diagonal(matrix, axis1=-2, axis2=-1),
            truth=matrix.sum(-1),
            predicted=matrix.sum(-2),
        )


def _share(count: np.ndarray, total: np.ndarray, measured: np.ndarray) -> np.ndarray:
    """count / total; 0 where total is 0 (zero_division=0), NaN where not `measured`."""
    share = np.divide(count, total, out=np.zeros_like(count, dtype=float), where=total > 0)
    return np.where(measured, share, np.nan)


def f1(sums: Sums) -> np.ndarray:
    """F1 of each phase, (..., K)."""
    return _share(2 * sums.tp, sums.truth + sums.predicted, sums.truth > 0)


def precision(sums: Sums) -> np.ndarray:
    """Precision of each phase, (..., K); 0 for a phase that was never predicted."""
    return _share(sums.tp, np.broadcast_to(sums.predicted, sums.tp.shape), sums.truth > 0)


def recall(sums: Sums) -> np.ndarray:
    """Recall of each phase, (..., K)."""
    return _share(sums.tp, np.broadcast_to(sums.truth, sums.tp.shape), sums.truth > 0)


def _mean_share(sums: Sums, phases: Sequence[int], others: np.ndarray | None = None) -> np.ndarray:
    """Mean over `phases` of tp / (truth + others), (...); one that the truth lacks is skipped.

    Phase by phase: where phases lie apart in memory, as those of replicates do, each step runs
    through one piece of it. A phase without truth has no tp either: one window of it, made up,
    makes its share 0 and not 0 / 0.
    """
    total: Any = np.zeros(sums.tp.shape[:-1])
    n: Any = np.zeros(())
    for phase in phases:
        truth = sums.truth[..., phase]
        present = truth > 0
        divisor = truth + ~present
        if others is not None:
            divisor = divisor + others[..., phase]
        total += sums.tp[..., phase] / divisor
        n = n + present
    with np.errstate(invalid="ignore"):
        return np.asarray(total / n)


def macro_f1(sums: Sums, phases: Sequence[int]) -> np.ndarray:
    """Mean F1 over `phases`, (...); a phase that the truth lacks is skipped.

    With `phases` those of the truth it equals scikit-learn's
    `f1_score(labels=phases, average="macro", zero_division=0)`.
    """
    return 2 * _mean_share(sums, phases, sums.predicted)


def macro_recall(sums: Sums, phases: Sequence[int]) -> np.ndarray:
    """Mean recall over `phases`, (...); a phase that the truth lacks is skipped."""
    return _mean_share(sums, phases)


def accuracy(sums: Sums, phases: Sequence[int]) -> np.ndarray:  # noqa: ARG001
    """Share of windows predicted right, (...)."""
    total = np.broadcast_to(sums.truth.sum(-1), sums.tp.shape[:-1])
    return _share(sums.tp.sum(-1), total, total > 0)


def false_alarm_rate(sums: Sums, phases: Sequence[int]) -> np.ndarray:  # noqa: ARG001
    """Share of windows predicted as one of ALARM_PHASES, (...); meant for control episodes."""
    alarms = sums.predicted[..., [PHASES.index(phase) for phase in ALARM_PHASES]].sum(-1)
    total = np.broadcast_to(sums.truth.sum(-1), alarms.shape)
    return _share(alarms, total, total > 0)


PER_PHASE: Final[dict[str, Callable[[Sums], np.ndarray]]] = {
    "f1": f1,
    "precision": precision,
    "recall": recall,
}
OVERALL: Final[dict[str, Callable[[Sums, Sequence[int]], np.ndarray]]] = {
    "macro_f1": macro_f1,
    "macro_recall": macro_recall,
    "accuracy": accuracy,
    "false_alarm_rate": false_alarm_rate,
}
# What a macro metric is the mean of.
MEAN_OF: Final = {"macro_f1": "f1", "macro_recall": "recall"}
