"""What follows what: a window's probabilities in the light of the windows before it.

A window of ten seconds looks alike in a machine that was never infected and in one whose malware
sleeps. What came before tells them apart, so a model's probabilities pass the forward pass of a
hidden Markov model (Rabiner 1989) whose states are the phases: belief in each phase moves on as
phases do in training, and is then multiplied by what the window says. It looks back only, needs no
other window than the last belief, and knows of time no more than how long phases last on average.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final, Self

import numpy as np
import polars as pl

from cis490.models.weights import class_weights

# Added to each count of a pair of phases: what training never saw stays possible, so that a false
# alarm can end. Between 0.001 and 0.1 it matters little (docs/decisions/0007-across-machines.md).
UNSEEN: Final = 0.1


@dataclass(frozen=True)
class PhaseFilter:
    """The filter of one training; K phases.

    Attributes:
        transition: (K, K) chance of each phase (column) after each (row), a window later.
        first: (K,) chance of each phase in an episode's first window.
        prior: (K,) shares of the phases as training weighed them, which a model's probabilities
            have in them and which therefore are divided out.
    """

    transition: np.ndarray
    first: np.ndarray
    prior: np.ndarray

    @classmethod
    def fit(cls, rows: pl.DataFrame, y: np.ndarray, n_phases: int, *, weighing: str) -> Self:
        """Count training windows, each where it stands.

        Args:
            rows: columns episode_id, window; sorted by both.
            y: (n_rows,) int64 phases.
            n_phases: K.
            weighing: how the model weighs phases, one of `training.losses.IMBALANCE`.
        """
        _, episode = np.unique(rows["episode_id"].to_numpy(), return_inverse=True)
        window = rows["window"].to_numpy()
        follows = (np.diff(episode) == 0) & (np.diff(window) == 1)
        pairs = np.full((n_phases, n_phases), UNSEEN)
        np.add.at(pairs, (y[:-1][follows], y[1:][follows]), 1)
        begins = np.r_[True, np.diff(episode) != 0][: len(y)]
        first = np.bincount(y[begins], minlength=n_phases) + UNSEEN
        counts = np.bincount(y, minlength=n_phases).astype(float)
        if weighing == "weighted" and len(y):
            counts *= class_weights(y, n_phases)
        elif weighing == "balanced":
            counts = (counts > 0).astype(float)
        chances = pairs / pairs.sum(1, keepdims=True)
        return cls(chances, first / first.sum(), counts / max(counts.sum(), 1e-9))

    def apply(self, probabilities: np.ndarray, rows: pl.DataFrame) -> np.ndarray:
        """Probabilities (n_rows, K) of windows, after those before them in their episodes.

        Args:
            probabilities: of each window by itself, rows adding up to 1.
            rows: columns episode_id and window (from 0), in any order; a window that lacks says
                nothing, and belief moves on.

        Returns:
            (n_rows, K) float64, rows adding up to 1.
        """
        names, episode = np.unique(rows["episode_id"].to_numpy(), return_inverse=True)
        window = rows["window"].to_numpy()
        seen = self.prior > 0
        says = np.divide(probabilities, self.prior, out=np.zeros(probabilities.shape), where=seen)
        belief = np.tile(self.first, (len(names), 1))
        out = np.empty(probabilities.shape)
        at = np.argsort(window, kind="stable")
        cuts = np.searchsorted(window[at], np.arange(int(window.max(initial=-1)) + 2))
        for time, (begin, end) in enumerate(itertools.pairwise(cuts)):
            if time:
                belief = belief @ self.transition
            here = at[begin:end]
            of = episode[here]
            found = belief[of] * says[here]
            total = found.sum(1, keepdims=True)
            # A window certain of what is held impossible says nothing.
            belief[of] = np.where(total > 0, found / np.where(total > 0, total, 1), belief[of])
            out[here] = belief[of]
        return out

    def state(self) -> dict[str, Any]:
        """JSON-able, for `from_state`."""
        return {name: array.tolist() for name, array in asdict(self).items()}

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Self:
        """Rebuild from `state()`."""
        return cls(**{name: np.array(values) for name, values in state.items()})
