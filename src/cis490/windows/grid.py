"""The regular time grid of episodes (docs/episodes.md, "Grid and windows").

Times are int64 nanoseconds after an episode's start, taken from `t_wall_ns` alone: the monotonic
clock of netflow counts from the host's boot, and aligning on it would drop every flow.

Several episodes of equal length are gridded at once: each has a stretch of the time axis of its
own, `SPAN` long, so far from its neighbours that nothing reaches across. Every operation is
elementwise or within one episode, so its values do not depend, to the bit, on who is beside it.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

Times = NDArray[np.int64]
Index = NDArray[np.intp]
Numbers = NDArray[np.int64] | NDArray[np.float64]
Grid = NDArray[np.float64]
Mask = NDArray[np.bool_]

# No gap is longer than MOST_GAP_NS, 58 days: rows further than FAR_NS from the start cannot matter,
# and with SPAN that much longer no gap reaches a neighbour. MOST_EPISODES stretches fit into int64.
MOST_GAP_NS: Final = 5 * 10**15
FAR_NS: Final = 10**16
SPAN: Final = 10**17
MOST_EPISODES: Final = 64

# Flow records usually cover a few steps; those that cover more than this are summed another way.
_USUAL_STEPS: Final = 64

# Share of a window's steps that must lie before the episode's end.
_COMPLETE: Final = 0.95


def step_edges(n_steps: int, hz: int) -> Times:
    """Edges of the steps: (n_steps + 1,) int64, step j covers [edge j, edge j + 1)."""
    return np.arange(n_steps + 1, dtype=np.int64) * 1_000_000_000 // hz


def n_windows(duration_ns: int, hz: int, length: int, stride: int) -> int:
    """How many windows an episode has: those with at least 95% of their steps before its end."""
    before = duration_ns * hz // 1_000_000_000
    # The smallest whole number of steps that is 95% of a window; the epsilon absorbs 0.95 * 100.
    needed = int(np.ceil(_COMPLETE * length - 1e-9))
    return 0 if before < needed else (before - needed) // stride + 1


class Steps:
    """The steps of n episodes of equal length on one time axis.

    Attributes:
        edges: (n_steps + 1,) int64 within an episode.
        n_episodes: n.
        edge: (n, n_steps + 1) int64 on the common axis.
        begin, end: (n, n_steps) int64 on the common axis.
    """

    def __init__(self, edges: Times, n_episodes: int) -> None:
        assert n_episodes <= MOST_EPISODES, "their stretches would not fit into int64"
        self.edges, self.n_episodes = edges, n_episodes
        self.edge = np.arange(n_episodes, dtype=np.int64)[:, None] * SPAN + edges
        self.begin, self.end = self.edge[:, :-1], self.edge[:, 1:]

    @property
    def n_steps(self) -> int:
        """Steps of one episode."""
        return len(self.edges) - 1


class Samples:
    """Valid samples of one source, and where the steps fall among them.

    Args:
        t: (n_samples,) on the common axis, non-decreasing; of samples at one time the last counts.
        gap_ns: (n_samples,) longest interval that is bridged, of each sample's episode; more than
            `MOST_GAP_NS` is that.
        steps: the grid.
    """

    def __init__(self, t: Times, gap_ns: Grid, steps: Steps) -> None:
        self._keep: Mask | None = None
        if len(t) > 1 and (repeated := t[1:] == t[:-1]).any():
            self._keep = np.append(~repeated, True)
            t, gap_ns = t[self._keep], gap_ns[self._keep]
        self._n_samples, self._shape = len(t), steps.begin.shape
        if len(t) == 0:
            return
        gap_ns = np.minimum(gap_ns, MOST_GAP_NS)
        edge = steps.edge
        # The interval [t i, t i+1) that each edge lies in; a step that ends on a sample does not
        # touch the interval that begins there.
        after = np.searchsorted(t, edge.ravel(), side="right").reshape(edge.shape) - 1
        first, latest = after[:, :-1], (after - (t[after] == edge))[:, 1:]
        self._latest = latest
        self._recent = (latest >= 0) & (steps.end - t[latest] <= gap_ns[latest])
        if len(t) == 1:
            return
        self._length = np.diff(t).astype(np.float64)
        self._too_long = self._length > gap_ns[:-1]
        most = len(t) - 2
        self._touched = np.clip(first, 0, most), np.clip(latest, 0, most)
        self._valid = (first >= 0) & (latest <= most) & self._untouched(self._too_long)
        self._of = np.clip(after, 0, most)
        self._one = self._of[:, 1:] == self._of[:, :-1]
        self._width = (steps.end - steps.begin).astype(np.float64)
        self._tail = (edge - t[self._of])[:, 1:].astype(np.float64)
        self._head = (t[self._of + 1] - edge)[:, :-1].astype(np.float64)

    def _untouched(self, bad: Mask) -> Mask:
        """(n, n_steps): whether a step touches no interval of those flagged."""
        if not bad.any():
            return np.ones(self._shape, bool)
        n_bad = np.concatenate([[0], np.cumsum(bad)])
        first, last = self._touched
        return np.asarray(n_bad[last + 1] == n_bad[first])

    def counter(self, v: Numbers, *, hz: int, modulus: int | None = None) -> tuple[Grid, Mask]:
        """Rates of a counter.

        It is interpolated linearly at the step edges; the rate is the difference times hz, so that
        totals are kept. An interval longer than the gap, or over which the counter went back
        without wrapping, is missing, and so is every step that it touches.

        Args:
            v: (n_samples,) int64 (exact over its whole range) or float64.
            hz: steps per second.
            modulus: what the counter wraps at.

        Returns:
            (n, n_steps) float64 rates per second, 0 where missing, and bool.
        """
        if self._n_samples < 2:
            return np.zeros(self._shape), np.zeros(self._shape, bool)
        v = v if self._keep is None else v[self._keep]
        # Of integers modulo 2**64, so that no difference overflows.
        level = v.view(np.uint64) if v.dtype == np.int64 else v
        valid, went_back = self._valid, (v[1:] < v[:-1]) & ~self._too_long
        with np.errstate(over="ignore", invalid="ignore"):  # in what is not valid
            rise = level[1:] - level[:-1]
            # From a step's begin to the next sample, on to the last one before its end, to its end.
            between = level.take(self._of[:, 1:]) - level[1:].take(self._of[:, :-1])
            if went_back.any():
                if modulus is not None:
                    wrapped = went_back & (v[:-1].astype(np.float64) - v[1:] <= modulus)
                    went_back &= ~wrapped
                    # Added to differences: levels would round by all the wraps before them, those
                    # of other episodes included.
                    n_wraps = np.concatenate([[0], np.cumsum(wrapped)])
                    wraps = n_wraps.take(self._of[:, 1:]) - n_wraps[1:].take(self._of[:, :-1])
                    rise = rise + (wrapped * modulus).astype(rise.dtype)
                    between = between + (wraps * modulus).astype(between.dtype)
                valid = valid & self._untouched(went_back)
            per_ns = (rise / self._length).take(self._of)
            across = self._head * per_ns[:, :-1] + between + self._tail * per_ns[:, 1:]
            rate = np.where(self._one, self._width * per_ns[:, :-1], across) * hz
        return np.where(valid, rate, 0.0), valid

    def gauge(self, v: Numbers) -> tuple[Grid, Mask]:
        """Levels of a gauge: in each step the last sample before the step's end, if recent.

        Args:
            v: (n_samples,).

        Returns:
            (n, n_steps) float64, 0 where missing, and bool.
        """
        if self._n_samples == 0:
            return np.zeros(self._shape), np.zeros(self._shape, bool)
        v = v if self._keep is None else v[self._keep]
        return np.where(self._recent, v.astype(np.float64).take(self._latest), 0.0), self._recent


def silence(end_ns: Times, steps: Steps) -> Mask:
    """(n, n_steps) bool: where no record means no traffic, that is before the episode's end."""
    before: Mask = steps.edges[1:] <= end_ns[:, None]
    return before


