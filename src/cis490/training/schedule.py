"""How fast to learn and when to stop."""

from __future__ import annotations

import math

import numpy as np

WARM_UP = 0.05  # share of the steps over which the learning rate rises
STEPS_BEFORE_PATIENCE = 300  # a small training set gives few steps an epoch: too few to judge by


def learning_rate_factor(step: int, total: int) -> float:
    """Factor of the peak learning rate at `step` (from 0) of `total` steps.

    It rises in a line over the first 5% of the steps, then falls as half a cosine to 0 at `total`
    (Loshchilov and Hutter 2017, without restarts), and stays there.
    """
    warm = warm_up_steps(total)
    if step < warm:
        return (step + 1) / warm
    return 0.5 * (1 + math.cos(math.pi * min(1, (step - warm) / max(1, total - warm))))


def warm_up_steps(total: int) -> int:
    """Over how many of `total` steps the learning rate rises."""
    return max(1, round(WARM_UP * total))


def macro_f1(y: np.ndarray, predicted: np.ndarray, n_classes: int) -> float:
    """Mean F1 over the classes present in `y`; both (n_cases,) labels (docs/statistics.md)."""
    table = np.bincount(y * n_classes + predicted, minlength=n_classes**2)
    table = table.reshape(n_classes, n_classes)
    present = table.sum(1) > 0
    f1 = 2 * table.diagonal()[present] / (table.sum(0) + table.sum(1))[present]
    return float(f1.mean())


class EarlyStopping:
    """Keeps score of the epochs: which is the best, and whether to go on.

    Better is a higher macro F1 on val, or the same with a lower loss. Epochs without an improvement
    count against `patience` only once more than 300 steps have been made.
    """

    def __init__(self, patience: int) -> None:
        self.patience = patience
        self.best = (-math.inf, -math.inf)
        self.waited = 0

    def improved(self, step: int, f1: float, loss: float) -> bool:
        """Take note of the epoch that ended at `step`; return whether it is the best so far."""
        if (f1, -loss) > self.best:
            self.best = (f1, -loss)
            self.waited = 0
            return True
        self.waited += step > STEPS_BEFORE_PATIENCE
        return False

    @property
    def stop(self) -> bool:
        """Whether patience is exhausted."""
        return self.waited >= self.patience
