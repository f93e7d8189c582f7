"""Which episodes and windows each figure is about, and its value in every replicate.

R runs (a model trained under one seed) are scored on the same n episodes; B replicates; K phases.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np

from cis490.channels import PHASES
from cis490.evaluation.bootstrap import clopper_pearson, episode_weights
from cis490.evaluation.metrics import MEAN_OF, OVERALL, PER_PHASE, Sums, confusion

# The profile of the benign controls: clean throughout, so F1 over phases says nothing there.
CONTROL: Final = "none"
# A window that straddles a border has no one right answer; these mostly do not.
CLEAR_SHARE: Final = 0.8
CLEAR: Final = ("phase_share", f">={CLEAR_SHARE}")
ALL: Final = ("all", "all")


class Row(NamedTuple):
    """One figure: a metric of a scope, and what it rests on."""

    scope: str
    key: str
    metric: str
    n_windows: int
    n_episodes: int


@dataclass(frozen=True)
class Scored:
    """Windows of one part and what each run predicts for them.

    Attributes:
        profile, host: of each of n episodes.
        unit: (n_windows,) the episode of each window, in [0, n).
        truth: (n_windows,) index into PHASES.
        phase_share: (n_windows,) share of the window that its phase covers.
        predicted: (R, n_windows) index into PHASES.
    """

    profile: list[str]
    host: list[str]
    unit: np.ndarray
    truth: np.ndarray
    phase_share: np.ndarray
    predicted: np.ndarray

    def confusion(self, windows: np.ndarray | slice = slice(None)) -> np.ndarray:
        """(R, n, K, K) int64 counts of the chosen windows."""
        unit, truth, n = self.unit[windows], self.truth[windows], len(self.profile)
        return np.stack([confusion(truth, run[windows], unit, n) for run in self.predicted])


@dataclass(frozen=True)
class Cell:
    """The counts behind all figures of one scope.

    Attributes:
        scope, key: as in metrics.parquet.
        metrics: names in OVERALL.
        per_phase: whether the metrics of each phase belong to it too.
        index: (m,) the episodes with windows in this cell.
        tp, predicted: (m, R, K) float64.
        truth: (m, K) float64.
    """

    scope: str
    key: str
    metrics: tuple[str, ...]
    per_phase: bool
    index: np.ndarray
    tp: np.ndarray
    predicted: np.ndarray
    truth: np.ndarray

    @classmethod
    def of(
        cls,
        name: tuple[str, str],
        matrix: np.ndarray,
        chosen: np.ndarray,
        metrics: tuple[str, ...],
        *,
        per_phase: bool = False,
    ) -> Cell:
        """From (R, n, K, K) counts and the (n,) mask of episodes that belong here."""
        truth = matrix[0].sum(-1)
        index = np.flatnonzero(chosen & (truth.sum(-1) > 0))
        counts = Sums.of(matrix[:, index].swapaxes(0, 1))
        return cls(
            *name,
            metrics,
            per_phase,
            index,
            tp=counts.tp.astype(float),
            predicted=counts.predicted.astype(float),
            truth=truth[index].astype(float),
        )

    @property
    def phases(self) -> list[int]:
        """The phases present in the whole truth of this cell, fixed before resampling."""
        return [int(phase) for phase in np.flatnonzero(self.truth.sum(0))]

    def rows(self) -> list[Row]:
        """The figures of this cell, in the order of `values`."""
        n_windows, n_episodes = int(self.truth.sum()), len(self.index)
        rows = [Row(self.scope, self.key, name, n_windows, n_episodes) for name in self.metrics]
        for phase in self.phases if self.per_phase else []:
            windows = int(self.truth[:, phase].sum())
            episodes = int((self.truth[:, phase] > 0).sum())
            rows += [Row("phase", PHASES[phase], name, windows, episodes) for name in PER_PHASE]
        return rows

    def values(self, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Every figure under (b, n) episode weights.

        Returns:
            (rows, b, R) float64 values, NaN where undefined; (rows, b) bool, whether no phase
            had to be skipped for want of truth.
        """
        drawn = weights[:, self.index]
        shape = (len(weights), *self.tp.shape[1:])
        tp = (drawn @ self.tp.reshape(len(self.index), -1)).reshape(shape)
        predicted = (drawn @ self.predicted.reshape(len(self.index), -1)).reshape(shape)
        truth = drawn @ self.truth
        sums = Sums(tp, truth[:, None, :], predicted)
        present = truth > 0
        values = [OVERALL[name](sums, self.phases) for name in self.metrics]
        valid = [
            present[:, self.phases].all(-1) if name in MEAN_OF else present.any(-1)
            for name in self.metrics
        ]
        if self.per_phase:
            by_phase = [metric(sums) for metric in PER_PHASE.values()]
            for phase in self.phases:
                values += [metric[..., phase] for metric in by_phase]
                valid += [present[:, phase]] * len(by_phase)
        return np.stack(values), np.stack(valid)

    def episodes(self, row: Row) -> np.ndarray:
        """(row.n_episodes,) the episodes that a figure rests on."""
        if row.metric in PER_PHASE:
            return self.index[self.truth[:, PHASES.index(row.key)] > 0]
        return self.index

    def exact_interval(self, row: Row, runs: Sequence[int], estimate: float) -> tuple[float, float]:
        """Clopper-Pearson interval of a figure that is exactly 0 or 1.

        Resampling cannot move such a figure, so its percentile interval would be [0, 0]. Trials
        are episodes, not windows: those of one episode may all agree. F1 = 2J / (1 + J) takes
        that of J, the share of windows of a phase or predicted as it that are both; a macro
        metric takes the mean of its phases' ends.
        """
        every = bool(estimate > 0)
        if row.metric in MEAN_OF:
            ends = [self._phase_interval(MEAN_OF[row.metric], p, runs, every) for p in self.phases]
            low, high = np.mean(ends, axis=0)
            return float(low), float(high)
        if row.metric in PER_PHASE:
            return self._phase_interval(row.metric, PHASES.index(row.key), runs, every)
        n = row.n_episodes
        return clopper_pearson(n if every else 0, n)

    def _phase_interval(
        self, metric: str, phase: int, runs: Sequence[int], every: bool
    ) -> tuple[float, float]:
        true = self.truth[:, phase] > 0
        said = (self.predicted[:, list(runs), phase] > 0).any(1)
        n = int({"f1": true | said, "precision": said, "recall": true}[metric].sum())
        low, high = clopper_pearson(n if every else 0, n)
        return (2 * low / (1 + low), 2 * high / (1 + high)) if metric == "f1" else (low, high)


