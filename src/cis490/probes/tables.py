"""Rows of metrics.parquet for probes: scope `probe`, the key says which.

B replicates draw whole episodes, stratified by profile; what is compared shares them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import numpy as np

from cis490.channels import PHASES
from cis490.evaluation.breakdowns import COMPARED, Cell, Scored, replicate
from cis490.evaluation.families import Figure, share
from cis490.evaluation.tables import (
    Entrant,
    Interval,
    Provenance,
    metric_rows,
    paired_interval,
    settled,
)
from cis490.probes.data import Windows

SCOPE: Final = "probe"


class Name(NamedTuple):
    """Whose row it is.

    Attributes:
        part, key, model, mode: as in metrics.parquet.
        seeds: of the model's runs.
        checkpoint: sha256 of the weights, "-" of a model that a probe trained.
    """

    part: str
    key: str
    model: str
    mode: str
    seeds: tuple[int, ...] = ()
    checkpoint: str = "-"


def row(
    name: Name,
    metric: str,
    estimate: float,
    n: tuple[int, int],
    origin: Provenance,
    *,
    interval: Interval = None,
    kind: str = "none",
    n_valid: int = 0,
    told: str = "",
) -> dict[str, Any]:
    """One row of METRICS_SCHEMA.

    Args:
        n: windows and episodes.
        kind: of the interval, for the signature.
        n_valid: replicates, or draws, that it rests on.
        told: what the signature says beside the usual, from "|" on.
    """
    low, high = interval or (None, None)
    entrant = Entrant(name.model, name.mode, name.seeds, (), name.checkpoint)
    return {
        "split": origin.split,
        "model": name.model,
        "mode": name.mode,
        "seed": None,
        "part": name.part,
        "scope": SCOPE,
        "key": name.key,
        "metric": metric,
        "estimate": None if np.isnan(estimate) else float(estimate),
        "low": low,
        "high": high,
        "n_windows": n[0],
        "n_episodes": n[1],
        "n_valid_replicates": n_valid,
        "signature": origin.signature(metric, kind, entrant, n) + told,
    }


class Said(NamedTuple):
    """What a model says of every window: (r, n_windows) integer labels of its r runs."""

    name: Name
    predicted: np.ndarray


class Scores:
    """Macro F1 of what several models say of the same windows, on shared replicates.

    Args:
        windows: scored.
        truth: (n_windows,) labels.
        said: by whom.
        origin: for signatures, and B.
        labels: what integers mean.
    """

    def __init__(
        self,
        windows: Windows,
        truth: np.ndarray,
        said: Sequence[Said],
        origin: Provenance,
        labels: Sequence[str] = PHASES,
    ) -> None:
        episodes = windows.episodes
        scored = Scored(
            profile=episodes["profile"].to_list(),
            host=episodes["host_id"].to_list(),
            unit=windows.unit,
            truth=truth,
            phase_share=np.ones(len(truth)),
            predicted=np.concatenate([each.predicted for each in said]),
            labels=labels,
        )
        everything = np.ones(len(episodes), dtype=bool)
        cell = Cell.of((SCOPE, ""), scored.counts(), everything, (COMPARED,), labels=labels)
        self.n = len(windows), len(episodes)
        self._scores = replicate(scored, origin.replicates, [cell])
        self._origin = origin
        self._names = [each.name for each in said]
        self._entrants = []
        stop = 0
        for name, predicted in said:
            start, stop = stop, stop + len(predicted)
            runs = tuple(range(start, stop))
            seeds = name.seeds if len(name.seeds) == len(runs) else ()
            self._entrants.append(Entrant(name.model, name.mode, seeds, runs, name.checkpoint))

    def estimate(self, i: int) -> float:
        """Macro F1 of the i-th model, the mean over its runs."""
        return float(self._scores.estimates[0, list(self._entrants[i].runs)].mean())

    def row(self, i: int) -> dict[str, Any]:
        """Macro F1 of the i-th model."""
        name = self._names[i]
        rows = metric_rows(name.part, self._scores, [self._entrants[i]], self._origin)
        return rows[0] | {"key": name.key}  # the first is over all runs

    def difference(self, name: Name, metric: str, i: int, j: int) -> dict[str, Any]:
        """Macro F1 of the i-th less that of the j-th, paired."""
        means = [self._entrants[k].mean_over_seeds(self._scores.replicates[0]) for k in (i, j)]
        values = means[0] - means[1]
        return paired_row(
            name,
            metric,
            self.estimate(i) - self.estimate(j),
            self.n,
            self._origin,
            values if self._scores.resampled[0] else None,
        )


def paired_row(
    name: Name,
    metric: str,
    estimate: float,
    n: tuple[int, int],
    origin: Provenance,
    values: np.ndarray | None,
) -> dict[str, Any]:
    """The row of a difference, from its (B,) replicates; None if nothing can move it."""
    estimate = float(settled(estimate))
    interval = None if values is None else paired_interval(estimate, settled(values))
    kind = "percentile" if interval else "none"
    n_valid = 0 if values is None else int((~np.isnan(values)).sum())
    return row(name, metric, estimate, n, origin, interval=interval, kind=kind, n_valid=n_valid)


class Means:
    """Means of a number over some things in episodes (`evaluation.families.Family`).

    Args:
        figures: F of them.
        total: (F, R, n) sums in each episode, of each run.
        count: (F, n) how many things they are sums of.
    """

    def __init__(self, figures: list[Figure], total: np.ndarray, count: np.ndarray) -> None:
        self.figures = figures
        self._total, self._count = total, count

    def estimates(self) -> np.ndarray:
        """(F, R) float64."""
        return self.values(np.ones((self._count.shape[1], 1)))[..., 0]

    def values(self, drawn: np.ndarray) -> np.ndarray:
        """(F, R, b) under (n, b) weights of the episodes."""
        return share(self._total @ drawn, (self._count @ drawn)[:, None])
