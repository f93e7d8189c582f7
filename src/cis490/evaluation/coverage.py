"""How often a 95% interval really covers, at the sample's own size and spread.

The sample is taken as if it were the population: samples of its size are drawn from it, each gets
its intervals, and the share of intervals that cover the population's figure is counted.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np

from cis490.evaluation.bootstrap import (
    BLOCK,
    bca_interval,
    episode_weights,
    jackknife_influence,
    jackknife_sums,
    percentile_interval,
)
from cis490.evaluation.metrics import Sums, macro_f1

SAMPLES: Final = 500
REPLICATES: Final = 2 * BLOCK
# From here on simulations find 95% (docs/statistics.md), and drawing would only cost time.
LARGE: Final = 200


def covering(matrix: np.ndarray, strata: Sequence[str]) -> dict[str, tuple[int, int]]:
    """Count the samples whose interval of macro F1 covers the figure of the whole.

    Args:
        matrix: (R, n, K, K) counts of a model's R seeds on n episodes; the figure is their mean,
            and the seeds are not drawn.
        strata: the stratum (profile) of each episode.

    Returns:
        Of "percentile" and "bca", samples that cover and samples that had an interval; nothing with
        fewer than 2 or more than `LARGE` episodes, or if resampling cannot move the figure.
    """
    n = len(strata)
    if not 2 <= n <= LARGE:
        return {}
    counts = Sums.of(matrix.swapaxes(0, 1))  # (n, R, K)
    flat = np.concatenate([counts.tp, counts.truth, counts.predicted], axis=1).reshape(n, -1)
    flat = flat.astype(np.float64)
    phases = np.flatnonzero(counts.truth.sum((0, 1))).tolist()

    def figures(sums: np.ndarray) -> np.ndarray:
        parts = sums.reshape(len(sums), 3, -1, matrix.shape[-1])
        return np.asarray(macro_f1(Sums(parts[:, 0], parts[:, 1], parts[:, 2]), phases).mean(1))

    whole = float(figures(flat.sum(0)[None])[0])
    # The jackknife is linear, so it is the same two matrices for every sample; the last row of the
    # first leaves nothing out.
    without = np.ones((n + 1, n))
    for some, weights in jackknife_sums(np.eye(n), strata):
        without[some] = weights
    contributed = jackknife_influence(np.eye(n), strata)
    blocks = episode_weights(strata, SAMPLES * (BLOCK + REPLICATES))
    covered = {"percentile": 0, "bca": 0}
    measured = dict.fromkeys(covered, 0)
    for _ in range(SAMPLES):
        drawn = np.repeat(np.arange(n), next(blocks)[0].astype(int))
        sample = flat[_in_order(drawn, strata)]
        replicates = np.concatenate(
            [figures(next(blocks) @ sample) for _ in range(REPLICATES // BLOCK)]
        )
        *left_out, estimate = figures(without @ sample)
        influence = left_out @ contributed
        for kind, interval in (
            ("percentile", percentile_interval(replicates)),
            ("bca", bca_interval(replicates, estimate, influence)),
        ):
            if interval and interval[1] > interval[0]:
                measured[kind] += 1
                covered[kind] += interval[0] <= whole <= interval[1]
    return {kind: (covered[kind], measured[kind]) for kind in covered if measured[kind]}


def _in_order(drawn: np.ndarray, strata: Sequence[str]) -> np.ndarray:
    """Drawn episodes, each put where an episode of its stratum stood, so that strata still fit."""
    placed = np.empty(len(strata), np.intp)
    names = np.asarray(strata, dtype=object)
    for name in set(strata):
        placed[names == name] = drawn[names[drawn] == name]
    return placed
