"""Do probabilities mean what they say: temperature, reliability, ECE, Brier score, likelihood.

K phases. Everything is a ratio of sums over episodes, so that resampling only adds up.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import polars as pl
from scipy.optimize import minimize_scalar
from scipy.special import ndtri, softmax

from cis490.evaluation.bootstrap import TAILS
from cis490.evaluation.families import Figure, Kind, interval_of, moved, share
from cis490.evaluation.tables import Entrant

SCOPE: Final = "calibration"
KEY: Final = "all"
# Of confidence, equally wide, as Guo et al. have them: (0, 1/15], ..., (14/15, 1].
BINS: Final = 15
EDGES: Final = np.linspace(0, 1, BINS + 1)
# A probability of 0, which a model gives to a phase that it never saw, would cost an infinity.
FLOOR: Final = 1e-12
# Temperatures that are searched: beyond them a phase is all but certain, or nothing is known.
COLDEST, HOTTEST = 0.05, 20.0

RELIABILITY_SCHEMA: Final = pl.Schema(
    {
        "split": pl.String,
        "model": pl.String,
        "mode": pl.String,
        "part": pl.String,
        "scaled": pl.Boolean,
        "bin": pl.Int32,
        "low_edge": pl.Float64,
        "high_edge": pl.Float64,
        "n_windows": pl.Int64,
        "n_episodes": pl.Int64,
        "confidence": pl.Float64,
        "accuracy": pl.Float64,
        "low": pl.Float64,
        "high": pl.Float64,
    }
)


@dataclass(frozen=True)
class Temperature:
    """What logits are divided by, and how sure that is.

    Attributes:
        value: above 1: the model was too sure of itself.
        interval: both ends at 95%; None where it cannot be told.
    """

    value: float
    interval: tuple[float, float] | None

    @property
    def at_bound(self) -> bool:
        """Whether the likelihood still rises where the search ends."""
        return not 1.01 * COLDEST < self.value < HOTTEST / 1.01


def _logits(p: np.ndarray) -> np.ndarray:
    return np.asarray(np.log(np.maximum(p, FLOOR, dtype=float)))


def scaled(p: np.ndarray, temperature: float) -> np.ndarray:
    """Probabilities (..., K) with their logits divided by a temperature: float64, same shape.

    Logits are the logs of the probabilities, which are themselves but for a constant; a
    probability below `FLOOR` counts as that. The most probable phase stays the same.
    """
    return np.asarray(softmax(_logits(p) / temperature, axis=-1))


def fit_temperature(p: np.ndarray, truth: np.ndarray, unit: np.ndarray) -> Temperature:
    """The temperature that makes the truth most likely.

    The interval is that of a maximum-likelihood estimate with a sandwich variance, episodes being
    the clusters, on the log of the temperature: windows of one episode are not independent.
    Sources: C. Guo, G. Pleiss, Y. Sun and K. Weinberger, On calibration of modern neural networks,
    2017; K.-Y. Liang and S. Zeger, Longitudinal data analysis using generalized linear models,
    1986.

    Args:
        p: (n_windows, K) probabilities of windows that the model was not trained on.
        truth: (n_windows,) integer, index into PHASES.
        unit: (n_windows,) integer, the episode of each window.
    """
    z = _logits(p)
    z -= z.max(1, keepdims=True)  # so that no power overflows
    of_truth = z[np.arange(len(z)), truth]

    def loss(log_temperature: float) -> float:
        beta = np.exp(-log_temperature)
        return float((np.log(np.exp(beta * z).sum(1)) - beta * of_truth).mean())

    if np.ptp(z, axis=1).max() < 1e-9:  # all phases alike: no temperature changes anything
        return Temperature(1.0, None)
    bounds = np.log(COLDEST), np.log(HOTTEST)
    found = minimize_scalar(loss, bounds=bounds, method="bounded", options={"xatol": 1e-7})
    best = Temperature(float(np.exp(found.x)), None)
    episodes, place = np.unique(unit, return_inverse=True)
    q = softmax(z / best.value, axis=1)
    mean = (q * z).sum(1)
    curvature = float((q * (z - mean[:, None]) ** 2).sum()) / best.value**2
    n = len(episodes)
    if best.at_bound or n < 2:
        return best
    slope = np.bincount(place, of_truth - mean) / best.value
    error = np.sqrt(n / (n - 1) * (slope**2).sum()) / curvature
    if error > bounds[1] - bounds[0]:  # it could lie anywhere
        return best
    low, high = best.value * np.exp(ndtri(np.array(TAILS)) * error)
    return Temperature(best.value, (float(low), float(high)))


def bins(confidence: np.ndarray) -> np.ndarray:
    """(...) int64, the bin of each confidence in (0, 1]; an edge belongs to the bin below it."""
    return np.searchsorted(EDGES, confidence, side="left") - 1


@dataclass(frozen=True)
class Sums:
    """What calibration needs of the windows of each of n episodes; R runs.

    Attributes:
        windows: (n,) float32 counts.
        count, right: (R, BINS, n) float32 counts of windows by bin, and of those whose most
            probable phase is true.
        gap: (R, BINS, n) float32, `right` less the sum of confidence (`exact`).
        costs: (2, R, n) float32, sums of the Brier score and of the likelihood (`exact`).
        whole_gap, whole_costs: (R, BINS) and (2, R) float64 of all episodes, as they are.
    """

    windows: np.ndarray
    count: np.ndarray
    right: np.ndarray
    gap: np.ndarray
    costs: np.ndarray
    whole_gap: np.ndarray
    whole_costs: np.ndarray

    @classmethod
    def of(cls, p: np.ndarray, truth: np.ndarray, unit: np.ndarray, n: int) -> Sums:
        """Add up windows.

        Args:
            p: (R, n_windows, K) probabilities.
            truth, unit: (n_windows,) integer, index into PHASES, and episode in [0, n).
        """
        by_run = [_sums(run, truth, unit, n) for run in p]
        count, right, gap = (np.stack([run[i] for run in by_run]) for i in range(3))
        costs = np.stack([run[3] for run in by_run], axis=1)
        return cls(
            np.bincount(unit, minlength=n).astype(np.float32),
            count.astype(np.float32),
            right.astype(np.float32),
            exact(gap),
            exact(costs),
            gap.sum(-1),
            costs.sum(-1),
        )


def _sums(p: np.ndarray, truth: np.ndarray, unit: np.ndarray, n: int) -> list[np.ndarray]:
    """Counts, right ones and gaps by bin, (BINS, n) each; Brier score and likelihood, (2, n)."""
    place, said = np.arange(len(p)), p.argmax(1)
    of_truth, confidence = p[place, truth].astype(float), p[place, said].astype(float)
    right = (said == truth).astype(float)
    square = (p.astype(float) ** 2).sum(1) - of_truth**2 + (1 - of_truth) ** 2
    costs = square, -np.log(np.maximum(of_truth, FLOOR))
    cell = bins(confidence) * n + unit
    by_bin = [
        np.bincount(cell, each, minlength=BINS * n).reshape(BINS, n)
        for each in (None, right, right - confidence)
    ]
    return [*by_bin, np.stack([np.bincount(unit, cost, minlength=n) for cost in costs])]


def exact(sums: np.ndarray) -> np.ndarray:
    """(..., n) float32, so rounded that float32 adds them up without an error.

    Each row is in multiples of a power of two, of which it holds 2^22 at most: replicates, which
    draw about as much, depend neither on the order of the terms nor on the number of threads. What
    rounding takes, some 2^-22 of the row's sum over the root of n, is far below a replicate's
    chance.
    """
    most = np.maximum(np.abs(sums).sum(-1, keepdims=True), 1e-300)
    grid = 2.0 ** (np.ceil(np.log2(most)) - 22)
    return np.asarray((np.rint(sums / grid) * grid).astype(np.float32))


# Each with the kind of its interval. The ECE of a sample is larger than that of its population,
# and that of a resample larger still: a percentile interval would often hold neither.
METRICS: Final[dict[str, Kind]] = {"ece": "gap", "brier": "other", "nll": "other"}


@dataclass(frozen=True)
class Calibration:
    """Calibration of R runs, as predicted and, where there is a temperature, scaled by it.

    A family of figures (`families.Family`): `ece`, `brier` and `nll`, then each `_scaled`, then
    each `_change`, scaled less as predicted.

    - ECE, the expected calibration error: the mean over windows of their bin's gap, |accuracy -
      mean confidence|, confidence being the largest probability (Guo et al. 2017). It is
      torchmetrics' `multiclass_calibration_error` with norm l1, but for a confidence of
      exactly 1, which is in the last bin here and in one of its own there.
    - Brier score: squared errors added over phases, in [0, 2], as scikit-learn has it (G. W. Brier,
      Verification of forecasts expressed in terms of probability, 1950).
    - NLL: the mean negative log-likelihood, in nats; a probability counts as `FLOOR` at least.
    """

    before: Sums
    after: Sums | None = None
    told: str = ""

    @property
    def figures(self) -> list[Figure]:
        """In the order of `values`; what is scaled tells its temperature."""
        there = self.before.windows > 0
        named = [("", METRICS, "")]
        if self.after is not None:
            changes: dict[str, Kind] = {
                name: "change of gap" if kind == "gap" else kind for name, kind in METRICS.items()
            }
            named += [("_scaled", METRICS, self.told), ("_change", changes, self.told)]
        n_windows = int(self.before.windows.sum())
        return [
            Figure(SCOPE, KEY, name + suffix, n_windows, there, kind, told=told)
            for suffix, metrics, told in named
            for name, kind in metrics.items()
        ]

    def estimates(self) -> np.ndarray:
        """(F, R) on all episodes."""
        return self._with_changes(_estimates)

    def values(self, drawn: np.ndarray) -> np.ndarray:
        """(F, R, b) under (n, b) weights of the episodes."""
        return self._with_changes(lambda sums: _replicates(sums, drawn))

    def _with_changes(self, metrics: Callable[[Sums], np.ndarray]) -> np.ndarray:
        before = metrics(self.before)
        if self.after is None:
            return before
        after = metrics(self.after)
        return np.concatenate([before, after, after - before])


def _estimates(sums: Sums) -> np.ndarray:
    """(METRICS, R)."""
    whole = [np.abs(sums.whole_gap).sum(1), *sums.whole_costs]
    return np.asarray(np.stack(whole) / sums.windows.sum(dtype=float))


def _replicates(sums: Sums, drawn: np.ndarray) -> np.ndarray:
    """(METRICS, R, b)."""
    drawn = drawn.astype(np.float32, copy=False)
    gap = np.abs(drawn_sums(sums.gap, drawn)).sum(1)
    return np.asarray(np.stack([gap, *drawn_sums(sums.costs, drawn)]) / (sums.windows @ drawn))


def drawn_sums(columns: np.ndarray, drawn: np.ndarray) -> np.ndarray:
    """(..., b) sums of (..., n), in one product: one for each run takes twice as long."""
    product = columns.reshape(-1, columns.shape[-1]) @ drawn
    return np.asarray(product.reshape(*columns.shape[:-1], -1))


@dataclass(frozen=True)
class Reliability:
    """The counts behind a reliability diagram of R runs, for they are added up over seeds.

    A family of figures (`families.Family`): windows of each bin, then those that are right.
    """

    sums: Sums

    @property
    def figures(self) -> list[Figure]:
        """In the order of `values`."""
        there = self.sums.count.sum(0) > 0  # (BINS, n)
        n_windows = self.sums.count.sum((0, 2), dtype=float)
        return [
            Figure(
                "reliability", str(b), metric, int(n_windows[b]), there[b], "share", there[b].sum()
            )
            for metric in ("windows", "right")
            for b in range(BINS)
        ]

    def estimates(self) -> np.ndarray:
        """(2 BINS, R) on all episodes."""
        return self.values(np.ones((len(self.sums.windows), 1), np.float32))[..., 0]

    def values(self, drawn: np.ndarray) -> np.ndarray:
        """(2 BINS, R, b) under (n, b) weights of the episodes."""
        counts = np.stack([drawn_sums(self.sums.count, drawn), drawn_sums(self.sums.right, drawn)])
        return counts.swapaxes(1, 2).reshape(2 * BINS, len(self.sums.count), -1)

    def rows(
        self, values: np.ndarray, entrant: Entrant, strata: Sequence[str]
    ) -> list[dict[str, Any]]:
        """A row a bin, in the columns of `RELIABILITY_SCHEMA` from `bin` on.

        Windows of all seeds count together; an empty bin has no figures.

        Args:
            values: (2 BINS, R, B) replicates, as `families.resample` gives them.
            entrant: whose runs these are.
            strata: of the n episodes.
        """
        figures = self.figures[BINS:]
        drawn = np.stack([entrant.mean_over_seeds(each) for each in values])
        drawn = share(drawn[BINS:], drawn[:BINS])
        gap, (count, right) = self.sums.whole_gap.sum(0), self.estimates().sum(1).reshape(2, BINS)
        rows: list[dict[str, Any]] = []
        for b, can_move in enumerate(moved(figures, strata)):
            row = {"bin": b, "low_edge": EDGES[b], "high_edge": EDGES[b + 1]}
            row |= {"n_windows": figures[b].n_windows, "n_episodes": figures[b].trials}
            if count[b]:
                accuracy = float(right[b] / count[b])
                ends, _ = interval_of(figures[b], accuracy, drawn[b] if can_move else None)
                low, high = ends or (None, None)
                row |= {"confidence": float((right[b] - gap[b]) / count[b]), "accuracy": accuracy}
                row |= {"low": low, "high": high}
            rows.append(row)
        return rows
