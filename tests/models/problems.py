"""An easy problem of odd sizes, so that nothing can count on 46 channels or 5 phases."""

from dataclasses import dataclass

import numpy as np

from cis490.models import FitSettings

QUICK = FitSettings(epochs=12, batch_size=32, learning_rate=0.005)


@dataclass(frozen=True)
class Problem:
    X: np.ndarray  # (n_cases, n_channels, n_timepoints) float32, NaN where missing
    y: np.ndarray  # (n_cases,)
    X_val: np.ndarray
    y_val: np.ndarray


def make_problem(n_channels=7, n_timepoints=33, n_classes=3, n=160, seed=0) -> Problem:
    """The level of channel 0 tells the class; a tenth of all values is missing."""
    rng = np.random.default_rng(seed)
    y = rng.integers(0, n_classes, n)
    y[:n_classes] = np.arange(n_classes)
    X = rng.normal(size=(n, n_channels, n_timepoints)).astype(np.float32)
    X[:, 0] += 4 * y[:, None]
    X[rng.random(X.shape) < 0.1] = np.nan
    cut = 3 * n // 4
    return Problem(X[:cut], y[:cut], X[cut:], y[cut:])
