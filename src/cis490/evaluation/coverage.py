"""How often a 95% interval really covers, at the sample's own size and spread.

The sample is taken as if it were the population: samples of its size are drawn from it, each gets
its percentile interval, and the share of intervals that cover the population's figure is counted.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np

from cis490.evaluation.bootstrap import BLOCK, episode_weights, percentile_interval
from cis490.evaluation.metrics import Sums, macro_f1

SAMPLES: Final = 500
REPLICATES: Final = 2 * BLOCK
# From here on simulations find 95% (docs/statistics.md), and drawing would only cost time.
LARGE: Final = 200


def covering(matrix: np.ndarray, strata: Sequence[str]) -> tuple[int, int] | None:
    """Count the samples whose interval of macro F1 covers the figure of the whole.

    Args:
        matrix: (R, n, K, K) counts of a model's R seeds on n episodes; the figure is their mean.
        strata: the stratum (profile) of each episode.

    Returns:
        Samples that cover, and samples that had an interval; None with fewer than 2 or more than
        `LARGE` episodes, or if resampling cannot move the figure.
    """
    n = len(strata)
    if not 2 <= n <= LARGE:
        return None
    counts = Sums.of(matrix.swapaxes(0, 1))  # (n, R, K)
    flat = np.concatenate([counts.tp, counts.truth, counts.predicted], axis=1).reshape(n, -1)
    phases = np.flatnonzero(counts.truth.sum((0, 1))).tolist()

    def figures(weights: np.ndarray, episodes: np.ndarray) -> np.ndarray:
        sums = (weights @ episodes).reshape(len(weights), 3, -1, matrix.shape[-1])
        return np.asarray(macro_f1(Sums(sums[:, 0], sums[:, 1], sums[:, 2]), phases).mean(1))

    whole = float(figures(np.ones((1, n)), flat)[0])
    blocks = episode_weights(strata, SAMPLES * (BLOCK + REPLICATES))
    covered = measured = 0
    for _ in range(SAMPLES):
        drawn = np.repeat(np.arange(n), next(blocks)[0].astype(int))
        sample = flat[_in_order(drawn, strata)]
        replicates = [figures(next(blocks), sample) for _ in range(REPLICATES // BLOCK)]
        interval = percentile_interval(np.concatenate(replicates))
        if interval and interval[1] > interval[0]:
            measured += 1
            covered += interval[0] <= whole <= interval[1]
    return (covered, measured) if measured else None


def _in_order(drawn: np.ndarray, strata: Sequence[str]) -> np.ndarray:
    """Drawn episodes, each put where an episode of its stratum stood, so that strata still fit."""
    placed = np.empty(len(strata), np.intp)
    names = np.asarray(strata, dtype=object)
    for name in set(strata):
        placed[names == name] = drawn[names[drawn] == name]
    return placed
