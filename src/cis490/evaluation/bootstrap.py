"""Clustered bootstrap over episodes, paired comparisons, Holm, and exact intervals.

Windows of one episode are not independent, so whole episodes are drawn. One draw of weights serves
all models (their differences are then paired); the seeds of a model are drawn beside it, crossed
with the episodes, not nested in them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any, Final

import numpy as np
from scipy.special import betaincinv, ndtr, ndtri

# Any fixed number would do; this one is written into every signature.
SEED: Final = 490
# Replicates drawn at a time: bounds the memory, and is part of what replicate i is.
BLOCK: Final = 250
# Ends of the two-sided 95% interval.
TAILS: Final = (0.025, 0.975)
# Draws counted at once: few enough to stay near the processor.
_TOGETHER: Final = 1 << 14
# Episodes left out at once.
_LEFT_OUT: Final = 1 << 10


def members(strata: Sequence[str]) -> list[np.ndarray]:
    """The positions of each stratum's episodes, strata in the order of their names."""
    code = {name: i for i, name in enumerate(sorted(set(strata)))}
    codes = np.array([code[name] for name in strata], dtype=np.intp)
    ends = np.cumsum(np.bincount(codes, minlength=len(code)))
    return np.split(np.argsort(codes, kind="stable"), ends[:-1])


def episode_weights(
    strata: Sequence[str], replicates: int, *, seed: int = SEED, dtype: Any = np.float64
) -> Iterator[np.ndarray]:
    """Draw episodes with replacement within each stratum.

    Args:
        strata: the stratum (profile) of each of n episodes.
        replicates: how many times to draw.
        seed: of `numpy.random.default_rng`.
        dtype: of the weights; the draws are the same.

    Yields:
        (b, n), b <= BLOCK: how often each replicate drew each episode. The blocks hold
        `replicates` rows together, and every row keeps each stratum's number of episodes. A
        replicate's weights lie apart in memory, an episode's together.
    """
    of_stratum = members(strata)
    rng = np.random.default_rng(seed)
    for start in range(0, replicates, BLOCK):
        b = min(BLOCK, replicates - start)
        weights = np.empty((len(strata), b), dtype)
        for member in of_stratum:
            drawn = rng.integers(len(member), size=(b, len(member)))
            weights[member] = _counted(drawn).T
        yield weights.T


