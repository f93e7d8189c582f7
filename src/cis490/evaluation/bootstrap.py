"""Clustered bootstrap over episodes, paired comparisons, Holm, and exact intervals.

Windows of one episode are not independent, so whole episodes are drawn. One draw of weights serves
all models (their differences are then paired); the seeds of a model are drawn beside it, crossed
with the episodes, not nested in them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

import numpy as np
from scipy.stats import beta

# Any fixed number would do; this one is written into every signature.
SEED: Final = 490
# Replicates drawn at a time: bounds the memory, and is part of what replicate i is.
BLOCK: Final = 250
# Ends of the two-sided 95% interval.
TAILS: Final = (0.025, 0.975)


def episode_weights(
    strata: Sequence[str], replicates: int, *, seed: int = SEED
) -> Iterator[np.ndarray]:
    """Draw episodes with replacement within each stratum.

    Args:
        strata: the stratum (profile) of each of n episodes.
        replicates: how many times to draw.
        seed: of `numpy.random.default_rng`.

    Yields:
        (b, n) float64, b <= BLOCK: how often each replicate drew each episode. The blocks hold
        `replicates` rows together, and every row keeps each stratum's number of episodes.
    """
    names = np.asarray(strata, dtype=object)
    members = [np.flatnonzero(names == name) for name in sorted(set(strata))]
    rng = np.random.default_rng(seed)
    for start in range(0, replicates, BLOCK):
        b = min(BLOCK, replicates - start)
        weights = np.zeros((b, len(names)))
        for member in members:
            n = len(member)
            drawn = rng.integers(n, size=(b, n)) + n * np.arange(b)[:, None]
            weights[:, member] = np.bincount(drawn.ravel(), minlength=b * n).reshape(b, n)
        yield weights


def seed_weights(n_seeds: int, replicates: int, name: str, *, seed: int = SEED) -> np.ndarray:
    """Draw a model's seeds with replacement; each model has a stream of its own, by its name.

    Returns:
        (replicates, n_seeds) float64 shares that sum to 1 in each row.
    """
    if n_seeds == 1:
        return np.ones((replicates, 1))
    rng = np.random.default_rng([seed, *name.encode()])
    return rng.multinomial(n_seeds, np.full(n_seeds, 1 / n_seeds), size=replicates) / n_seeds


def percentile_interval(values: np.ndarray) -> tuple[float, float] | None:
    """Both ends of the 95% percentile interval of (B,) replicates; NaN replicates are left out.

    None if no replicate is left.
    """
    measured = values[~np.isnan(values)]
    if not len(measured):
        return None
    low, high = np.quantile(measured, TAILS)
    return float(low), float(high)


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
    low = float(beta.ppf(TAILS[0], k, n - k + 1)) if k > 0 else 0.0
    high = float(beta.ppf(TAILS[1], k + 1, n - k)) if k < n else 1.0
    return low, high
