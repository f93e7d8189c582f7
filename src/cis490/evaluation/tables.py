"""The rows of metrics.parquet and pairwise.parquet, as docs/statistics.md lays them out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any, Final

import numpy as np
import polars as pl

from cis490 import __version__
from cis490.evaluation.bootstrap import (
    SEED,
    clopper_pearson,
    holm,
    p_value,
    percentile_interval,
    seed_weights,
)
from cis490.evaluation.breakdowns import ALL, Replicated
from cis490.seeds import deviation

METRICS_SCHEMA: Final = pl.Schema(
    {
        "split": pl.String,
        "model": pl.String,
        "mode": pl.String,
        "seed": pl.Int64,
        "part": pl.String,
        "scope": pl.String,
        "key": pl.String,
        "metric": pl.String,
        "estimate": pl.Float64,
        "low": pl.Float64,
        "high": pl.Float64,
        "n_windows": pl.Int64,
        "n_episodes": pl.Int64,
        "n_valid_replicates": pl.Int64,
        "signature": pl.String,
    }
)
PAIRWISE_SCHEMA: Final = pl.Schema(
    {
        "split": pl.String,
        "model_a": pl.String,
        "mode_a": pl.String,
        "model_b": pl.String,
        "mode_b": pl.String,
        "metric": pl.String,
        "diff": pl.Float64,
        "low": pl.Float64,
        "high": pl.Float64,
        "p": pl.Float64,
        "p_holm": pl.Float64,
        "significant_95": pl.Boolean,
        "significant_holm": pl.Boolean,
    }
)
COMPARED: Final = "macro_f1"
COVERAGE: Final = "macro_f1_coverage"
SPREAD: Final = "macro_f1_sd"
ALPHA: Final = 0.05
# Ends of an interval closer than this differ by rounding only.
NO_WIDTH: Final = 1e-12


@dataclass(frozen=True)
class Entrant:
    """A model or a baseline in the tables.

    Attributes:
        model, mode: its name.
        seeds: of its runs, in the runs' order; empty for a baseline, which has one run.
        runs: positions of its runs among all R runs.
        checkpoint: sha256 of its weights; "-" for a baseline without any.
    """

    model: str
    mode: str
    seeds: tuple[int, ...]
    runs: tuple[int, ...]
    checkpoint: str = "-"

    @property
    def name(self) -> str:
        """Unique name, `<model>_<mode>`."""
        return f"{self.model}_{self.mode}"

    def mean_over_seeds(self, figure: np.ndarray) -> np.ndarray:
        """(B,) replicates of a figure (R, B): the mean over seeds drawn with replacement."""
        weights = seed_weights(len(self.runs), figure.shape[1], self.name)
        return np.asarray((weights.T * figure[list(self.runs)]).sum(0))


@dataclass(frozen=True)
class Provenance:
    """What a signature says of where a number comes from."""

    split: str
    split_sha256: str
    replicates: int

    def signature(self, metric: str, interval: str, entrant: Entrant) -> str:
        """All that two people need to compute the same figure."""
        return "|".join(
            (
                metric,
                "unit=episode",
                "strata=profile",
                f"interval={interval}",
                f"B={self.replicates}",
                f"rng=PCG64:{SEED}",
                f"seeds={','.join(map(str, entrant.seeds)) or '-'}",
                f"split={self.split_sha256[:12]}",
                f"checkpoint={entrant.checkpoint[:12]}",
                f"v={__version__}",
            )
        )


def metric_rows(
    part: str, scores: Replicated, entrants: Sequence[Entrant], origin: Provenance
) -> list[dict[str, Any]]:
    """Rows of metrics.parquet: each entrant over all its seeds, then each seed alone."""
    rows = []
    for entrant in entrants:
        alone = zip(entrant.seeds, entrant.runs, strict=True) if entrant.seeds else []
        views = [(None, entrant)] + [
            (seed, replace(entrant, seeds=(seed,), runs=(run,))) for seed, run in alone
        ]
        for seed, view in views:
            key = {"model": view.model, "mode": view.mode, "seed": seed, "part": part}
            rows += [key | figure for figure in _figures(scores, view, origin)]
        rows += _spread(part, scores, entrant, origin)
    return rows


def _spread(
    part: str, scores: Replicated, entrant: Entrant, origin: Provenance
) -> list[dict[str, Any]]:
    """The standard deviation (of a sample) of macro F1 over seeds, if there are several."""
    f = [(row.scope, row.key, row.metric) for row, _ in scores.rows].index((*ALL, COMPARED))
    estimate = deviation(scores.estimates[f, list(entrant.runs)].tolist())
    if estimate is None:
        return []
    row = scores.rows[f][0]._replace(metric=SPREAD)._asdict()
    name = {"split": origin.split, "model": entrant.model, "mode": entrant.mode, "part": part}
    nothing = {"seed": None, "low": None, "high": None, "n_valid_replicates": 0}
    signature = origin.signature(SPREAD, "none", entrant)
    return [row | name | nothing | {"estimate": estimate, "signature": signature}]


def _figures(scores: Replicated, entrant: Entrant, origin: Provenance) -> list[dict[str, Any]]:
    figures = []
    for f, (row, cell) in enumerate(scores.rows):
        estimate = float(scores.estimates[f, list(entrant.runs)].mean())
        interval, kind = None, "none"
        if estimate in (0.0, 1.0):
            interval, kind = cell.exact_interval(row, entrant.runs, estimate), "exact"
        elif scores.resampled[f]:
            interval = percentile_interval(entrant.mean_over_seeds(scores.replicates[f]))
            kind = "percentile"
            # All episodes alike: resampling measured no spread, which is not certainty.
            if interval and interval[1] - interval[0] < NO_WIDTH:
                interval, kind = None, "none"
        low, high = interval or (None, None)
        figures.append(
            row._asdict()
            | {
                "split": origin.split,
                "estimate": estimate,
                "low": low,
                "high": high,
                "n_valid_replicates": int(scores.n_valid[f]),
                "signature": origin.signature(row.metric, kind, entrant),
            }
        )
    return figures


def coverage_rows(
    part: str,
    entrant: Entrant,
    covered: tuple[int, int] | None,
    rows: Sequence[dict[str, Any]],
    origin: Provenance,
) -> list[dict[str, Any]]:
    """The measured coverage (`coverage.covering`) of an entrant's macro F1 interval, if any."""
    if covered is None:
        return []
    own = next(
        row
        for row in rows
        if (row["model"], row["mode"], row["part"]) == (entrant.model, entrant.mode, part)
        and (row["scope"], row["key"], row["metric"]) == (*ALL, COMPARED)
    )
    low, high = clopper_pearson(*covered)
    signature = origin.signature(COVERAGE, "exact", entrant)
    return [
        own
        | {"seed": None, "metric": COVERAGE, "estimate": covered[0] / covered[1]}
        | {"low": low, "high": high, "n_valid_replicates": covered[1], "signature": signature}
    ]


