"""Summary statistics of windows: level, spread, extremes, trend and the share missing."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cis490.schema import STATISTICS

_LARGEST = float(np.finfo(np.float32).max)


def summarise(
    values: NDArray[np.floating], mask: NDArray[np.bool_], hz: float = 1.0
) -> NDArray[np.float32]:
    """Summarise each channel of each window by `schema.STATISTICS`.

    Args:
        values: (n_windows, n_channels, n_steps); what `mask` hides is ignored, NaN included.
        mask: bool, same shape, True where a value was measured.
        hz: steps per second, the time unit of the trend.

    Returns:
        (n_windows, n_channels * 6) float32, the statistics of a channel side by side: mean; sample
        standard deviation (n - 1); min; max; trend, the least-squares slope per second; missing,
        the share of steps without a value. A level needs 1 valid step, a spread 2, a trend 3, else
        NaN. Magnitudes beyond float32 are cut to its largest.
    """
    n_windows, n_channels, n_steps = values.shape
    x = np.where(mask, values, 0.0).astype(np.float64, copy=False)
    count = mask.sum(axis=-1)
    seconds = np.arange(n_steps) / hz
    out = np.empty((n_windows, n_channels, len(STATISTICS)))
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        mean = x.sum(axis=-1) / count
        deviation = np.where(mask, x - mean[..., None], 0.0)
        spread = np.sqrt((deviation**2).sum(axis=-1) / (count - 1))
        mean_time = np.where(mask, seconds, 0.0).sum(axis=-1) / count
        time = np.where(mask, seconds - mean_time[..., None], 0.0)
        trend = (time * deviation).sum(axis=-1) / (time**2).sum(axis=-1)
        out[..., 0] = mean
        out[..., 1] = np.where(count >= 2, spread, np.nan)
        out[..., 2] = np.where(count >= 1, np.where(mask, x, np.inf).min(axis=-1), np.nan)
        out[..., 3] = np.where(count >= 1, np.where(mask, x, -np.inf).max(axis=-1), np.nan)
        out[..., 4] = np.where(count >= 3, trend, np.nan)
        out[..., 5] = 1.0 - count / n_steps
        flat = out.reshape(n_windows, n_channels * len(STATISTICS))
        return np.clip(flat, -_LARGEST, _LARGEST).astype(np.float32)
