"""Which episodes and windows each figure is about, and its value in every replicate.

R runs (a model trained under one seed) are scored on the same n episodes; B replicates; K phases.
A replicate only adds counts of episodes up: one matrix product for all runs of a cell.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice, pairwise
from typing import Final, NamedTuple

import numpy as np

from cis490.channels import PHASES
from cis490.evaluation.bootstrap import (
    clopper_pearson,
    episode_weights,
    jackknife_influence,
    jackknife_sums,
)
from cis490.evaluation.metrics import MEAN_OF, OVERALL, PER_PHASE, Sums, confusion
from cis490.logs import logger

# The profile of the benign controls: clean throughout, so F1 over phases says nothing there.
CONTROL: Final = "none"
# A window that straddles a border has no one right answer; these mostly do not.
CLEAR_SHARE: Final = 0.8
CLEAR: Final = ("phase_share", f">={CLEAR_SHARE}")
ALL: Final = ("all", "all")
COMPARED: Final = "macro_f1"
# Whose background is known to be nothing; an unknown one is in no cell.
NO_BACKGROUND: Final = "none"
# Names are the store's; each costs rows for every run.
MOST_KEYS: Final = 256
# float32 holds whole numbers up to here; where there are many episodes it halves the time of the
# products, and where there are few it costs a conversion.
_EXACT: Final = 1 << 24
_MANY: Final = 1 << 10
# Episodes in a piece of `_Together`, at least, on average.
_OF_A_PIECE: Final = 32
# Weights of replicates that are worked on at once: 1,000 replicates of 44 episodes.
_DRAWN: Final = 44_000
# Replicates of a group of cells that are held at once, in bytes.
HELD: Final = 1 << 28


class Row(NamedTuple):
    """One figure: a metric of a scope, and what it rests on."""

    scope: str
    key: str
    metric: str
    n_windows: int
    n_episodes: int

    @property
    def n(self) -> tuple[int, int]:
        """Windows and episodes."""
        return self.n_windows, self.n_episodes


@dataclass(frozen=True)
class Scored:
    """Windows of one part and what each run predicts for them.

    Attributes:
        profile, host: of each of n episodes; the profile is the stratum.
        unit: (n_windows,) the episode of each window, in [0, n).
        truth: (n_windows,) index into `labels`.
        phase_share: (n_windows,) share of the window that its phase covers.
        predicted: (R, n_windows) index into `labels`.
        sample, status: of each of n episodes; empty: not known of any, and not broken down.
        background: the benign works of each of n episodes, None where not known; empty as above.
        labels: the K phases.
    """

    profile: list[str]
    host: list[str]
    unit: np.ndarray
    truth: np.ndarray
    phase_share: np.ndarray
    predicted: np.ndarray
    sample: Sequence[str] = ()
    status: Sequence[str] = ()
    background: Sequence[Sequence[str] | None] = ()
    labels: Sequence[str] = PHASES

    def confusion(self, runs: Sequence[int]) -> np.ndarray:
        """(len(runs), n, K, K) int64 counts of some runs."""
        n, k = len(self.profile), len(self.labels)
        return np.stack([confusion(self.truth, self.predicted[r], self.unit, n, k) for r in runs])

    def counts(self, windows: np.ndarray | None = None) -> Counts:
        """The counts of each episode, of all windows or of the chosen ones."""
        unit, truth, predicted = self.unit, self.truth, self.predicted
        if windows is not None:
            unit, truth, predicted = unit[windows], truth[windows], predicted[:, windows]
        return Counts.of(unit, truth, predicted, len(self.profile), len(self.labels))


@dataclass(frozen=True)
class Counts:
    """Windows of each episode by phase: all that a figure is computed from.

    Attributes:
        table: (n, 2 K R + K): of each episode by phase and run the windows that are rightly
            predicted so, then those that are predicted so, then by phase those that are so.
            Of many episodes float32, if that is exact for any replicate.
        n_runs: R.
        k: K.
    """

    table: np.ndarray
    n_runs: int
    k: int

    @classmethod
    def of(
        cls, unit: np.ndarray, truth: np.ndarray, predicted: np.ndarray, n: int, k: int
    ) -> Counts:
        """Count (n_windows,) truths and (R, n_windows) predictions by their (n_windows,) unit."""

        def by_episode(phase: np.ndarray, unit: np.ndarray) -> np.ndarray:
            return np.bincount(unit * k + phase, minlength=n * k).reshape(n, k)

        unit = unit.astype(np.int64)
        true = by_episode(truth, unit)
        most = int(true.sum(1).max(initial=0)) * n
        runs = len(predicted)
        dtype = np.float32 if n > _MANY and most < _EXACT else np.float64
        table = np.empty((n, 2 * k * runs + k), dtype)
        found = table[:, : 2 * k * runs].reshape(n, 2, k, runs)
        for r, run in enumerate(predicted):
            right = run == truth
            found[:, 0, :, r] = by_episode(truth[right], unit[right])
            found[:, 1, :, r] = by_episode(run, unit)
        table[:, 2 * k * runs :] = true
        return cls(table, runs, k)

    @property
    def truth(self) -> np.ndarray:
        """(n, K) windows of each phase."""
        return self.table[:, 2 * self.k * self.n_runs :]

    @property
    def predicted(self) -> np.ndarray:
        """(n, K, R) windows predicted as each phase."""
        own = self.table[:, self.k * self.n_runs : 2 * self.k * self.n_runs]
        return own.reshape(len(own), self.k, self.n_runs)

    def sums(self, columns: np.ndarray) -> Sums:
        """From (2 K R + K, b) sums over episodes: (R, b, K) float64, (1, b, K) of the truth.

        Phases lie apart in memory, as `metrics` likes it.
        """
        b = columns.shape[1]
        whole = columns.astype(np.float64, copy=False)
        tp, predicted = whole[: 2 * self.k * self.n_runs].reshape(2, self.k, self.n_runs, b)
        truth = whole[2 * self.k * self.n_runs :].reshape(self.k, 1, b)
        return Sums(*(each.transpose(1, 2, 0) for each in (tp, truth, predicted)))


@dataclass(frozen=True)
class Cell:
    """The counts behind all figures of one scope.

    Attributes:
        scope, key: as in metrics.parquet.
        metrics: names in OVERALL.
        counts: of all n episodes.
        index: (m,) the episodes with windows in this cell.
        per_phase: whether the metrics of each phase belong to it too.
        labels: the K phases.
        phases: those present in the whole truth of this cell, fixed before resampling.
    """

    scope: str
    key: str
    metrics: tuple[str, ...]
    counts: Counts
    index: np.ndarray
    per_phase: bool = False
    labels: Sequence[str] = PHASES
    phases: list[int] = field(init=False)

    def __post_init__(self) -> None:
        present = np.flatnonzero(self._truth.sum(0))
        object.__setattr__(self, "phases", present.tolist())

    @classmethod
    def of(
        cls,
        name: tuple[str, str],
        counts: Counts,
        chosen: np.ndarray,
        metrics: tuple[str, ...] = (COMPARED,),
        *,
        per_phase: bool = False,
        labels: Sequence[str] = PHASES,
    ) -> Cell:
        """Of the episodes in the (n,) mask that have windows among the counted ones."""
        index = np.flatnonzero(chosen & (counts.truth.sum(-1) > 0))
        return cls(*name, metrics, counts, index, per_phase, labels)

    @property
    def _truth(self) -> np.ndarray:
        """(m, K) windows of each phase."""
        return np.asarray(self.counts.truth[self.index], dtype=np.float64)

    def rows(self) -> list[Row]:
        """The figures of this cell, in the order of `values`."""
        truth = self._truth
        n_windows, n_episodes = int(truth.sum()), len(self.index)
        rows = [Row(self.scope, self.key, name, n_windows, n_episodes) for name in self.metrics]
        for phase in self.phases if self.per_phase else []:
            windows, episodes = int(truth[:, phase].sum()), int((truth[:, phase] > 0).sum())
            rows += [
                Row("phase", self.labels[phase], name, windows, episodes) for name in PER_PHASE
            ]
        return rows

    def values(self, weights: np.ndarray) -> tuple[list[np.ndarray], list[np.ndarray]]:
        """Every figure under (b, n) episode weights.

        Returns:
            Of each row (R, b) float64 values, NaN where undefined; and (b,) bool, whether no phase
            had to be skipped for want of truth.
        """
        table, drawn = self.counts.table, weights.T
        if len(self.index) < len(table):
            table, drawn = table[self.index], drawn[self.index]
        return self.figures(table.T @ drawn)

    def figures(self, columns: np.ndarray) -> tuple[list[np.ndarray], list[np.ndarray]]:
        """As `values`, from (2 K R + K, b) sums of the counts of this cell's episodes."""
        sums = self.counts.sums(columns)
        present = sums.truth[0] > 0
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
        return values, valid

    def influence(self, metric: str, strata: Sequence[str]) -> np.ndarray:
        """What each episode contributes to a metric of OVERALL (`jackknife_influence`).

        Episodes outside the cell count too: leaving one out lets the cell's own weigh more.

        Args:
            metric: in OVERALL.
            strata: of all n episodes.

        Returns:
            (R, n) float64; NaN in a stratum where the figure cannot do without an episode.
        """
        table = self.counts.table
        if len(self.index) < len(table):
            table = np.zeros_like(table)
            table[self.index] = self.counts.table[self.index]
        left_out = np.zeros((self.counts.n_runs, len(table)))
        for some, sums in jackknife_sums(table, strata):
            columns = np.ascontiguousarray(sums.T)
            left_out[:, some] = OVERALL[metric](self.counts.sums(columns), self.phases)
        return jackknife_influence(left_out, strata)

    def episodes(self, row: Row) -> np.ndarray:
        """(row.n_episodes,) the episodes that a figure rests on."""
        if row.metric in PER_PHASE:
            return self.index[self._truth[:, self.labels.index(row.key)] > 0]
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
            return self._phase_interval(row.metric, self.labels.index(row.key), runs, every)
        n = row.n_episodes
        return clopper_pearson(n if every else 0, n)

    def _phase_interval(
        self, metric: str, phase: int, runs: Sequence[int], every: bool
    ) -> tuple[float, float]:
        true = self._truth[:, phase] > 0
        said = (self.counts.predicted[self.index][:, phase, list(runs)] > 0).any(1)
        n = int({"f1": true | said, "precision": said, "recall": true}[metric].sum())
        low, high = clopper_pearson(n if every else 0, n)
        return (2 * low / (1 + low), 2 * high / (1 + high)) if metric == "f1" else (low, high)


