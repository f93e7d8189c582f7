"""What stands between measured values and a network: signed log1p, z-scores, missing as NaN."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import overload

import numpy as np

from cis490.models.base import InputError
from cis490.models.views import CodedSeries
from cis490.windows.codes import LEAST, MISSING, signed_log1p

# A spread below float32's resolution of the mean is rounding, not signal.
_RESOLUTION = 1e-7


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
    def fit(cls, rows: np.ndarray | CodedSeries, log: np.ndarray) -> Standardiser:
        """Measure training rows (n_rows, n_columns); what is missing (NaN) is left out.

        Raises:
            InputError: columns of a coded series are flagged; its values are in model space.
        """
        log = np.asarray(log, bool)
        if isinstance(rows, CodedSeries):
            _refuse_log(log)
            mean, spread = _of_coded(rows)
        else:
            mean, spread = _of_rows(rows, log)
        spread = np.where(spread > _RESOLUTION * np.abs(mean), spread, 1.0)
        return cls(log, mean.astype(np.float32), spread.astype(np.float32))

    @overload
    def transform(self, rows: np.ndarray) -> np.ndarray: ...

    @overload
    def transform(self, rows: CodedSeries) -> CodedSeries: ...

    def transform(self, rows: np.ndarray | CodedSeries) -> np.ndarray | CodedSeries:
        """Standardise (n_rows, n_columns) to a new float32 array; NaN stays NaN.

        Of a coded series only the meaning of the codes changes: it shares them with the given one.

        Raises:
            InputError: a coded series, but the training rows were in raw units.
        """
        if isinstance(rows, CodedSeries):
            _refuse_log(self.log)
            base, scale = (rows.base - self.mean) / self.spread, rows.scale / self.spread
            return replace(rows, scale=scale, base=base)
        out = np.array(rows, np.float32)
        out[:, self.log] = signed_log1p(out[:, self.log])
        out -= self.mean
        out /= self.spread
        return out

    @property
    def scale(self) -> tuple[np.ndarray, np.ndarray]:
        """Mean and spread."""
        return self.mean, self.spread

    def state(self) -> dict[str, np.ndarray]:
        """Arrays from which `from_state` rebuilds this object."""
        return {"log": self.log, "mean": self.mean, "spread": self.spread}

    @classmethod
    def from_state(cls, state: Mapping[str, np.ndarray]) -> Standardiser:
        """Rebuild from `state()`."""
        return cls(state["log"], state["mean"], state["spread"])


def _refuse_log(log: np.ndarray) -> None:
    if log.any():
        raise InputError(
            "a coded series holds values in model space, but the columns ask for their log: use "
            "columns without log flags for it, and a model that was trained on such a series"
        )


def _of_rows(rows: np.ndarray, log: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of each column, 0 without a value: float64 (n_columns,)."""
    mean, spread = np.zeros(rows.shape[1]), np.zeros(rows.shape[1])
    for j in range(rows.shape[1]):  # column by column: a float64 copy of all rows would not fit
        column = rows[:, j].astype(np.float64)
        column = column[~np.isnan(column)]
        if column.size:
            column = signed_log1p(column) if log[j] else column
            mean[j], spread[j] = column.mean(), column.std()
    return mean, spread


def _of_coded(series: CodedSeries) -> tuple[np.ndarray, np.ndarray]:
    """The same of a coded series, from exact sums of each episode's codes.

    Episodes are put together by the spread within and between them (Chan, Golub and LeVeque), so
    that nothing cancels, however far a level lies from zero.
    """
    shape = series.base.shape
    count, total, square = np.zeros(shape), np.zeros(shape), np.zeros(shape)
    for i in range(shape[0]):
        codes = series.codes[series.offset[i] : series.offset[i + 1]]
        there = codes != MISSING
        above = np.where(there, codes, LEAST).astype(np.float64) - LEAST
        count[i], total[i] = there.sum(axis=0), above.sum(axis=0)
        square[i] = np.einsum("ij,ij->j", above, above)
    count[np.isnan(series.base)] = 0  # hidden
    some = np.maximum(count, 1)
    measured = count > 0
    scale = series.scale.astype(np.float64)
    level = np.where(measured, series.base + scale * total / some, 0.0)
    within = np.where(measured, scale**2 * (square - total**2 / some), 0.0)
    n = np.maximum(count.sum(axis=0), 1)
    mean = (count * level).sum(axis=0) / n
    between = np.where(measured, count * (level - mean) ** 2, 0.0)
    return mean, np.sqrt((within + between).sum(axis=0) / n)
