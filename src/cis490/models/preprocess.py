"""What stands between measured values and a network: signed log1p, z-scores, missing as NaN."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

# A spread below float32's resolution of the mean is rounding, not signal.
_RESOLUTION = 1e-7


def signed_log1p(x: np.ndarray) -> np.ndarray:
    """sign(x) log(1 + |x|), elementwise: rates span decades, and a trend may be negative."""
    return np.asarray(np.sign(x) * np.log1p(np.abs(x)))


@dataclass(frozen=True)
class Standardiser:
    """Signed log1p on flagged columns, then z-scores with the training rows' mean and spread.

    Attributes:
        log: (n_columns,) bool, columns that pass the signed log1p.
        mean: (n_columns,) float32, 0 for a column without a single training value.
        spread: (n_columns,) float32, the standard deviation; a zero spread counts as 1.
    """

    log: np.ndarray
    mean: np.ndarray
    spread: np.ndarray

    @classmethod
    def fit(cls, rows: np.ndarray, log: np.ndarray) -> Standardiser:
        """Measure training rows (n_rows, n_columns), NaN where missing; NaN is left out."""
        n_columns = rows.shape[1]
        mean, spread = np.zeros(n_columns), np.ones(n_columns)
        for j in range(n_columns):  # column by column: a float64 copy of all rows would not fit
            column = rows[:, j].astype(np.float64)
            column = column[~np.isnan(column)]
            if column.size:
                column = signed_log1p(column) if log[j] else column
                mean[j], deviation = column.mean(), column.std()
                spread[j] = deviation if deviation > _RESOLUTION * abs(mean[j]) else 1.0
        return cls(np.asarray(log, bool), mean.astype(np.float32), spread.astype(np.float32))

    def transform(self, rows: np.ndarray) -> np.ndarray:
        """Standardise (n_rows, n_columns) to a new float32 array; NaN stays NaN."""
        out = np.array(rows, np.float32)
        out[:, self.log] = signed_log1p(out[:, self.log])
        out -= self.mean
        out /= self.spread
        return out

    def state(self) -> dict[str, np.ndarray]:
        """Arrays from which `from_state` rebuilds this object."""
        return {"log": self.log, "mean": self.mean, "spread": self.spread}

    @classmethod
    def from_state(cls, state: Mapping[str, np.ndarray]) -> Standardiser:
        """Rebuild from `state()`."""
        return cls(state["log"], state["mean"], state["spread"])


def class_weights(y: np.ndarray, n_classes: int) -> np.ndarray:
    """Weights of the classes that make rare ones count: (n_classes,) float32.

    N / (K n_c) over the training labels `y` (n_cases,), K = `n_classes`, clipped to [0.25, 8], then
    divided by their mean over the classes present; absent classes get 0 (docs/statistics.md).
    """
    counts = np.bincount(y, minlength=n_classes)
    present = counts > 0
    weights = np.zeros(n_classes)
    weights[present] = np.clip(counts.sum() / (n_classes * counts[present]), 0.25, 8.0)
    weights[present] /= weights[present].mean()
    return weights.astype(np.float32)