def cells(scored: Scored) -> list[Cell]:
    """All cells of one part, everything first.

    Clear windows; each profile, sample (`profile/sample`), host, status (accepted or degraded) and
    benign work in the background. An episode with two works is in the cells of both. Of controls
    the figure is their false-alarm rate, in the cell of a work beside macro F1 of all its episodes.
    Of more than `MOST_KEYS` of a kind those with the most episodes, and the log says so.
    """
    n = len(scored.profile)
    counts = scored.counts()
    overall = ("macro_f1", "macro_recall", "accuracy")
    everything = np.ones(n, dtype=bool)
    labels = scored.labels
    found = [Cell.of(ALL, counts, everything, overall, per_phase=True, labels=labels)]
    clear = scored.counts(scored.phase_share >= CLEAR_SHARE)
    found.append(Cell.of(CLEAR, clear, everything, labels=labels))
    control = np.asarray(scored.profile) == CONTROL
    alarms = ("false_alarm_rate",)
    for scope, names in _partitions(scored).items():
        for key, chosen in _masks(scope, names):
            controls = scope in ("profile", "sample") and bool(control[chosen].any())
            metrics = alarms if controls else (COMPARED,)
            found.append(Cell.of((scope, key), counts, chosen, metrics, labels=labels))
            if scope == "background":
                name = (scope, key)
                found.append(Cell.of(name, counts, chosen & control, alarms, labels=labels))
    return [cell for cell in found if len(cell.index)]


