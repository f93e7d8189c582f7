"""Clustered intervals, paired tests and Holm for any detectors on one test set, in one call."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

import numpy as np
import polars as pl
from numpy.typing import ArrayLike

from cis490.errors import Cis490Error
from cis490.evaluation.breakdowns import ALL, Cell, Scored, replicate
from cis490.evaluation.tables import (
    Entrant,
    Provenance,
    metric_rows,
    metrics_frame,
    pairwise_frame,
    pairwise_rows,
)

_METRICS: Final = ("macro_f1", "macro_recall", "accuracy")
_SCORES: Final = {
    "model": "detector",
    **{name: name for name in ("seed", "scope", "key", "metric", "estimate", "low", "high")},
    **{"n_windows": "n_windows", "n_episodes": "n_clusters"},
    **{name: name for name in ("n_valid_replicates", "signature")},
}
_PAIRS: Final = {
    **{"model_a": "detector_a", "model_b": "detector_b"},
    **{name: name for name in ("metric", "diff", "low", "high", "effect", "p", "p_holm")},
    **{name: name for name in ("significant_95", "significant_holm")},
}


class InputError(Cis490Error, ValueError):
    """Truth, predictions, clusters and strata that do not fit together."""


class Comparison(NamedTuple):
    """What `compare_detectors` found.

    Attributes:
        scores: a row a figure: detector, seed (null: the mean over its seeds), scope and key
            ("all", "all" or "class", its name), metric, estimate, low, high, n_windows,
            n_clusters, n_valid_replicates, signature.
        pairs: a row a pair of detectors, macro F1 of a minus b: detector_a, detector_b, metric,
            diff, low, high, effect, p, p_holm, significant_95, significant_holm.
    """

    scores: pl.DataFrame
    pairs: pl.DataFrame


def compare_detectors(
    truth: ArrayLike,
    predictions: Mapping[str, ArrayLike | Mapping[int, ArrayLike]],
    *,
    cluster: ArrayLike,
    stratum: ArrayLike | None = None,
    replicates: int = 10_000,
    per_class: bool = True,
) -> Comparison:
    """Score detectors on the same windows and say which differ (docs/evaluation.md).

    Whole clusters are drawn with replacement, within strata; all detectors share the draws, and
    the seeds of a detector are drawn beside them.

    Args:
        truth: (n_windows,) the true class of each window, text or integers.
        predictions: by detector (n_windows,) predicted classes, or those of each training seed.
        cluster: (n_windows,) what windows belong together and are not independent: an episode, a
            patient, a file.
        stratum: (n_windows,) of what kind a cluster is, the same in all its windows. Each replicate
            keeps each stratum's number of clusters. Left out: one stratum.
        replicates: of the bootstrap.
        per_class: F1, precision and recall of each class too. Of many classes that takes memory:
            8 bytes x 3 x classes x runs x replicates.

    Returns:
        Two tables (`Comparison`). Where nothing can be said, intervals, effect, p and significance
        are null: a single cluster, or every cluster alone in its stratum. A figure of exactly 0 or
        1 gets an exact interval with clusters as trials.

    Raises:
        InputError: there is no window, detector or replicate, lengths differ, or a cluster is in
            two strata.
    """
    true = _column("truth", truth)
    if not len(true):
        raise InputError("truth: there is no window to score")
    if replicates < 1:
        raise InputError(f"replicates is {replicates}; give at least 1, better 10,000")
    runs, entrants = _runs(predictions, len(true))
    groups = _column("cluster", cluster, len(true))
    strata = (
        np.full(len(true), "all") if stratum is None else _column("stratum", stratum, len(true))
    )
    names, first, unit = np.unique(groups, return_index=True, return_inverse=True)
    _one_stratum_each(strata, strata[first][unit], groups)
    labels, codes = np.unique(np.concatenate([true, *runs]), return_inverse=True)
    scored = Scored(
        profile=strata[first].tolist(),
        host=["all"] * len(names),
        unit=unit,
        truth=codes[: len(true)],
        phase_share=np.ones(len(true)),
        predicted=codes[len(true) :].reshape(len(runs), len(true)),
        labels=labels.tolist(),
    )
    everything = np.ones(len(names), dtype=bool)
    cell = Cell.of(
        *(ALL, scored.counts(), everything, _METRICS), per_phase=per_class, labels=scored.labels
    )
    origin = Provenance(
        *("-", _digest(true, groups, strata), replicates),
        unit="cluster",
        strata="none" if stratum is None else "stratum",
    )
    scores = replicate(scored, replicates, [cell])
    rows = metrics_frame(metric_rows("-", scores, entrants, origin))
    rows = rows.with_columns(pl.col("scope").replace("phase", "class"))
    pairs = pairwise_frame(pairwise_rows(scores, entrants, origin))
    return Comparison(_named(rows, _SCORES), _named(pairs, _PAIRS))


def _lacks(value: Any) -> bool:
    """Whether it is None, NaN, which is not itself, or one of which even that cannot be said."""
    try:
        return value is None or bool(value != value)
    except TypeError:
        return True


def _column(name: str, values: ArrayLike, n: int | None = None) -> np.ndarray:
    """Values as text, so that 3 and "3" are one class and all sort alike."""
    column = np.asarray(values)
    if column.ndim != 1:
        raise InputError(f"{name}: expected one value a window, got shape {column.shape}")
    if n is not None and len(column) != n:
        raise InputError(f"{name}: {len(column)} values for {n} windows of truth")
    if column.dtype.kind == "f" and len(column):
        raise InputError(f"{name}: holds numbers with a point; give classes as text or integers")
    if column.dtype.kind == "O":
        lacks = [i for i, value in enumerate(column) if _lacks(value)]
        if lacks:
            raise InputError(
                f"{name}: row {lacks[0]} has no value (n={len(lacks)} such rows); leave such "
                "windows out of truth and of all predictions"
            )
    return column.astype(str)


def _runs(
    predictions: Mapping[str, ArrayLike | Mapping[int, ArrayLike]], n: int
) -> tuple[list[np.ndarray], list[Entrant]]:
    """(n,) predictions of every run, and the detectors whose runs they are, by name."""
    if not predictions:
        raise InputError("predictions: there is no detector to score")
    runs: list[np.ndarray] = []
    entrants = []
    for name in sorted(predictions):
        given = predictions[name]
        by_seed = dict(given) if isinstance(given, Mapping) else {None: given}
        if not by_seed:
            raise InputError(f"predictions: {name} has no seed")
        own = [
            _column(
                f"predictions of {name}" + (f", seed {seed}" if seed is not None else ""), of, n
            )
            for seed, of in by_seed.items()
        ]
        seeds = tuple(seed for seed in by_seed if seed is not None)
        if wrong := [seed for seed in seeds if not isinstance(seed, int | np.integer)]:
            raise InputError(f"predictions: {name} has the seed {wrong[0]!r}; give integers")
        places = tuple(range(len(runs), len(runs) + len(own)))
        entrants.append(Entrant(name, "", seeds, places, _digest(*own)))
        runs += own
    return runs, entrants


def _one_stratum_each(strata: np.ndarray, of_cluster: np.ndarray, groups: np.ndarray) -> None:
    """Each window's stratum is that of its cluster's first window, or an error names one."""
    if (wrong := np.flatnonzero(strata != of_cluster)).size:
        i = wrong[0]
        raise InputError(
            f"stratum: cluster {groups[i]} is in {of_cluster[i]} and in {strata[i]}; a cluster has "
            "one stratum"
        )


def _digest(*columns: np.ndarray) -> str:
    """sha256 of columns of text."""
    return hashlib.sha256("\0\0".join("\0".join(column) for column in columns).encode()).hexdigest()


def _named(frame: pl.DataFrame, names: Mapping[str, str]) -> pl.DataFrame:
    return frame.select(pl.col(old).alias(new) for old, new in names.items())
