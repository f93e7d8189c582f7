"""Summary statistics of windows: level, spread, extremes, trend and the share missing."""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import Final

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from cis490 import compiled
from cis490.schema import STATISTICS

SOURCE: Final = Path(__file__).with_name("_statistics.c")

_POINTER, _INT64 = ctypes.c_void_p, ctypes.c_int64
_statistics = compiled.load(
    SOURCE, "cis490_statistics", [_POINTER, _POINTER, *[_INT64] * 5, _POINTER, _POINTER]
)

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
    return _summarise_filled(np.where(mask, values, 0.0).astype(np.float64), mask, hz)


def summarise_grid(
    values: NDArray[np.float32],
    mask: NDArray[np.bool_],
    *,
    n_windows: int,
    length: int,
    stride: int,
    hz: float,
) -> NDArray[np.float32]:
    """Summarise the overlapping windows of one grid; none is copied.

    Args:
        values: float32 (n_channels, n_steps), 0 where missing; the steps of a channel side by side.
        mask: bool, of the same shape and strides in elements.
        n_windows, length, stride: window k is the steps from k * stride, `length` of them.
        hz: steps per second.

    Returns:
        As `summarise`: float32 (n_windows, n_channels * 6).

    Raises:
        ValueError: the windows need more steps than there are, or the mask has another shape.
    """
    n_channels, n_steps = values.shape
    needed = (n_windows - 1) * stride + length if n_windows else 0
    if n_steps < needed or mask.shape != values.shape:  # what is compiled would read beyond them
        raise ValueError(
            f"{n_windows} windows of {length} steps each {stride} need {needed} steps of values "
            f"and mask; these are {values.shape} and {mask.shape}"
        )
    out = np.empty((n_windows, n_channels * len(STATISTICS)), np.float32)
    if not n_windows:
        return out
    if _statistics is not None:
        row = values.strides[0] // values.itemsize
        assert values.dtype == np.float32
        assert values.strides[1] == values.itemsize
        assert mask.strides == (row, 1)
        seconds = _times(length, hz)
        time = np.append(seconds, seconds @ seconds)
        _statistics(
            *(values.ctypes.data, mask.ctypes.data, row, n_channels, n_windows, length, stride),
            *(time.ctypes.data, out.ctypes.data),
        )
        return out
    x = values.astype(np.float64)
    every = slice(None, (n_windows - 1) * stride + 1, stride)
    x_windows = sliding_window_view(x, length, axis=1)[:, every].swapaxes(0, 1)
    there_windows = sliding_window_view(mask, length, axis=1)[:, every].swapaxes(0, 1)
    return _summarise_filled(x_windows, there_windows, hz)


def _times(n_steps: int, hz: float) -> NDArray[np.float64]:
    """(n_steps,) seconds from the middle of a window."""
    return (np.arange(n_steps, dtype=np.float64) - (n_steps - 1) / 2) / hz


def _summarise_filled(
    x: NDArray[np.float64], mask: NDArray[np.bool_], hz: float
) -> NDArray[np.float32]:
    """`summarise` of values that are 0 where missing; windows may overlap, none is copied."""
    n_windows, n_channels, n_steps = x.shape
    time = _times(n_steps, hz)
    count = mask.sum(axis=2)
    out = np.empty((n_windows, n_channels, len(STATISTICS)))
    mean, spread, low, high, trend, missing = (out[:, :, i] for i in range(len(STATISTICS)))
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        np.divide(x.sum(axis=2), count, out=mean)
        deviation = x - mean[:, :, None]
        square = np.einsum("wct,wct->wc", deviation, deviation)
        cross = np.einsum("wct,t->wc", deviation, time)
        np.min(x, axis=2, out=low)
        np.max(x, axis=2, out=high)
        times = np.full(count.shape, time @ time)
        if (part := (count > 0) & (count < n_steps)).any():
            measured, n = mask[part], count[part]
            holed = np.where(measured, deviation[part], 0.0)
            square[part] = np.einsum("kt,kt->k", holed, holed)
            cross[part] = np.einsum("kt,t->k", holed, time)
            low[part] = np.where(measured, x[part], np.inf).min(axis=1)
            high[part] = np.where(measured, x[part], -np.inf).max(axis=1)
            # The sum of squares about their own mean, of the times that were measured.
            t = np.where(measured, time, 0.0)
            about = np.where(measured, time - (t.sum(axis=1) / n)[:, None], 0.0)
            times[part] = np.einsum("kt,kt->k", about, about)
        np.sqrt(square / (count - 1), out=spread)
        np.divide(cross, times, out=trend)
    np.subtract(1.0, count / n_steps, out=missing)
    for statistic, least in ((low, 1), (high, 1), (spread, 2), (trend, 3)):
        statistic[count < least] = np.nan
    flat: NDArray[np.float64] = out.reshape(n_windows, n_channels * len(STATISTICS))
    return np.clip(flat, -_LARGEST, _LARGEST).astype(np.float32)
