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
    x = values.astype(np.float64, copy=False)  # windows may overlap: never flattened
    count = mask.sum(axis=2)
    out = np.full((n_windows, n_channels, len(STATISTICS)), np.nan)
    part = (count > 0) & (count < n_steps)
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        out[:, :, :5] = _of_whole(x, hz)
        out[count == 0, :5] = np.nan
        out[part, :5] = _of_part(x[part], mask[part], hz)
    out[:, :, 5] = 1.0 - count / n_steps
    flat: NDArray[np.float64] = out.reshape(n_windows, n_channels * len(STATISTICS))
    return np.clip(flat, -_LARGEST, _LARGEST).astype(np.float32)


def _of_whole(x: NDArray[np.float64], hz: float) -> NDArray[np.float64]:
    """(w, c, 5) mean, std, min, max and trend of (w, c, n) as if all were measured: made cheap."""
    n_steps = x.shape[2]
    mean = x.mean(axis=2)
    deviation = x - mean[:, :, None]
    time = (np.arange(n_steps) - (n_steps - 1) / 2) / hz
    square = np.einsum("wct,wct->wc", deviation, deviation)
    spread = np.sqrt(square / (n_steps - 1)) if n_steps >= 2 else np.full(mean.shape, np.nan)
    trend = np.einsum("wct,t->wc", deviation, time) / (time @ time)
    trend = trend if n_steps >= 3 else np.full(mean.shape, np.nan)
    return np.stack([mean, spread, x.min(axis=2), x.max(axis=2), trend], axis=2)


def _of_part(x: NDArray[np.float64], measured: NDArray[np.bool_], hz: float) -> NDArray[np.float64]:
    """(k, 5) the same of k rows with holes, over the steps that were measured."""
    count = measured.sum(axis=1)
    seconds = np.arange(x.shape[1]) / hz
    mean = np.where(measured, x, 0.0).sum(axis=1) / count
    deviation = np.where(measured, x - mean[:, None], 0.0)
    spread = np.sqrt((deviation**2).sum(axis=1) / (count - 1))
    mean_time = np.where(measured, seconds, 0.0).sum(axis=1) / count
    time = np.where(measured, seconds - mean_time[:, None], 0.0)
    trend = (time * deviation).sum(axis=1) / (time**2).sum(axis=1)
    return np.stack(
        [
            mean,
            np.where(count >= 2, spread, np.nan),
            np.where(measured, x, np.inf).min(axis=1),
            np.where(measured, x, -np.inf).max(axis=1),
            np.where(count >= 3, trend, np.nan),
        ],
        axis=1,
    )
