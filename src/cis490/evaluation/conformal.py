"""Sets of phases that hold the true one as often as promised, on machines like the training hosts.

The unit of calibration is the episode. K phases.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from scipy.special import betaincinv

from cis490.channels import PHASES
from cis490.evaluation.bootstrap import TAILS
from cis490.evaluation.calibration import drawn_sums, exact
from cis490.evaluation.families import Figure, Kind, share

SCOPE: Final = "conformal"
ALPHA: Final = 0.1
# docs/statistics.md. The promise itself needs 9: with fewer the sets would hold every phase.
MIN_EPISODES: Final = 19
METRICS: Final[dict[str, Kind]] = {"coverage": "share", "set_size": "other"}


def least_probability(
    of_truth: np.ndarray, unit: np.ndarray, *, alpha: float = ALPHA
) -> float | None:
    """The least probability at which a phase belongs to a window's set.

    Hierarchical split-conformal prediction: of n calibration episodes each weighs 1 / (n + 1),
    shared evenly by its windows, and the new one weighs as much at a probability of 0. A set
    of all phases at least this probable holds the true phase of one window, drawn at random from
    a new episode, with a chance of 1 - alpha or more, if the new episode is exchangeable with
    those; its windows need not be exchangeable with each other, for the draw makes them so. It is
    the average over one window drawn at random from each calibration episode, without the chance.
    Sources: Y. Lee, R. F. Barber and R. Willett, Distribution-free inference with hierarchical
    data, 2023; R. Dunn, L. Wasserman and A. Ramdas, Distribution-free prediction sets for two-layer
    hierarchical models, JASA, 2022. The score is that of M. Sadinle, J. Lei and L. Wasserman, Least
    ambiguous set-valued classifiers with bounded error levels, JASA, 2019.

    Args:
        of_truth: (n_windows,) the probability of each calibration window's true phase, from a model
            that was not trained on its episode.
        unit: (n_windows,) integer, the episode of each window.

    Returns:
        None with fewer than `MIN_EPISODES` episodes.
    """
    episodes, place, sizes = np.unique(unit, return_inverse=True, return_counts=True)
    n = len(episodes)
    if n < MIN_EPISODES:
        return None
    order = np.argsort(-of_truth, kind="stable")
    reached = np.cumsum(1 / ((n + 1) * sizes[place[order]]))
    at = int(np.searchsorted(reached, 1 - alpha - 1e-12))
    return float(of_truth[order[at]]) if at < len(order) else 0.0


def prediction_sets(p: np.ndarray, least: np.ndarray | float) -> np.ndarray:
    """(..., K) bool: the phases at least this probable, and the most probable one in any case.

    Args:
        p: (..., K) probabilities.
        least: as `least_probability`; of all windows, or (..., 1) of each.
    """
    sets = p >= least
    np.put_along_axis(sets, p.argmax(-1)[..., None], values=True, axis=-1)
    return sets


def cross_conformal(
    p: np.ndarray, truth: np.ndarray, unit: np.ndarray, fold: np.ndarray, *, alpha: float = ALPHA
) -> np.ndarray | None:
    """Sets of out-of-fold windows, each fold's calibrated on all other folds: (n_windows, K) bool.

    Source: V. Vovk, Cross-conformal predictors, 2015.

    Args:
        p: (n_windows, K) out-of-fold probabilities.
        truth, unit: (n_windows,) integer, index into PHASES and episode.
        fold: (n_windows,) integer.

    Returns:
        None if for one of the folds the others have fewer than `MIN_EPISODES` episodes.
    """
    of_truth = p[np.arange(len(p)), truth]
    least = np.zeros((len(p), 1), p.dtype)
    for own in np.unique(fold):
        held_out = fold == own
        found = least_probability(of_truth[~held_out], unit[~held_out], alpha=alpha)
        if found is None:
            return None
        least[held_out] = found
    return prediction_sets(p, least)


@dataclass(frozen=True)
class Coverage:
    """Coverage and mean size of the sets of R runs: over all, by host, by true phase.

    A family of figures (`families.Family`): `coverage` of each of G groups of windows, then
    `set_size`. An episode counts with the mean over its windows in the group, and all episodes
    alike, for that is what is promised: of all hosts and phases together, not of each.

    Attributes:
        groups: scope and key of each.
        windows: (G, n) counts.
        means: (2 G, R, n) float64, an episode's share of covered windows, then its mean set size.
        rounded: the same in float32 (`calibration.exact`).
        told: what signatures say of the sets.
    """

    groups: list[tuple[str, str]]
    windows: np.ndarray
    means: np.ndarray
    rounded: np.ndarray
    told: str = ""

    @classmethod
    def of(
        cls,
        sets: np.ndarray,
        truth: np.ndarray,
        unit: np.ndarray,
        host: Sequence[str],
        told: str = "",
    ) -> Coverage:
        """From (R, n_windows, K) bool.

        Args:
            sets: of each run.
            truth, unit: (n_windows,) integer, index into PHASES and episode in [0, n).
            host: of each of n episodes.
            told: as the attribute.
        """
        n = len(host)
        masks = _groups(truth, np.asarray(host, dtype=object)[unit])
        values = np.stack([sets[:, np.arange(len(truth)), truth], sets.sum(-1)])
        windows = np.stack([np.bincount(unit[mask], minlength=n) for _, mask in masks])
        means = np.empty((2, len(masks), len(sets), n))
        for m, g, r in np.ndindex(means.shape[:3]):
            mask = masks[g][1]
            sums = np.bincount(unit[mask], values[m, r, mask], minlength=n)
            means[m, g, r] = sums / np.maximum(windows[g], 1)
        groups = [name for name, _ in masks]
        flat = means.reshape(-1, len(sets), n)
        return cls(groups, windows, flat, exact(flat), told)

    @property
    def figures(self) -> list[Figure]:
        """In the order of `values`."""
        return [
            Figure(
                *name, metric, int(own.sum()), own > 0, kind, trials=(own > 0).sum(), told=self.told
            )
            for metric, kind in METRICS.items()
            for name, own in zip(self.groups, self.windows, strict=True)
        ]

    def estimates(self) -> np.ndarray:
        """(2 G, R) on all episodes."""
        n_episodes = np.tile((self.windows > 0).sum(1), 2)
        return np.asarray(self.means.sum(-1) / n_episodes[:, None])

    def values(self, drawn: np.ndarray) -> np.ndarray:
        """(2 G, R, b) under (n, b) weights of the episodes."""
        drawn = drawn.astype(np.float32, copy=False)
        n_drawn = (self.windows > 0).astype(np.float32) @ drawn  # (G, b)
        return share(drawn_sums(self.rounded, drawn), np.tile(n_drawn, (2, 1))[:, None])


def _groups(truth: np.ndarray, host: np.ndarray) -> list[tuple[tuple[str, str], np.ndarray]]:
    """Scope and key, and (n_windows,) mask, of all windows, those of each host and each phase."""
    every = [((SCOPE, "all"), np.ones(len(truth), bool))]
    hosts = [((f"{SCOPE}_host", name), host == name) for name in sorted(set(host))]
    return [
        *every,
        *hosts,
        *(((f"{SCOPE}_phase", PHASES[k]), truth == k) for k in np.unique(truth)),
    ]


def least_coverage(n_episodes: int, *, alpha: float = ALPHA) -> float:
    """What chance in calibration alone can lower coverage to, with a chance of 2.5%.

    Given its calibration cases, coverage of exchangeable cases is a draw of Beta(n + 1 - l, l), l =
    floor(alpha (n + 1)), had one window an episode been drawn: cautious, for all are used. Source:
    V. Vovk, Conditional validity of inductive conformal predictors, 2012.

    Args:
        n_episodes: calibration episodes, 9 or more for an alpha of 0.1.
        alpha: the share that may be missed.
    """
    missed = int(alpha * (n_episodes + 1) + 1e-9)
    return float(betaincinv(n_episodes + 1 - missed, missed, TAILS[0]))


def in_words(
    estimate: float, ends: tuple[float, float] | None, n_episodes: int, held_out: Sequence[str]
) -> str:
    """Whether the promise carries over to held-out hosts.

    Args:
        estimate, ends: coverage measured there and its interval.
        n_episodes: that calibrated.
        held_out: the hosts.
    """
    hosts, promised = " and ".join(held_out), f"the promised {1 - ALPHA:.2f}"
    if ends is None:
        return f"Too few episodes of {hosts} to say whether sets cover {promised} there."
    by_chance = least_coverage(n_episodes)
    measured = (
        f"On {hosts} sets hold the true phase in {estimate:.3f} [{ends[0]:.3f}, {ends[1]:.3f}] of "
        "the cases"
    )
    if ends[1] < by_chance:
        return (
            f"{measured}, less than {promised}: these episodes are not exchangeable with those of "
            "the training hosts, and the promise does not carry over."
        )
    if ends[1] < 1 - ALPHA:
        return (
            f"{measured}, less than {promised}; but calibration with {n_episodes} episodes can "
            f"miss it by chance, down to {by_chance:.2f}, so why cannot be told."
        )
    if ends[0] >= 1 - ALPHA:
        return f"{measured}: {promised} is kept."
    return f"{measured}: whether {promised} is kept cannot be told."
