"""The best single feature, cut at a few thresholds: what one number can tell, as company."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from cis490.models.base import Classifier, Columns
from cis490.models.measured import history_row, measured
from cis490.models.options import Presets
from cis490.models.views import WindowView
from cis490.models.weights import class_weights
from cis490.training.run import Run


@dataclass(frozen=True)
class _Ready:
    """What every seed is fitted to."""

    X: np.ndarray
    y: np.ndarray
    validation: tuple[np.ndarray | WindowView, np.ndarray] | None
    columns: Columns


class Threshold(Classifier):
    """One feature, cut into bins at quantiles of training, and a class for each bin.

    Of each feature the classes are so chosen that training macro F1 is highest, from each bin's
    most frequent class, classes weighted, by changing one bin at a time for as long as macro F1
    rises; of all features the one with the highest macro F1 is taken, of equals the first. A
    missing value has a bin of its own. A source of `source_dropout` counts as hidden by its chance.

    Probabilities are the weighted class frequencies of a window's bin, a half added to each class
    that training has; where the bin's class is not the most frequent one, the two exchange theirs.
    It learns from at most `cases` windows, drawn at random by the seed; with fewer all seeds give
    the same model. `embed` gives the feature, 0 where missing, and whether it was measured.

    Options: `bins` at most, beside that of missing values, and `cases` to learn from, at most.
    """

    tabular = True
    weighing = "weighted"
    presets: ClassVar[Presets] = {
        "small": {"bins": 8, "cases": 65536},
        "large": {"bins": 16, "cases": 65536},
    }

    _feature: int
    _cuts: np.ndarray  # at most (bins - 1,) float64, ascending; what equals one lies above it
    _probabilities: np.ndarray  # (bins + 1, n_classes) float64, of each bin; missing comes last

    def _prepare(
        self,
        X: np.ndarray | WindowView,
        y: np.ndarray,
        validation: tuple[np.ndarray | WindowView, np.ndarray] | None,
        columns: Columns,
        run: Run,  # noqa: ARG002
    ) -> _Ready:
        assert isinstance(X, np.ndarray)
        return _Ready(X, y, validation, columns)

    def _fit(self, data: _Ready, run: Run) -> None:
        X, y, most = data.X, data.y, self.options["cases"]
        if len(y) > most:
            drawn = np.random.default_rng(self.seed).choice(len(y), most, replace=False)
            X, y = X[drawn], y[drawn]
        weights = class_weights(y, self.n_classes)
        cuts, counts = self._counted(X, y, data.columns)
        labels, f1 = assigned(counts, weights)
        self._feature = int(f1.argmax())
        self._cuts = cuts[self._feature]
        self._probabilities = _told(counts[self._feature], labels[self._feature], weights)
        loss, _ = measured(self._predict_proba(X), y, weights)
        val = None
        if data.validation is not None:
            X_val, y_val = data.validation
            val = measured(self._predict_proba(X_val), y_val, weights)
        self.history, self.best_epoch = [history_row(1, loss, val)], 1
        run.listen(self.history[0])

    @property
    def max_epochs(self) -> int:
        """It is fitted at once."""
        return 1

    def _counted(
        self, X: np.ndarray, y: np.ndarray, columns: Columns
    ) -> tuple[list[np.ndarray], np.ndarray]:
        """Cuts of each feature, and windows by bin and class: (n_features, bins + 1, n_classes)."""
        bins, k = self.options["bins"], self.n_classes
        chance = np.zeros(X.shape[1])
        for source, members in columns.groups.items():
            chance[list(members)] = self.settings.source_dropout.get(source, 0.0)
        cuts, counts = [], np.empty((X.shape[1], bins + 1, k))
        for j, column in enumerate(X.T):
            there = column[~np.isnan(column)]
            inner = np.arange(1, bins) / bins
            cuts.append(np.unique(np.quantile(there, inner)) if len(there) else there)
            cell = _bins(column, cuts[j], bins) * k + y
            counts[j] = np.bincount(cell, minlength=(bins + 1) * k).reshape(bins + 1, k)
            (hidden,) = _bins(columns.absent[j : j + 1], cuts[j], bins)
            of_all = counts[j].sum(0)
            counts[j] *= 1 - chance[j]
            counts[j, hidden] += chance[j] * of_all
        return cuts, counts

    def _predict_proba(self, X: np.ndarray | WindowView) -> np.ndarray:
        assert isinstance(X, np.ndarray)
        place = _bins(X[:, self._feature], self._cuts, self.options["bins"])
        return np.asarray(self._probabilities[place])

    def _embed(self, X: np.ndarray | WindowView) -> np.ndarray:
        assert isinstance(X, np.ndarray)
        value = X[:, self._feature]
        return np.stack([np.nan_to_num(value), ~np.isnan(value)], axis=1)

    @property
    def embedding_size(self) -> int:
        """The feature, and whether it was measured."""
        return 2

    @property
    def n_parameters(self) -> int:
        """Which feature, its cuts and the probabilities of its bins."""
        return 1 + self._cuts.size + self._probabilities.size

    def _arrays(self) -> dict[str, np.ndarray]:
        return {
            "feature": np.array([self._feature]),
            "cuts": self._cuts,
            "probabilities": self._probabilities,
        }

    def _restore(self, arrays: Mapping[str, np.ndarray]) -> None:
        self._feature = int(arrays["feature"][0])
        self._cuts, self._probabilities = arrays["cuts"], arrays["probabilities"]


def _bins(values: np.ndarray, cuts: np.ndarray, bins: int) -> np.ndarray:
    """(n,) int64: the bin of each value, the last (`bins`) where it is missing."""
    return np.where(np.isnan(values), bins, np.searchsorted(cuts, values, side="right"))


def assigned(counts: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The class of each bin of each feature, and the macro F1 that they have together.

    Args:
        counts: (n_features, n_bins, n_classes) windows.
        weights: (n_classes,) of the classes, 0 for one without windows.

    Returns:
        (n_features, n_bins) int64 and (n_features,) float64.
    """
    labels = (counts * weights).argmax(2)
    f1 = _macro_f1(counts, labels)
    improved = True
    while improved:
        improved = False
        for b, k in np.ndindex(counts.shape[1:]):
            changed = labels.copy()
            changed[:, b] = k
            score = _macro_f1(counts, changed)
            better = score > f1 + 1e-12
            labels[better], f1[better] = changed[better], score[better]
            improved |= bool(better.any())
    return labels, f1


def _macro_f1(counts: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """(n_features,) macro F1 of saying `labels` (n_features, n_bins)."""
    said = labels[:, :, None] == np.arange(counts.shape[2])
    right = (counts * said).sum(1)
    predicted, truth = (counts.sum(2, keepdims=True) * said).sum(1), counts.sum(1)
    present = truth[0] > 0
    return np.asarray((2 * right / np.maximum(truth + predicted, 1e-300))[:, present].mean(1))


def _told(counts: np.ndarray, labels: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Probabilities (n_bins, n_classes) of each bin; one without windows is like all together."""
    empty = counts.sum(1) == 0
    filled = np.where(empty[:, None], counts.sum(0), counts)
    weighted = (filled + 0.5) * weights
    told = weighted / weighted.sum(1, keepdims=True)
    rows = np.flatnonzero(~empty)
    largest = told[rows].argmax(1)
    told[rows, largest], told[rows, labels[rows]] = told[rows, labels[rows]], told[rows, largest]
    return np.asarray(told)
