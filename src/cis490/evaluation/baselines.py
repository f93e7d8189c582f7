"""Company for every table: what a detector must beat to be worth its name.

Most look at no channel at all: they are fitted here, on the training windows only, and scored like
models, on the same replicates. Those in `TRAINED` are trained and predicted like models, in every
mode; evaluation and report know them by name.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from cis490.channels import PHASES
from cis490.evaluation.metrics import K, Sums, macro_f1
from cis490.models.weights import class_weights

MODE: Final = "baseline"
CLOCK: Final = "window_index"

TRAINED: Final = ("minirocket", "logistic", "threshold")

DESCRIPTION: Final = {
    "always_infected": "says infected_running of every window",
    "majority": "says the phase most frequent in training",
    CLOCK: "knows a window's place in its episode, no channel",
    "minirocket": "MiniRocket: fixed kernels, then a ridge classifier",
    "logistic": "logistic regression on summary features, with a ridge",
    "threshold": "the best single feature, cut at a few thresholds",
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
    """For each index a phase, so chosen that together they have the highest training macro F1.

    It starts from each index's most frequent phase, classes weighted, and changes one index at a
    time for as long as macro F1 rises; ties go to the earlier phase. An index that training never
    saw takes the nearest one it saw, the smaller of two equally near.
    """
    counts = np.zeros((int(train_window.max()) + 1, K))
    np.add.at(counts, (train_window, train_phase), 1)
    seen = np.flatnonzero(counts.sum(1))
    best: np.ndarray = (counts * class_weights(train_phase, K)).argmax(1)
    score, improved = _training_f1(counts, best), True
    while improved:
        improved = False
        for index in seen:
            for phase in range(K):
                changed = best.copy()
                changed[index] = phase
                if (f1 := _training_f1(counts, changed)) > score + 1e-12:
                    best, score, improved = changed, f1, True
    after = np.searchsorted(seen, window).clip(0, len(seen) - 1)
    before = (after - 1).clip(0)
    nearer_before = np.abs(window - seen[before]) <= np.abs(window - seen[after])
    return np.asarray(best[seen[np.where(nearer_before, before, after)]])


def _training_f1(counts: np.ndarray, best: np.ndarray) -> float:
    """Macro F1 of saying `best[i]` of every window with index i; counts is (n_indices, K)."""
    matrix = np.zeros((K, K))
    np.add.at(matrix.T, best, counts)
    return float(macro_f1(Sums.of(matrix), np.flatnonzero(counts.sum(0)).tolist()))