def _partitions(scored: Scored) -> dict[str, list[tuple[str, ...]]]:
    """By scope, the keys of each episode."""
    samples = zip(scored.profile, scored.sample, strict=False)
    found: dict[str, list[tuple[str, ...]]] = {
        "profile": [(name,) for name in scored.profile],
        "host": [(name,) for name in scored.host],
        "sample": [(f"{profile}/{sample}",) for profile, sample in samples],
        "status": [(name,) for name in scored.status],
        "background": [
            () if works is None else tuple(dict.fromkeys(works)) or (NO_BACKGROUND,)
            for works in scored.background
        ],
    }
    return {scope: keys for scope, keys in found.items() if keys}


def _masks(scope: str, keys: Sequence[tuple[str, ...]]) -> Iterator[tuple[str, np.ndarray]]:
    """Each key with the (n,) mask of its episodes, sorted."""
    own: dict[str, list[int]] = {}
    for i, names in enumerate(keys):
        for name in names:
            own.setdefault(name, []).append(i)
    kept = sorted(own, key=lambda name: (-len(own[name]), name))[:MOST_KEYS]
    if len(kept) < len(own):
        logger.warning("by %s: %d of %d, those with the most episodes", scope, MOST_KEYS, len(own))
    for name in sorted(kept):
        chosen = np.zeros(len(keys), dtype=bool)
        chosen[own[name]] = True
        yield name, chosen


@dataclass(frozen=True)
class Replicated:
    """Every figure of some cells, once on all episodes and in every replicate.

    Attributes:
        rows: F figures and the cell each comes from.
        estimates: (F, R).
        replicates: (F, R, B).
        n_valid: (F,) replicates in which no phase was skipped.
        resampled: (F,) whether resampling can move the figure at all.
        strata: the profile of each of n episodes.
    """

    rows: list[tuple[Row, Cell]]
    estimates: np.ndarray
    replicates: np.ndarray
    n_valid: np.ndarray
    resampled: np.ndarray
    strata: Sequence[str]

    def find(self, scope: str, key: str, metric: str) -> int | None:
        """The position of a figure; None if it is not here."""
        names = [(row.scope, row.key, row.metric) for row, _ in self.rows]
        return names.index((scope, key, metric)) if (scope, key, metric) in names else None