def cells(scored: Scored) -> list[Cell]:
    """All cells of one part: everything, clear windows, each profile, each host."""
    profile, host = np.asarray(scored.profile), np.asarray(scored.host)
    everything = np.ones(len(profile), dtype=bool)
    matrix = scored.confusion()
    clear = scored.confusion(scored.phase_share >= CLEAR_SHARE)
    overall = ("macro_f1", "macro_recall", "accuracy")
    found = [
        Cell.of(ALL, matrix, everything, overall, per_phase=True),
        Cell.of(CLEAR, clear, everything, ("macro_f1",)),
    ]
    for name in sorted(set(scored.profile)):
        metric = "false_alarm_rate" if name == CONTROL else "macro_f1"
        found.append(Cell.of(("profile", name), matrix, profile == name, (metric,)))
    for name in sorted(set(scored.host)):
        found.append(Cell.of(("host", name), matrix, host == name, ("macro_f1",)))
    return [cell for cell in found if len(cell.index)]


@dataclass(frozen=True)
class Replicated:
    """Every figure, once on all episodes and in every replicate.

    Attributes:
        rows: F figures and the cell each comes from.
        estimates: (F, R).
        replicates: (F, R, B).
        n_valid: (F,) replicates in which no phase was skipped.
        resampled: (F,) whether resampling can move the figure at all.
    """

    rows: list[tuple[Row, Cell]]
    estimates: np.ndarray
    replicates: np.ndarray
    n_valid: np.ndarray
    resampled: np.ndarray


def replicate(scored: Scored, replicates: int) -> Replicated:
    """Score every figure in every replicate; all runs share the replicates' episodes."""
    found = cells(scored)
    rows = [(row, cell) for cell in found for row in cell.rows()]
    once = np.ones((1, len(scored.profile)))
    estimates = np.concatenate([cell.values(once)[0][:, 0] for cell in found])
    drawn = np.empty((len(rows), len(scored.predicted), replicates))
    n_valid = np.zeros(len(rows), dtype=np.int64)
    start = 0
    for weights in episode_weights(scored.profile, replicates):
        values, valid = zip(*(cell.values(weights) for cell in found), strict=True)
        stop = start + len(weights)
        drawn[:, :, start:stop] = np.concatenate(values).swapaxes(1, 2)
        n_valid += np.concatenate(valid).sum(1)
        start = stop
    strata, sizes = np.unique(scored.profile, return_counts=True)
    alone = np.isin(scored.profile, strata[sizes == 1])
    resampled = [row.n_episodes > 1 and not alone[cell.episodes(row)].all() for row, cell in rows]
    return Replicated(rows, estimates, drawn, n_valid, np.array(resampled, dtype=bool))
