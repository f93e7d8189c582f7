"""The rows of metrics.parquet and pairwise.parquet, as docs/statistics.md lays them out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any, Final

import numpy as np
import polars as pl

from cis490 import __version__
from cis490.evaluation.bootstrap import (
    SEED,
    bca_interval,
    clopper_pearson,
    effect_size,
    holm,
    p_value,
    percentile_interval,
    percentile_intervals,
    seed_weights,
)
from cis490.evaluation.breakdowns import ALL, COMPARED, Cell, Replicated, Row
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
        "effect": pl.Float64,
        "p": pl.Float64,
        "p_holm": pl.Float64,
        "significant_95": pl.Boolean,
        "significant_holm": pl.Boolean,
    }
)
# Scope of infected windows told from clean ones by the likeliest phase.
DECIDED: Final = "decision"
BEST_OF: Final = "best_of_mode"
SILENT: Final = "silent_sources"  # in the metadata of metrics.parquet
COVERAGE: Final = "macro_f1_coverage"
BCA: Final = "macro_f1_bca"
BCA_COVERAGE: Final = "macro_f1_bca_coverage"
# Scopes whose macro F1 has a BCa interval beside the percentile one.
_WITH_BCA: Final = ("all", "host")
# Scopes whose figures stand for each seed alone too.
_EACH_SEED: Final = ("all", "phase_share", "phase", "profile", "host")
SPREAD: Final = "macro_f1_sd"
ALPHA: Final = 0.05
# Ends of an interval closer than this differ by rounding only.
NO_WIDTH: Final = 1e-12

Interval = tuple[float, float] | None


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
        """Unique name, `<model>_<mode>`; of a detector without modes the model's."""
        return f"{self.model}_{self.mode}" if self.mode else self.model

    def mean_over_seeds(self, figure: np.ndarray) -> np.ndarray:
        """(B,) replicates of a figure (R, B): the mean over seeds drawn with replacement."""
        if len(self.runs) == 1:
            return np.asarray(figure[self.runs[0]])
        weights = seed_weights(len(self.runs), figure.shape[1], self.name)
        return np.asarray((weights.T * figure[list(self.runs)]).sum(0))

    def views(self) -> list[tuple[int | None, Entrant]]:
        """The entrant over all its seeds, then as it is with each seed alone."""
        alone = zip(self.seeds, self.runs, strict=True) if self.seeds else []
        of_seed = [(seed, replace(self, seeds=(seed,), runs=(run,))) for seed, run in alone]
        return [(None, self), *of_seed]

    def influence(self, of_runs: np.ndarray, estimates: np.ndarray) -> np.ndarray:
        """What each independent draw contributes to the mean over seeds: episodes, then seeds.

        Args:
            of_runs: (R, n) `Cell.influence`.
            estimates: (R,) the figure of each run.

        Returns:
            (n + its seeds,) float64. Seeds are drawn like episodes, so they are one stratum more.
        """
        runs = list(self.runs)
        own = estimates[runs]
        return np.concatenate([of_runs[runs].mean(0), (own - own.mean()) / len(own)])