class _Together:
    """Cells over the same windows, summed at once: in disjoint pieces, from which cells are added.

    A cell of one profile, one of one host and that of everything share most of their episodes.
    Episodes that are in the same cells make a piece. Whole numbers are added, so this gives the
    same bits as a product for each cell; where pieces are small it would take longer, and each
    cell is summed by itself.
    """

    def __init__(self, cells: Sequence[Cell]) -> None:
        self.cells = cells
        table = cells[0].counts.table
        member = np.zeros((len(cells), len(table)), dtype=bool)
        for i, cell in enumerate(cells):
            member[i, cell.index] = True
        pieces, piece = np.unique(member, axis=1, return_inverse=True)
        self.order: np.ndarray | None = None
        if len(table) < _OF_A_PIECE * pieces.shape[1]:
            return
        self.order = np.argsort(piece, kind="stable")
        self.table = table[self.order]
        ends = np.cumsum(np.bincount(piece))
        self.slices = [slice(*ends_of) for ends_of in pairwise([0, *ends.tolist()])]
        self.pieces = [np.flatnonzero(row).tolist() for row in pieces]

    def values(self, weights: np.ndarray) -> Iterator[tuple[list[np.ndarray], list[np.ndarray]]]:
        """`Cell.values` of each cell."""
        if self.order is None:
            yield from (cell.values(weights) for cell in self.cells)
            return
        drawn = weights.T[self.order]
        sums = [self.table[piece].T @ drawn[piece] for piece in self.slices]
        for cell, own in zip(self.cells, self.pieces, strict=True):
            yield cell.figures(sum((sums[i] for i in own[1:]), start=sums[own[0]]))


def _together(found: Sequence[Cell]) -> list[_Together]:
    """Cells of the same counts; works apart, for their pieces cross those of all other cells."""
    groups: dict[tuple[int, bool], list[Cell]] = {}
    for cell in found:
        groups.setdefault((id(cell.counts), cell.scope == "background"), []).append(cell)
    return [_Together(cells) for cells in groups.values()]


def _joined(blocks: Iterator[np.ndarray]) -> Iterator[np.ndarray]:
    """Blocks of weights, some together where there are few episodes: fewer and longer steps."""
    for block in blocks:
        more = max(1, _DRAWN // block.size) - 1
        yield np.concatenate([block.T, *(each.T for each in islice(blocks, more))], axis=1).T


def replicate(scored: Scored, replicates: int, chosen: Sequence[Cell] | None = None) -> Replicated:
    """Score every figure of the chosen cells, or of all, in every replicate.

    All runs share the replicates' episodes, and so do calls for other cells.
    """
    groups = _together(cells(scored) if chosen is None else chosen)
    found = [cell for group in groups for cell in group.cells]
    rows = [(row, cell) for cell in found for row in cell.rows()]
    dtype = np.result_type(np.float32, *(cell.counts.table.dtype for cell in found))
    once = np.ones((1, len(scored.profile)), dtype)
    estimates = np.array([figure[:, 0] for cell in found for figure in cell.values(once)[0]])
    drawn = np.empty((len(rows), len(scored.predicted), replicates))
    n_valid = np.zeros(len(rows), dtype=np.int64)
    start = 0
    for weights in _joined(episode_weights(scored.profile, replicates, dtype=dtype)):
        stop, f = start + len(weights), 0
        for of_cell in (of_cell for group in groups for of_cell in group.values(weights)):
            for values, valid in zip(*of_cell, strict=True):
                drawn[f, :, start:stop] = values
                n_valid[f] += valid.sum()
                f += 1
        start = stop
    sizes = {name: scored.profile.count(name) for name in set(scored.profile)}
    alone = np.array([sizes[name] == 1 for name in scored.profile])
    resampled = [row.n_episodes > 1 and not alone[cell.episodes(row)].all() for row, cell in rows]
    return Replicated(
        rows, estimates, drawn, n_valid, np.array(resampled, dtype=bool), scored.profile
    )


def in_groups(found: Sequence[Cell], replicates: int) -> Iterator[list[Cell]]:
    """Split cells so that the replicates of a group take at most `HELD` bytes, or are one cell's.

    A store of many hosts and samples then needs no more memory, only another draw of the episodes.
    """
    group: list[Cell] = []
    held = 0
    for cell in found:
        own = len(cell.rows()) * cell.counts.n_runs * replicates * 8
        if group and held + own > HELD:
            yield group
            group, held = [], 0
        group.append(cell)
        held += own
    if group:
        yield group
