"""The regular time grid of an episode (docs/episodes.md, "Grid and windows").

Times are int64 nanoseconds after the episode's start, taken from `t_wall_ns` alone: the monotonic
clock of netflow counts from the host's boot, and aligning on it would drop every flow.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Times = NDArray[np.int64]
Numbers = NDArray[np.int64] | NDArray[np.float64]
Grid = NDArray[np.float64]
Mask = NDArray[np.bool_]

# Share of a window's steps that must lie before the episode's end.
_COMPLETE = 0.95


def step_edges(n_steps: int, hz: int) -> Times:
    """Edges of the steps: (n_steps + 1,) int64, step j covers [edge j, edge j + 1)."""
    return np.arange(n_steps + 1, dtype=np.int64) * 1_000_000_000 // hz


def n_windows(duration_ns: int, hz: int, length: int, stride: int) -> int:
    """How many windows an episode has: those with at least 95% of their steps before its end."""
    before = duration_ns * hz // 1_000_000_000
    # The smallest whole number of steps that is 95% of a window; the epsilon absorbs 0.95 * 100.
    needed = int(np.ceil(_COMPLETE * length - 1e-9))
    return 0 if before < needed else (before - needed) // stride + 1


def counter_rates(
    t: Times, v: Numbers, edges: Times, *, gap_ns: float, hz: int, modulus: int | None = None
) -> tuple[Grid, Mask]:
    """Rates of a counter, from its valid samples.

    The counter is interpolated linearly at the step edges; the rate is the difference times hz, so
    totals are kept. An interval longer than `gap_ns`, or over which the counter went back without
    wrapping, is missing, and so is every step that it touches.

    Args:
        t: (n,) times of the valid samples, non-decreasing; of samples at one time the last counts.
        v: (n,) int64 (exact over its whole range) or float64.
        edges: (n_steps + 1,).
        gap_ns: longest interval that is bridged.
        hz: steps per second.
        modulus: what the counter wraps at.

    Returns:
        (n_steps,) float64 rates per second, 0 where missing, and (n_steps,) bool.
    """
    n_steps = len(edges) - 1
    if len(t) > 1 and (repeated := t[1:] == t[:-1]).any():
        last = np.append(~repeated, True)
        t, v = t[last], v[last]
    if len(t) < 2:
        return np.zeros(n_steps), np.zeros(n_steps, bool)
    went_back = v[1:] < v[:-1]
    increment = _increment(v)
    if modulus is not None:
        unwrapped = increment + increment.dtype.type(modulus)
        wrapped = went_back & (v[:-1].astype(np.float64) - v[1:] <= modulus)
        increment = np.where(wrapped, unwrapped, increment)
        went_back &= ~wrapped
    length = np.diff(t)
    bad = went_back | (length > gap_ns)
    increment = np.where(bad, increment.dtype.type(0), increment)
    n_bad = np.concatenate([[0], np.cumsum(bad)])
    total = np.concatenate([increment[:1] * 0, np.cumsum(increment)])  # of uint64: wraps, exactly

    a, b = edges[:-1], edges[1:]
    inside = (a >= t[0]) & (b <= t[-1])
    first = np.clip(np.searchsorted(t, a, side="right") - 1, 0, len(length) - 1)
    last_ = np.clip(np.searchsorted(t, b, side="left") - 1, 0, len(length) - 1)
    valid = inside & (n_bad[last_ + 1] == n_bad[first])
    per_ns = increment / length
    within = (b - a) * per_ns[first]
    whole = (total[last_] - total[np.minimum(first + 1, last_)]).astype(np.float64)
    across = (t[first + 1] - a) * per_ns[first] + whole + (b - t[last_]) * per_ns[last_]
    rate = np.where(first == last_, within, across) * hz
    return np.where(valid, rate, 0.0), valid


def _increment(v: Numbers) -> NDArray[np.uint64] | NDArray[np.float64]:
    """Differences of neighbours; of integers modulo 2**64, so none overflows."""
    if v.dtype == np.int64:
        unsigned = v.view(np.uint64)
        return unsigned[1:] - unsigned[:-1]
    return v[1:].astype(np.float64) - v[:-1]


def gauge_levels(t: Times, v: Numbers, edges: Times, *, gap_ns: float) -> tuple[Grid, Mask]:
    """Levels of a gauge: in each step the last valid sample before the step's end, if recent.

    Args:
        t: (n,) times of the valid samples, non-decreasing.
        v: (n,) their values.
        edges: (n_steps + 1,).
        gap_ns: how long a sample is carried, up to the step's end.

    Returns:
        (n_steps,) float64, 0 where missing, and (n_steps,) bool.
    """
    if len(t) == 0:
        return np.zeros(len(edges) - 1), np.zeros(len(edges) - 1, bool)
    end = edges[1:]
    last = np.searchsorted(t, end, side="left") - 1
    valid = (last >= 0) & (end - t[last] <= gap_ns)
    return np.where(valid, v[last].astype(np.float64), 0.0), valid


def spread_sums(
    t: Times, amounts: Grid, edges: Times, *, interval_ns: int, end_ns: int, hz: int
) -> tuple[Grid, Mask]:
    """Spread what flow records sum up evenly over the interval before each record.

    Args:
        t: (n,) times of the records.
        amounts: (n_channels, n), NaN where a record lacks a value.
        edges: (n_steps + 1,).
        interval_ns: what a record covers, before its time.
        end_ns: the episode's end; silence before it is zero, beyond it is missing.
        hz: steps per second.

    Returns:
        (n_channels, n_steps) float64 per second, and the bool mask of the same shape: a step that
        a record without a value reaches into is missing in that channel.
    """
    n_channels, n_steps = len(amounts), len(edges) - 1
    per_step = np.zeros((n_channels, n_steps))
    mask = np.broadcast_to(edges[1:] <= end_ns, (n_channels, n_steps)).copy()
    start = np.clip(t - interval_ns, 0, edges[-1])
    stop = np.clip(t, 0, edges[-1])
    keep = stop > start
    if not keep.any():
        return per_step, mask
    start, stop, amounts = start[keep], stop[keep], amounts[:, keep]
    first = np.searchsorted(edges, start, side="right") - 1
    last = np.searchsorted(edges, stop, side="left") - 1
    one = first == last
    head = np.where(one, stop, edges[first + 1]) - start
    tail = np.where(one, 0, stop - edges[last])
    # Full steps between the two ends: +rate where they begin, -rate after they end, summed up. The
    # count of records says where that sum is truly zero, whatever the rounding leaves.
    inner = np.minimum(first + 1, last)
    active = np.cumsum(_at(inner, None, n_steps + 1) - _at(last, None, n_steps + 1))[:n_steps] > 0
    width = np.diff(edges)
    for channel, amount in enumerate(amounts):
        density = np.where(np.isnan(amount), 0.0, amount) / interval_ns
        full = np.cumsum(_at(inner, density, n_steps + 1) - _at(last, density, n_steps + 1))
        per_step[channel] = (
            np.where(active, full[:n_steps], 0.0) * width
            + _at(first, density * head, n_steps)
            + _at(last, density * tail, n_steps)
        )
        missing = np.isnan(amount)
        if missing.any():
            touched = _at(first[missing], None, n_steps + 1)
            touched -= _at(last[missing] + 1, None, n_steps + 1)
            mask[channel] &= np.cumsum(touched)[:n_steps] == 0
    return np.where(mask, per_step * hz, 0.0), mask


def hold_counts(
    t: Times, counts: Grid, edges: Times, *, interval_ns: int, end_ns: int
) -> tuple[Grid, Mask]:
    """Hold distinct counts over the interval before each flush.

    Args:
        t: (n,) times of the flushes, increasing.
        counts: (n_channels, n).
        edges: (n_steps + 1,).
        interval_ns: what a flush covers, before its time.
        end_ns: the episode's end.

    Returns:
        (n_channels, n_steps): in each step the count of the last flush whose interval reaches into
        it, 0 in silence; and the bool mask, False beyond the episode's end.
    """
    n_channels, n_steps = len(counts), len(edges) - 1
    mask = np.broadcast_to(edges[1:] <= end_ns, (n_channels, n_steps)).copy()
    if len(t) == 0:
        return np.zeros((n_channels, n_steps)), mask
    last = np.searchsorted(t - interval_ns, edges[1:], side="left") - 1
    held = (last >= 0) & (t[last] > edges[:-1])
    return np.where(held & mask, counts[:, last], 0.0), mask


def _at(index: NDArray[np.intp], weights: Grid | None, size: int) -> NDArray[np.float64]:
    return np.bincount(index, weights=weights, minlength=size).astype(np.float64)