@dataclass(frozen=True)
class Provenance:
    """What a signature says of where a number comes from.

    Attributes:
        split, split_sha256: the split; its hash is over ids, contents and parts of its episodes.
        replicates: of the bootstrap.
        unit, strata: what is drawn, and within what.
    """

    split: str
    split_sha256: str
    replicates: int
    unit: str = "episode"
    strata: str = "profile"

    def signature(self, metric: str, interval: str, entrant: Entrant, n: tuple[int, int]) -> str:
        """All that two people need to compute the same figure; n is its windows and episodes."""
        return "|".join(
            (
                metric,
                f"unit={self.unit}",
                f"n={n[0]}/{n[1]}",
                f"strata={self.strata}",
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
    """Rows of metrics.parquet: each entrant over all its seeds, then each seed alone.

    Of samples, background and status there are no rows of single seeds.
    """
    rows = []
    every = [view for entrant in entrants for view in entrant.views()]
    for f, (row, cell) in enumerate(scores.rows):
        views = every if row.scope in _EACH_SEED else [(None, entrant) for entrant in entrants]
        values = np.stack([view.mean_over_seeds(scores.replicates[f]) for _, view in views])
        influence = _influence(scores, row, cell)
        of_views = zip(views, values, percentile_intervals(values), strict=True)
        for (seed, view), drawn, ends in of_views:
            key = {"model": view.model, "mode": view.mode, "seed": seed, "part": part}
            figure = _Figure.of(scores, f, view)
            kind, interval = figure.interval(ends)
            rows.append(key | figure.row(row.metric, kind, interval, origin))
            if seed is None and influence is not None:
                if kind == "percentile":
                    own = view.influence(influence, scores.estimates[f])
                    interval = bca_interval(drawn, figure.estimate, own)
                    if interval and interval[1] - interval[0] < NO_WIDTH:
                        interval = None
                    kind = "bca" if interval else "none"
                rows.append(key | figure.row(BCA, kind, interval, origin))
    if (f_all := scores.find(*ALL, COMPARED)) is not None:
        rows += [r for entrant in entrants for r in _spread(part, scores, f_all, entrant, origin)]
    return rows


def _influence(scores: Replicated, row: Row, cell: Cell) -> np.ndarray | None:
    """(R, n) of the figures that get a BCa interval."""
    if row.metric != COMPARED or row.scope not in _WITH_BCA:
        return None
    return cell.influence(COMPARED, scores.strata)


def _spread(
    part: str, scores: Replicated, f: int, entrant: Entrant, origin: Provenance
) -> list[dict[str, Any]]:
    """The standard deviation (of a sample) of macro F1 over seeds, if there are several."""
    estimate = deviation(scores.estimates[f, list(entrant.runs)].tolist())
    if estimate is None:
        return []
    row = scores.rows[f][0]._replace(metric=SPREAD)
    name = {"split": origin.split, "model": entrant.model, "mode": entrant.mode, "part": part}
    nothing = {"seed": None, "low": None, "high": None, "n_valid_replicates": 0}
    signature = origin.signature(SPREAD, "none", entrant, row.n)
    return [row._asdict() | name | nothing | {"estimate": estimate, "signature": signature}]


@dataclass(frozen=True)
class _Figure:
    """Figure f of an entrant, over the runs of `view`."""

    scores: Replicated
    f: int
    view: Entrant
    estimate: float

    @classmethod
    def of(cls, scores: Replicated, f: int, view: Entrant) -> _Figure:
        return cls(scores, f, view, float(scores.estimates[f, list(view.runs)].mean()))

    def interval(self, ends: np.ndarray) -> tuple[str, Interval]:
        """What kind of interval it gets, and the interval; `ends` are those of its replicates."""
        row, cell = self.scores.rows[self.f]
        if self.estimate in (0.0, 1.0):
            return "exact", cell.exact_interval(row, self.view.runs, self.estimate)
        # All episodes alike: resampling measured no spread, which is not certainty.
        if self.scores.resampled[self.f] and ends[1] - ends[0] >= NO_WIDTH:
            return "percentile", (float(ends[0]), float(ends[1]))
        return "none", None

    def row(self, metric: str, kind: str, interval: Interval, origin: Provenance) -> dict[str, Any]:
        """As in metrics.parquet, under the name `metric`, but for whose it is."""
        row, _ = self.scores.rows[self.f]
        low, high = interval or (None, None)
        return row._asdict() | {
            "split": origin.split,
            "metric": metric,
            "estimate": self.estimate,
            "low": low,
            "high": high,
            "n_valid_replicates": int(self.scores.n_valid[self.f]),
            "signature": origin.signature(metric, kind, self.view, row.n),
        }


def settled(x: np.ndarray | float) -> np.ndarray:
    """With 0 for what is rounding alone: the mean of equal numbers is not always that number."""
    return np.where(np.abs(x) < NO_WIDTH, 0.0, x)


def paired_interval(difference: float, replicated: np.ndarray) -> Interval:
    """The 95% interval of a difference from its (B,) replicates; both are `settled`.

    None of no width, which is not certainty, but for 0: what never differs differs by nothing.
    """
    interval = percentile_interval(replicated)
    if interval and difference and interval[1] - interval[0] < NO_WIDTH:
        return None
    return interval


def change_row(
    metric: str,
    part: str,
    f: int,
    scores: Replicated,
    before: Replicated,
    entrant: Entrant,
    origin: Provenance,
) -> dict[str, Any]:
    """How far figure f of an entrant is from what it was, paired on shared replicates.

    Args:
        metric: what the change is called.
        part: as in metrics.parquet.
        f: position of the figure in both.
        scores, before: with the same figures of the same episodes; `scores` - `before` is told.
        entrant: over all its seeds.
        origin: of the split.
    """
    row, runs = scores.rows[f][0], list(entrant.runs)
    diff = float(settled((scores.estimates[f, runs] - before.estimates[f, runs]).mean()))
    drawn = [entrant.mean_over_seeds(each.replicates[f]) for each in (scores, before)]
    moved = settled(drawn[0] - drawn[1])
    interval = paired_interval(diff, moved) if scores.resampled[f] else None
    return _over_seeds(row, part, entrant, metric, diff, interval, int(scores.n_valid[f]), origin)


def _over_seeds(
    row: Row,
    part: str,
    entrant: Entrant,
    metric: str,
    estimate: float,
    interval: Interval,
    n_valid: int,
    origin: Provenance,
) -> dict[str, Any]:
    """A row of metrics.parquet of an entrant over all its seeds; the interval is a percentile's."""
    low, high = interval or (None, None)
    return row._asdict() | {
        "split": origin.split,
        "model": entrant.model,
        "mode": entrant.mode,
        "seed": None,
        "part": part,
        "metric": metric,
        "estimate": estimate,
        "low": low,
        "high": high,
        "n_valid_replicates": n_valid,
        "signature": origin.signature(metric, "percentile" if interval else "none", entrant, row.n),
    }


def best_rows(
    part: str, scores: Replicated, rivals: Sequence[Entrant], origin: Provenance
) -> list[dict[str, Any]]:
    """How often each rival has the highest macro F1 of its mode, as a share of the replicates.

    Nothing without replicates, and of a rival alone in its mode. A tie goes to the first name, as
    where the best is chosen.
    """
    f = scores.find(*ALL, COMPARED)
    if f is None or not scores.resampled[f]:
        return []
    rows: list[dict[str, Any]] = []
    row = scores.rows[f][0]
    for mode in dict.fromkeys(rival.mode for rival in rivals):
        own = sorted((each for each in rivals if each.mode == mode), key=lambda each: each.model)
        means = np.stack([each.mean_over_seeds(scores.replicates[f]) for each in own])
        means = means[:, ~np.isnan(means).any(0)]
        if len(own) < 2 or not means.shape[1]:
            continue
        shares = np.bincount(means.argmax(0), minlength=len(own)) / means.shape[1]
        n_valid = means.shape[1]
        rows += [
            _over_seeds(row, part, rival, BEST_OF, float(share), None, n_valid, origin)
            for rival, share in zip(own, shares, strict=True)
        ]
    return rows


def coverage_rows(
    part: str,
    entrant: Entrant,
    covered: Mapping[str, tuple[int, int]],
    rows: Sequence[dict[str, Any]],
    origin: Provenance,
) -> list[dict[str, Any]]:
    """The measured coverage (`coverage.covering`) of an entrant's macro F1 intervals, if any."""
    own = next(
        row
        for row in rows
        if (row["model"], row["mode"], row["part"]) == (entrant.model, entrant.mode, part)
        and (row["scope"], row["key"], row["metric"]) == (*ALL, COMPARED)
    )
    n = (own["n_windows"], own["n_episodes"])
    found = []
    for kind, (k, measured) in covered.items():
        low, high = clopper_pearson(k, measured)
        metric = {"percentile": COVERAGE, "bca": BCA_COVERAGE}[kind]
        figure = {"metric": metric, "estimate": k / measured, "low": low, "high": high}
        signature = origin.signature(metric, "exact", entrant, n)
        told = {"seed": None, "n_valid_replicates": measured, "signature": signature}
        found.append(own | figure | told)
    return found


def pairwise_rows(
    scores: Replicated, entrants: Sequence[Entrant], origin: Provenance
) -> list[dict[str, Any]]:
    """Rows of pairwise.parquet: macro F1 of each pair of entrants, a - b, on shared replicates.

    Where resampling cannot move the difference, interval, effect, p and significance are null:
    nothing can be said. The effect is of episodes alone, with the seeds as they were trained.

    Args:
        scores: with macro F1 of everything.
        entrants: all of them.
        origin: of the split.
    """
    f = scores.find(*ALL, COMPARED)
    assert f is not None, "pairs are compared in macro F1 of everything"
    means = [entrant.mean_over_seeds(scores.replicates[f]) for entrant in entrants]
    estimates = [scores.estimates[f, list(entrant.runs)].mean() for entrant in entrants]
    of_runs = scores.rows[f][1].influence(COMPARED, scores.strata)
    influence = [of_runs[list(entrant.runs)].mean(0) for entrant in entrants]
    rows: list[dict[str, Any]] = []
    for i, j in combinations(range(len(entrants)), 2):
        a, b = entrants[i], entrants[j]
        difference, diff = settled(means[i] - means[j]), float(settled(estimates[i] - estimates[j]))
        between = settled(influence[i] - influence[j])
        interval = paired_interval(diff, difference) if scores.resampled[f] else None
        low, high = interval or (None, None)
        rows.append(
            {
                "split": origin.split,
                "model_a": a.model,
                "mode_a": a.mode,
                "model_b": b.model,
                "mode_b": b.mode,
                "metric": COMPARED,
                "diff": diff,
                "low": low,
                "high": high,
                "effect": effect_size(diff, between, scores.strata) if interval else None,
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
