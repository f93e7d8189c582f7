"""Figures of any kind under the clustered bootstrap, as rows of the tables.

A family computes its figures from sums over episodes, so a replicate costs a product of matrices.
R runs of one model (one a seed) on n episodes; F figures; b of B replicates.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Final, Literal, NamedTuple, Protocol

import numpy as np
from scipy.special import gammaincinv

from cis490.evaluation.bootstrap import TAILS, clopper_pearson, episode_weights, seed_weights
from cis490.evaluation.tables import NO_WIDTH, Entrant, Provenance

Kind = Literal["share", "rate", "delay", "gap", "change of gap", "other"]
# How a signature names what was there, but too little of it.
NOT_MEASURABLE: Final = "not measurable"


class Figure(NamedTuple):
    """A figure, and what it rests on.

    Attributes:
        scope, key, metric: as in metrics.parquet.
        n_windows: in it.
        episodes: (n,) bool, those with a window in it.
        kind: "share" has an exact interval at 0 and 1, "rate" (by the hour) at 0; a "delay" may be
            infinite, and its interval ends on replicates, not between two. A "gap" is a distance:
            chance makes it larger, in a sample and once more in a resample, so it and a "change of
            gap" have the basic interval, which takes the replicates' bias off; that of a gap is cut
            at 0 and holds the estimate (docs/statistics.md).
        trials: of an exact interval of a share: the episodes that could speak against it.
        hours: that a rate rests on.
        told: what the signature says beside the usual.
    """

    scope: str
    key: str
    metric: str
    n_windows: int
    episodes: np.ndarray
    kind: Kind = "other"
    trials: int = 0
    hours: float = 0.0
    told: str = ""


class Family(Protocol):
    """Figures that are computed together, of R runs."""

    @property
    def figures(self) -> list[Figure]:
        """The F figures, in the order of `values`."""

    def estimates(self) -> np.ndarray:
        """(F, R) float64 on all episodes; NaN where there is too little to say."""

    def values(self, drawn: np.ndarray) -> np.ndarray:
        """(F, R, b) under (n, b) weights of the episodes; NaN where undefined."""


def share(count: np.ndarray, total: np.ndarray) -> np.ndarray:
    """count / total, NaN where total is 0."""
    shape = np.broadcast_shapes(count.shape, total.shape)
    out = np.full(shape, np.nan, np.result_type(count, total))
    return np.asarray(np.divide(count, total, out=out, where=np.broadcast_to(total > 0, shape)))


def poisson_interval(k: int, hours: float) -> tuple[float, float]:
    """Exact 95% interval of a rate by the hour, with k events in so many hours.

    Source: F. Garwood, Fiducial limits for the Poisson distribution, 1936.
    """
    low = float(gammaincinv(k, TAILS[0])) if k > 0 else 0.0
    return low / hours, float(gammaincinv(k + 1, TAILS[1])) / hours


def resample(
    of_entrants: Sequence[Sequence[Family]], strata: Sequence[str], replicates: int
) -> list[np.ndarray]:
    """All figures of each entrant in every replicate; all entrants share the replicates' episodes.

    Args:
        of_entrants: the families of each entrant, all with its R runs.
        strata: the stratum (profile) of each of the n episodes.
        replicates: B.

    Returns:
        (F, R, B) float64 an entrant.
    """
    shapes = [
        np.concatenate([family.estimates() for family in families]).shape
        for families in of_entrants
    ]
    values = [np.empty((*shape, replicates)) for shape in shapes]
    start = 0
    for weights in episode_weights(strata, replicates):
        drawn = np.ascontiguousarray(weights.T, np.float32)
        stop = start + len(weights)
        for families, own in zip(of_entrants, values, strict=True):
            own[:, :, start:stop] = np.concatenate([family.values(drawn) for family in families])
        start = stop
    return values


def figure_rows(
    part: str,
    entrant: Entrant,
    families: Sequence[Family],
    values: np.ndarray,
    strata: Sequence[str],
    origin: Provenance,
) -> list[dict[str, Any]]:
    """Rows of METRICS_SCHEMA: an entrant over all its seeds, then each seed alone.

    Args:
        part: of the split.
        entrant: its runs are those of `families`, in order.
        families: of the entrant.
        values: (F, R, B) as `resample` gives them.
        strata: of the n episodes.
        origin: for the signatures.
    """
    figures = [figure for family in families for figure in family.figures]
    estimates = np.concatenate([family.estimates() for family in families])
    can_move = moved(figures, strata)
    views: list[tuple[int | None, Entrant, np.ndarray]] = [
        (None, entrant, _mean_over_seeds(entrant, values))
    ]
    for run, of_seed in enumerate(entrant.seeds):
        view = replace(entrant, seeds=(of_seed,), runs=(run,))
        views.append((of_seed, view, values[:, run]))
    rows: list[dict[str, Any]] = []
    for seed, view, replicated in views:
        name = {"split": origin.split, "model": view.model, "mode": view.mode}
        means = estimates[:, list(view.runs)].mean(1)
        for i, figure in enumerate(figures):
            estimate = float(means[i])
            interval, kind = interval_of(figure, estimate, replicated[i] if can_move[i] else None)
            low, high = interval or (None, None)
            n = figure.n_windows, int(figure.episodes.sum())
            rows.append(
                name
                | {
                    "seed": seed,
                    "part": part,
                    "scope": figure.scope,
                    "key": figure.key,
                    "metric": figure.metric,
                    "estimate": None if np.isnan(estimate) else estimate,
                    "low": low,
                    "high": high,
                    "n_windows": n[0],
                    "n_episodes": n[1],
                    "n_valid_replicates": int((~np.isnan(replicated[i])).sum()),
                    "signature": origin.signature(figure.metric, kind, view, n) + figure.told,
                }
            )
    return rows


def moved(figures: Sequence[Figure], strata: Sequence[str]) -> list[bool]:
    """Whether resampling can move each figure: one that rests on two episodes or more, for a single
    one says the same whenever it is drawn, and on one of a stratum of several, for an episode alone
    in its stratum is always drawn."""
    names, sizes = np.unique(list(strata), return_counts=True)
    alone = np.isin(strata, names[sizes == 1])
    return [
        bool(figure.episodes.sum() > 1 and (figure.episodes & ~alone).any()) for figure in figures
    ]


def _mean_over_seeds(entrant: Entrant, values: np.ndarray) -> np.ndarray:
    """(F, B) replicates of (F, R, B) figures: the mean over seeds drawn with replacement.

    What a seed that is not drawn says does not matter, be it infinite or nothing.
    """
    mean = np.zeros(values[:, 0].shape)
    shares = seed_weights(values.shape[1], values.shape[2], entrant.name)
    for run, drawn in zip(values.swapaxes(0, 1), shares.T, strict=True):
        mean += np.multiply(run, drawn, out=np.zeros_like(run), where=drawn > 0)
    return mean


def interval_of(
    figure: Figure, estimate: float, values: np.ndarray | None
) -> tuple[tuple[float, float] | None, str]:
    """The 95% interval and its kind; `values` are the replicates, None if nothing can move."""
    if np.isnan(estimate):
        return None, NOT_MEASURABLE
    if figure.kind == "share" and estimate in (0.0, 1.0) and figure.trials:
        return clopper_pearson(figure.trials * int(estimate), figure.trials), "exact"
    if figure.kind == "rate" and estimate == 0.0:
        return poisson_interval(0, figure.hours), "exact"
    measured = np.sort(values[~np.isnan(values)]) if values is not None else np.empty(0)
    if not len(measured):
        return None, "none"
    place = (len(measured) - 1) * np.array(TAILS)
    if figure.kind == "delay":
        low, high = measured[[int(np.floor(place[0])), int(np.ceil(place[1]))]]
        return (float(low), float(high)), "percentile"
    low, high = np.quantile(measured, TAILS)
    # All episodes alike: resampling measured no spread, which is not certainty.
    if high - low < NO_WIDTH:
        return None, "none"
    if figure.kind in ("gap", "change of gap"):
        low, high = 2 * estimate - high, 2 * estimate - low
        if figure.kind == "gap":
            low, high = max(0.0, low), max(estimate, high)
        return (float(low), float(high)), "basic"
    return (float(low), float(high)), "percentile"
