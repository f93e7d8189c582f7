"""What models that are fitted at once say of a fit, in the columns of the networks' history."""

from __future__ import annotations

import numpy as np

from cis490.training.schedule import macro_f1

Measured = tuple[float, float]


def measured(probabilities: np.ndarray, y: np.ndarray, weights: np.ndarray) -> Measured:
    """The weighted loss of val, over the classes that training has, and its macro F1.

    Args:
        probabilities: (n_cases, n_classes).
        y: (n_cases,) labels, one of them at least of a class that training has.
        weights: (n_classes,), 0 for a class that training lacks.
    """
    of_truth, known = probabilities[np.arange(len(y)), y], weights[y] > 0
    loss = -np.log(np.maximum(of_truth[known], 1e-12))
    f1 = macro_f1(y, probabilities.argmax(1), probabilities.shape[1])
    return float(np.average(loss, weights=weights[y][known])), f1


def history_row(
    epoch: int, train_loss: float, val: Measured | None
) -> dict[str, float | int | None]:
    """A row of the history; what only descent has is None."""
    val_loss, val_f1 = val or (None, None)
    return {
        "attempt": 1,
        "epoch": epoch,
        "step": epoch,
        "train_loss": train_loss,
        "val_loss": val_loss,
        "val_macro_f1": val_f1,
        "learning_rate": None,
        "grad_norm": None,
        "skipped_steps": 0,
    }
