"""What a rare class weighs; evaluation's baselines weigh alike, and need no more of `models`."""

from __future__ import annotations

import numpy as np


def class_weights(y: np.ndarray, n_classes: int) -> np.ndarray:
    """Weights of the classes that make rare ones count: (n_classes,) float32.

    N / (K n_c) over the training labels `y` (n_cases,), K = `n_classes`, clipped to [0.25, 8], then
    divided by their mean over the classes present; absent classes get 0 (docs/statistics.md).
    """
    counts = np.bincount(y, minlength=n_classes)
    present = counts > 0
    weights = np.zeros(n_classes)
    weights[present] = np.clip(counts.sum() / (n_classes * counts[present]), 0.25, 8.0)
    weights[present] /= weights[present].mean()
    return weights.astype(np.float32)