def _counted(drawn: np.ndarray) -> np.ndarray:
    """(b, n) int64: how often each row of (b, n) draws holds each of 0 .. n - 1."""
    b, n = drawn.shape
    step = max(1, _TOGETHER // n)
    counts = np.empty((b, n), np.int64)
    for start in range(0, b, step):
        some = drawn[start : start + step]
        some = some + n * np.arange(len(some))[:, None]
        counts[start : start + step] = np.bincount(some.ravel(), minlength=some.size).reshape(
            some.shape
        )
    return counts


@lru_cache(maxsize=256)
def seed_weights(n_seeds: int, replicates: int, name: str, *, seed: int = SEED) -> np.ndarray:
    """Draw a model's seeds with replacement; each model has a stream of its own, by its name.

    Returns:
        (replicates, n_seeds) float64 shares that sum to 1 in each row; read-only.
    """
    shares = np.ones((replicates, 1))
    if n_seeds > 1:
        rng = np.random.default_rng([seed, *name.encode()])
        drawn = rng.multinomial(n_seeds, np.full(n_seeds, 1 / n_seeds), size=replicates)
        shares = drawn / n_seeds
    shares.flags.writeable = False
    return shares


def percentile_interval(values: np.ndarray) -> tuple[float, float] | None:
    """Both ends of the 95% percentile interval of (B,) replicates; NaN replicates are left out.

    None if no replicate is left.
    """
    ((low, high),) = percentile_intervals(values[None])
    return None if np.isnan(low) else (float(low), float(high))


def percentile_intervals(values: np.ndarray) -> np.ndarray:
    """`percentile_interval` of each row of (V, B) replicates.

    Returns:
        (V, 2) float64, NaN where no replicate is left. Each row is what `numpy.quantile` gives,
        but for many rows sorting them all is quicker.
    """
    ordered = np.sort(values, axis=1)  # NaN comes last
    last = np.full((len(values), 1), values.shape[1] - 1)
    if np.isnan(ordered[:, -1]).any():
        last = np.maximum(last - np.isnan(ordered).sum(1, keepdims=True), 0)
    place = last * np.array(TAILS)
    before = np.floor(place).astype(np.intp)
    low = np.take_along_axis(ordered, before, axis=1)
    high = np.take_along_axis(ordered, np.minimum(before + 1, last), axis=1)
    part = place - before
    # As numpy does it: from the nearer end, so that rounding never leaves [low, high].
    ends = np.where(part < 0.5, low + (high - low) * part, high - (high - low) * (1 - part))
    return np.asarray(ends)


def jackknife_sums(
    counts: np.ndarray, strata: Sequence[str]
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Sums of counts without each episode in turn, from the sums of all: one pass.

    The others of its stratum h weigh n_h / (n_h - 1), so that each stratum keeps its size as it
    does in each replicate: S + (S_h - n_h c_i) / (n_h - 1).

    Args:
        counts: (n, C) of each episode.
        strata: of the n episodes.

    Yields:
        (m,) positions of some episodes of one stratum, and (m, C) float64 sums without each. An
        episode alone in its stratum is in none.
    """
    whole = counts.sum(0, dtype=np.float64)
    for member in members(strata):
        if (n := len(member)) == 1:
            continue
        of_stratum = counts[member].sum(0, dtype=np.float64)
        for start in range(0, n, _LEFT_OUT):
            some = member[start : start + _LEFT_OUT]
            yield some, whole + (of_stratum - n * counts[some].astype(np.float64)) / (n - 1)


def jackknife_influence(left_out: np.ndarray, strata: Sequence[str]) -> np.ndarray:
    """What each episode contributes to a figure, from the stratified jackknife.

    Episode i of a stratum of n_h contributes u_i = (n_h - 1) / n_h (mean_h - left_out_i), mean_h
    over its stratum: an empirical influence value over n_h, so that the figure's variance is about
    the sum of u_i^2. An episode alone in its stratum contributes 0, for resampling cannot move it.
    Source: A. C. Davison and D. V. Hinkley, Bootstrap Methods and their Application, 1997, 2.7.3
    and 3.2.1 (several samples).

    Args:
        left_out: (..., n) the figure of each of `jackknife_sums`.
        strata: of the n episodes.

    Returns:
        (..., n) float64.
    """
    influence = np.zeros(left_out.shape)
    for member in members(strata):
        if (n := len(member)) > 1:
            of_stratum = left_out[..., member]
            mean = of_stratum.mean(-1, keepdims=True)
            influence[..., member] = (mean - of_stratum) * ((n - 1) / n)
    return influence


def bca_interval(
    values: np.ndarray, estimate: float, influence: np.ndarray
) -> tuple[float, float] | None:
    """Both ends of the 95% BCa interval: percentiles moved by the replicates' bias and skewness.

    The bias z0 is from the share of replicates below the estimate, ties counted half (as scipy
    does it); the acceleration a = sum u^3 / (6 (sum u^2)^(3/2)). Sources: B. Efron, Better
    bootstrap confidence intervals, JASA 82, 1987; T. J. DiCiccio and B. Efron, Bootstrap
    confidence intervals, Statistical Science 11, 1996; for several samples Davison and Hinkley
    1997, 5.3.2.

    Args:
        values: (B,) replicates; NaN is left out.
        estimate: the figure on all episodes.
        influence: what each independent draw contributes (`jackknife_influence`): episodes, and
            the seeds where they are drawn too.

    Returns:
        None if no replicate is left, nothing moves the figure, or no percentile can be found
        because all replicates lie on one side of the estimate.
    """
    measured = values[~np.isnan(values)]
    spread = float((influence**2).sum())
    if not len(measured) or not spread > 0:
        return None
    below = ((measured < estimate).mean() + (measured <= estimate).mean()) / 2
    if not 0 < below < 1:
        return None
    bias = ndtri(below)
    moved = bias + ndtri(np.array(TAILS))
    room = 1 - moved * (influence**3).sum() / (6 * spread**1.5)
    if not (room > 0).all():
        return None
    low, high = np.quantile(measured, ndtr(bias + moved / room))
    return float(low), float(high)


def effect_size(difference: float, influence: np.ndarray, strata: Sequence[str]) -> float | None:
    """A paired difference over the standard deviation of what one episode contributes to it.

    d = difference / (sqrt(n) se), se from the stratified jackknife. For a mean of one number an
    episode, in one stratum, it is Cohen's d of paired data, mean / sd of the differences (J. Cohen,
    Statistical Power Analysis, 1988, d_z). It does not grow with n; d sqrt(n) is the difference in
    standard errors.

    Args:
        difference: a - b on all episodes.
        influence: (n,) `jackknife_influence` of a minus that of b.
        strata: of the n episodes.

    Returns:
        None where nothing varies between episodes, so that there is nothing to hold it against.
    """
    variance = sum(
        float((influence[member] ** 2).sum()) * len(member) / (len(member) - 1)
        for member in members(strata)
        if len(member) > 1
    )
    scale = np.sqrt(len(influence) * variance)
    return float(difference / scale) if scale > 0 else None


def p_value(differences: np.ndarray) -> float | None:
    """Two-sided p of (B,) paired differences, min(1, 2 (min(#<=0, #>=0) + 1) / (B + 1)).

    NaN replicates are left out of the counts and of B; None if none is left.
    """
    measured = differences[~np.isnan(differences)]
    if not len(measured):
        return None
    fewer = min(int((measured <= 0).sum()), int((measured >= 0).sum()))
    return min(1.0, 2 * (fewer + 1) / (len(measured) + 1))


def holm(p: Sequence[float | None]) -> list[float | None]:
    """Holm's step-down adjustment; None (not tested) stays None and does not count.

    Source: S. Holm, A simple sequentially rejective multiple test procedure, 1979.
    """
    tested = sorted((value, i) for i, value in enumerate(p) if value is not None)
    adjusted: list[float | None] = [None] * len(p)
    largest = 0.0
    for rank, (value, i) in enumerate(tested):
        largest = max(largest, min(1.0, (len(tested) - rank) * value))
        adjusted[i] = largest
    return adjusted


def clopper_pearson(k: int, n: int) -> tuple[float, float]:
    """Exact 95% interval of a proportion with k of n; [0, 1] for n = 0.

    Source: C. J. Clopper and E. S. Pearson, The use of confidence or fiducial limits, 1934.
    """
    low = float(betaincinv(k, n - k + 1, TAILS[0])) if k > 0 else 0.0
    high = float(betaincinv(k + 1, n - k, TAILS[1])) if k < n else 1.0
    return low, high
