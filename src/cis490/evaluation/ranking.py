"""How well infected windows are told from clean ones: by scores alone, and once they are called.

Positive are windows whose phase is one of ALARM_PHASES, negative the clean ones; armed is left out.
R runs of one model on n episodes; b replicates. Windows are counted in groups of equal score, so
that a replicate only sums counts and a score is sorted once.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from scipy.sparse import csc_array

from cis490.evaluation.alarms import Windows, spaced_ranks
from cis490.evaluation.families import Figure, share

FALSE_POSITIVE_RATES: Final = (0.05, 0.01, 0.001)
BASE_RATES: Final = (0.01, 0.001, 0.0001)
# A rate below NEEDED / n is not measurable (docs/statistics.md).
NEEDED: Final = 10
# Positive windows fall into so many groups at most, where there are more scores than that.
_POSITIVE_GROUPS: Final = 512


def without_threshold(positive: np.ndarray, negative: np.ndarray) -> np.ndarray:
    """PR-AUC, ROC-AUC, and the TPR at each of FALSE_POSITIVE_RATES.

    PR-AUC is average precision, a sum of steps, and ROC-AUC counts a tie one half, both as
    scikit-learn defines them. The TPR at a rate is the highest of all thresholds whose FPR is at
    most that, 0 if even the highest score has too many negatives; nothing is interpolated.

    Args:
        positive, negative: (groups, b) windows of each score, the highest score first.

    Returns:
        (F, b) in [0, 1], of the arguments' dtype; NaN without a positive or without a negative.
    """
    hits, false = positive.cumsum(0), negative.cumsum(0)
    p, n = hits[-1], false[-1]
    precision = hits / np.maximum(hits + false, 1)
    below = np.einsum("gb,gb->b", hits, negative) - np.einsum("gb,gb->b", positive, negative) / 2
    found = [np.einsum("gb,gb->b", positive, precision) * n, below]
    for rate in FALSE_POSITIVE_RATES:
        # The product is a whole number at times, but for rounding.
        allowed = (false <= rate * n * (1 + 1e-6)).sum(0)
        reached = np.take_along_axis(hits, np.maximum(allowed - 1, 0)[None], axis=0)[0]
        found.append(np.where(allowed > 0, reached, 0) * n)
    return share(np.stack(found), p * n)


def mcc(tp: np.ndarray, fp: np.ndarray, p: np.ndarray, n: np.ndarray) -> np.ndarray:
    """Matthews correlation of p positive and n negative windows, tp and fp of them called positive.

    0 where it is not defined, as in scikit-learn; NaN without a positive or without a negative.
    """
    said = tp + fp
    spread = said * (p + n - said) * p * n
    root = np.sqrt(spread, dtype=np.float64)
    value = np.divide(tp * n - fp * p, root, out=np.zeros(spread.shape), where=spread > 0)
    return np.where((p > 0) & (n > 0), value, np.nan)


def precision_at(base_rate: float, tpr: np.ndarray, fpr: np.ndarray) -> np.ndarray:
    """Precision where `base_rate` of all windows are infected; NaN where nothing is called so.

    It takes for granted that only the shares of clean and infected windows change, and what the
    detector says of either does not (prior shift).
    """
    right = base_rate * tpr
    return share(right, right + (1 - base_rate) * fpr)


class Ranking:
    """Figures without a threshold: PR-AUC, ROC-AUC and TPR at a FPR (`families.Family`).

    Args:
        scores: (R, n_windows) alarm scores.
        windows: what they are of; needs a positive and a negative one.
    """

    def __init__(self, scores: np.ndarray, windows: Windows) -> None:
        chosen = windows.positive | windows.negative
        positive, unit = windows.positive[chosen], windows.unit[chosen]
        self._runs = [
            _Groups.of(score[chosen], positive, unit, windows.n_episodes) for score in scores
        ]
        self._n_negative = int(windows.negative.sum())
        groups = max(run.n_groups for run in self._runs)
        told = f"|groups={groups}" if any(run.merged for run in self._runs) else ""
        infected, clean = windows.with_any(windows.positive), windows.with_any(windows.negative)
        n = int(chosen.sum()), infected | clean
        fewer = int(min(infected.sum(), clean.sum()))
        self.figures = [
            Figure("ranking", "all", "pr_auc", *n, "share", fewer, told=told),
            Figure("ranking", "all", "roc_auc", *n, "share", fewer, told=told),
        ] + [
            Figure(
                "ranking", f"{rate:g}", "tpr_at_fpr", *n, "share", int(infected.sum()), told=told
            )
            for rate in FALSE_POSITIVE_RATES
        ]

    def estimates(self) -> np.ndarray:
        """(F, R) float64; a TPR at a rate below 10/n is not measurable."""
        found = np.stack([run.exact for run in self._runs], axis=1)
        for i, rate in enumerate(FALSE_POSITIVE_RATES, start=2):
            if rate * self._n_negative < NEEDED:
                found[i] = np.nan
        return found

    def values(self, drawn: np.ndarray) -> np.ndarray:
        """(F, R, b) under (n, b) weights of the episodes."""
        return np.stack([run.values(drawn) for run in self._runs], axis=1)


@dataclass(frozen=True)
class _Groups:
    """The windows of one run by score, the highest first, in groups that a replicate looks at.

    Neighbours among which nothing can change are one group. Where there are more than a replicate
    can look at, they are put together further: never more than a hundredth apart in rank among
    negatives, nor 1/512 of the positives. Replicates are then moved by what that costs on all
    episodes.

    Attributes:
        positive, negative: (groups, n) windows of each episode.
        exact: (F,) figures on all episodes, from all scores.
        shift: (F,) exact minus what the groups give.
        merged: whether scores were put together that differ in what they can change.
    """

    positive: csc_array
    negative: csc_array
    exact: np.ndarray
    shift: np.ndarray
    merged: bool

    @classmethod
    def of(cls, score: np.ndarray, positive: np.ndarray, unit: np.ndarray, n: int) -> _Groups:
        _, place = np.unique(-score, return_inverse=True)
        kinds = positive, ~positive
        exact = without_threshold(*(np.bincount(place, kind)[:, None] for kind in kinds))[:, 0]
        needed = _needed(*(np.bincount(place, kind) for kind in kinds))
        group = np.searchsorted(needed, place)
        last = _spaced(*(np.bincount(group, kind) for kind in kinds))
        group = np.searchsorted(last, group)
        grouped = without_threshold(*(np.bincount(group, kind)[:, None] for kind in kinds))[:, 0]
        matrices = [  # by episode: a product then reads each one's weights once
            csc_array((np.ones(kind.sum(), np.float32), (group[kind], unit[kind])), (len(last), n))
            for kind in kinds
        ]
        merged = len(last) < len(needed)
        return cls(matrices[0], matrices[1], exact, exact - grouped, merged)

    @property
    def n_groups(self) -> int:
        """Number of groups."""
        return int(self.positive.shape[0])

    def values(self, drawn: np.ndarray) -> np.ndarray:
        """(F, b)."""
        found = without_threshold(self.positive @ drawn, self.negative @ drawn)
        return np.asarray(np.clip(found + self.shift[:, None], 0, 1))


def _needed(positive: np.ndarray, negative: np.ndarray) -> np.ndarray:
    """Where groups must end, from the (n_scores,) windows of each score, the highest first.

    No figure depends on the order of negatives between two positives, nor on that of positives
    above all negatives: they are right at any threshold.
    """
    only_negative = positive == 0
    same = (only_negative[1:] & only_negative[:-1]) | (negative.cumsum()[1:] == 0)
    return np.flatnonzero(np.append(~same, True))


def _spaced(positive: np.ndarray, negative: np.ndarray) -> np.ndarray:
    """Which groups to end at, so that there are few enough; arguments as `_needed`."""
    hits, false = positive.cumsum(), negative.cumsum()
    ranks = np.array(spaced_ranks(int(false[-1])))
    some = np.linspace(0, hits[-1], _POSITIVE_GROUPS + 1)[1:]
    ends = [np.searchsorted(false, ranks + 1), np.searchsorted(hits, some - 1e-9)]
    return np.unique(np.concatenate([*ends, [len(hits) - 1]]))


class Called:
    """Figures of calling some windows infected (`families.Family`).

    Args:
        called: (R, n_windows) bool.
        windows: which they are; needs a positive and a negative one.
        scope: of the figures; those at a base rate have `base_rate` there, after `prefix`.
        prefix: before `base_rate`.
        told: what called them, for the signatures.
    """

    def __init__(
        self,
        called: np.ndarray,
        windows: Windows,
        scope: str,
        *,
        prefix: str = "",
        told: str = "",
    ) -> None:
        total = windows.count(np.stack([windows.positive, windows.negative]))
        told_apart = np.concatenate([called & windows.positive, called & windows.negative])
        self._total = total.astype(np.float32)
        self._called = windows.count(told_apart).astype(np.float32)
        n_positive, n_negative = (int(n) for n in total.sum(1))
        self._n_negative = n_negative
        infected, clean = total > 0
        both = n_positive + n_negative, infected | clean
        self.figures = [
            Figure(
                *(scope, "all", "tpr", n_positive, infected),
                *("share", int(infected.sum())),
                told=told,
            ),
            Figure(
                *(scope, "all", "fpr", n_negative, clean),
                *("share", int(clean.sum())),
                told=told,
            ),
            Figure(scope, "all", "mcc", *both, told=told),
        ] + [
            Figure(f"{prefix}base_rate", f"{rate:g}", "precision", *both, told=told)
            for rate in BASE_RATES
        ]

    def estimates(self) -> np.ndarray:
        """(F, R) float64; a precision is not measurable with a FPR below 10/n."""
        found = self.values(np.ones((self._total.shape[1], 1)))[..., 0]
        found[3:, found[1] * self._n_negative < NEEDED - 1e-6] = np.nan
        return found

    def values(self, drawn: np.ndarray) -> np.ndarray:
        """(F, R, b) under (n, b) weights of the episodes."""
        p, n = (self._total @ drawn).astype(np.float64)
        tp, fp = (self._called @ drawn).astype(np.float64).reshape(2, -1, len(p))
        tpr, fpr = share(tp, p), share(fp, n)
        return np.stack(
            [tpr, fpr, mcc(tp, fp, p, n), *(precision_at(rate, tpr, fpr) for rate in BASE_RATES)]
        )
