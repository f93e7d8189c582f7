"""Company for every table: predictors that look at no channel at all.

They are fitted on the training windows only and are scored like models, on the same replicates.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from cis490.channels import PHASES
from cis490.evaluation.metrics import K
from cis490.models.preprocess import class_weights

MODE: Final = "baseline"
CLOCK: Final = "window_index"

DESCRIPTION: Final = {
    "always_infected": "says infected_running of every window",
    "majority": "says the phase most frequent in training",
    CLOCK: "knows a window's place in its episode, no channel",
}


def predict_baselines(
    train_phase: np.ndarray, train_window: np.ndarray, window: np.ndarray
) -> dict[str, np.ndarray]:
    """Fit on training windows and predict others.

    Args:
        train_phase: (n_train,) integer, index into PHASES.
        train_window: (n_train,) integer, the windows' indices in their episodes.
        window: (n,) integer, the indices of the windows to predict.

    Returns:
        name -> (n,) int64 index into PHASES, by name. Without training windows only
        "always_infected" can predict.
    """
    infected = PHASES.index("infected_running")
    predicted = {"always_infected": np.full(len(window), infected)}
    if len(train_phase):
        majority = int(np.bincount(train_phase, minlength=K).argmax())
        predicted["majority"] = np.full(len(window), majority)
        predicted[CLOCK] = _by_window_index(train_phase, train_window, window)
    return predicted


def _by_window_index(
    train_phase: np.ndarray, train_window: np.ndarray, window: np.ndarray
) -> np.ndarray:
    """For each index the phase with the largest class-weighted training frequency.

    A tie goes to the earlier phase. An index that training never saw takes the nearest one it
    saw, the smaller of two equally near.
    """
    counts = np.zeros((int(train_window.max()) + 1, K))
    np.add.at(counts, (train_window, train_phase), 1)
    best: np.ndarray = (counts * class_weights(train_phase, K)).argmax(1)
    seen = np.flatnonzero(counts.sum(1))
    after = np.searchsorted(seen, window).clip(0, len(seen) - 1)
    before = (after - 1).clip(0)
    nearer_before = np.abs(window - seen[before]) <= np.abs(window - seen[after])
    return np.asarray(best[seen[np.where(nearer_before, before, after)]])