def spread_sums(
    t: Times,
    episode: Index,
    amounts: Grid,
    *,
    interval_ns: Times,
    mask: Mask,
    steps: Steps,
    hz: int,
) -> tuple[Grid, Mask]:
    """Spread what flow records sum up evenly over the interval before each record.

    Args:
        t: (n_records,) times within the episode.
        episode: (n_records,) which of the n episodes.
        amounts: (n_channels, n_records), NaN where a record lacks a value.
        interval_ns: (n,) what a record covers before its time.
        mask: (n, n_steps) from `silence`.
        steps: the grid.
        hz: steps per second.

    Returns:
        (n_channels, n, n_steps) float64 per second, 0 where missing, and the bool mask of the same
        shape: a step that a record without a value reaches into is missing in that channel.
    """
    edges, n_steps = steps.edges, steps.n_steps
    shape = (len(amounts), steps.n_episodes, n_steps)
    values, masks = np.zeros(shape), np.broadcast_to(mask, shape).copy()
    interval = interval_ns[episode]
    start, stop = np.clip(t - interval, 0, edges[-1]), np.clip(t, 0, edges[-1])
    keep = stop > start
    if not keep.any():
        return values, masks
    start, stop, interval, amounts = start[keep], stop[keep], interval[keep], amounts[:, keep]
    first = np.searchsorted(edges, start, side="right") - 1
    last = np.searchsorted(edges, stop, side="left") - 1
    head = np.where(first == last, stop, edges[first + 1]) - start
    tail = np.where(first == last, 0, stop - edges[last])
    inner = np.minimum(first + 1, last)
    row = episode[keep] * (n_steps + 1)  # one step more, so that what ends there has a place

    def at(records: Index, step: Index, weights: Grid | None = None) -> Grid:
        """(n, n_steps + 1) sums of weights, or counts, of records at one step each."""
        size = steps.n_episodes * (n_steps + 1)
        total = np.bincount(row[records] + step, weights, minlength=size)
        return total.reshape(steps.n_episodes, n_steps + 1).astype(np.float64)

    # Full steps between the two ends: of usual records each by itself, so that nothing cancels and
    # silence is exactly zero; of the rare long ones as a running sum, +density where they begin and
    # -density after they end, where the count of those under way says that it is truly zero.
    everyone = np.arange(len(first))
    usual = last - inner <= _USUAL_STEPS
    each = np.where(usual, last - inner, 0)
    of = np.repeat(everyone, each)
    step = inner[of] + np.arange(len(of)) - np.repeat(np.cumsum(each) - each, each)
    long = everyone[~usual]
    under_way = np.cumsum(at(long, inner[long]) - at(long, last[long]), axis=1)[:, :n_steps] > 0
    width = np.diff(edges)
    for channel, amount in enumerate(amounts):
        missing = np.isnan(amount)
        density = np.where(missing, 0.0, amount) / interval
        full = at(of, step, density[of])[:, :n_steps]
        if len(long):
            ends = at(long, inner[long], density[long]) - at(long, last[long], density[long])
            full = full + np.where(under_way, np.cumsum(ends, axis=1)[:, :n_steps], 0.0)
        parts = at(everyone, first, density * head) + at(everyone, last, density * tail)
        values[channel] = full * width + parts[:, :n_steps]
        if missing.any():
            reach = at(everyone[missing], first[missing]) - at(everyone[missing], last[missing] + 1)
            masks[channel] &= np.cumsum(reach, axis=1)[:, :n_steps] == 0
    return np.where(masks, values * hz, 0.0), masks


def hold_counts(
    t: Times, counts: Grid, *, interval_ns: Times, mask: Mask, steps: Steps
) -> tuple[Grid, Mask]:
    """Hold distinct counts over the interval before each flush.

    Args:
        t: (n_flushes,) on the common axis, increasing.
        counts: (n_channels, n_flushes).
        interval_ns: (n_flushes,) what each covers before its time.
        mask: (n, n_steps) from `silence`.
        steps: the grid.

    Returns:
        (n_channels, n, n_steps): in each step the count of the last flush whose interval reaches
        into it, 0 in silence; and the bool mask of the same shape.
    """
    shape = (len(counts), *mask.shape)
    masks = np.broadcast_to(mask, shape).copy()
    if len(t) == 0:
        return np.zeros(shape), masks
    last = np.searchsorted(t - interval_ns, steps.end.ravel(), side="left").reshape(mask.shape) - 1
    held = (last >= 0) & (t[last] > steps.begin) & mask
    return np.where(held, counts[:, last], 0.0), masks