def pairwise_rows(
    scores: Replicated, entrants: Sequence[Entrant], origin: Provenance
) -> list[dict[str, Any]]:
    """Rows of pairwise.parquet: macro F1 of each pair of entrants, a - b, on shared replicates.

    Without episodes to resample, interval, p and significance are null: nothing can be said.
    """
    names = [(row.scope, row.key, row.metric) for row, _ in scores.rows]
    f = names.index((*ALL, COMPARED))
    means = [entrant.mean_over_seeds(scores.replicates[f]) for entrant in entrants]
    estimates = [float(scores.estimates[f, list(entrant.runs)].mean()) for entrant in entrants]
    rows: list[dict[str, Any]] = []
    for i, j in combinations(range(len(entrants)), 2):
        a, b = entrants[i], entrants[j]
        difference = means[i] - means[j]
        interval = percentile_interval(difference) if scores.resampled[f] else None
        low, high = interval or (None, None)
        rows.append(
            {
                "split": origin.split,
                "model_a": a.model,
                "mode_a": a.mode,
                "model_b": b.model,
                "mode_b": b.mode,
                "metric": COMPARED,
                "diff": estimates[i] - estimates[j],
                "low": low,
                "high": high,
                "p": p_value(difference) if interval else None,
                "significant_95": interval[0] > 0 or interval[1] < 0 if interval else None,
            }
        )
    for row, adjusted in zip(rows, holm([row["p"] for row in rows]), strict=True):
        row["p_holm"] = adjusted
        row["significant_holm"] = None if adjusted is None else adjusted < ALPHA
    return rows


def metrics_frame(rows: list[dict[str, Any]]) -> pl.DataFrame:
    """metrics.parquet, sorted by key; a null seed (all seeds) comes first."""
    key = ["split", "model", "mode", "seed", "part", "scope", "key", "metric"]
    return pl.DataFrame(rows, schema=METRICS_SCHEMA).sort(key, nulls_last=False)


def pairwise_frame(rows: list[dict[str, Any]]) -> pl.DataFrame:
    """pairwise.parquet, sorted by key."""
    key = ["split", "model_a", "mode_a", "model_b", "mode_b", "metric"]
    return pl.DataFrame(rows, schema=PAIRWISE_SCHEMA).sort(key)
