"""What a training minimises, and what it does about classes that are rare: one thing, not two."""

from __future__ import annotations

from typing import Final

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from cis490.models.base import FitSettings
from cis490.models.weights import class_weights

# What `training.imbalance` may be. Each is an answer of its own: weighted cross-entropy, focal loss
# (Lin et al. 2017), label smoothing (Szegedy et al. 2016), cross-entropy of balanced batches, none.
IMBALANCE: Final = ("weighted", "focal", "smoothing", "balanced", "none")


class Loss(nn.Module):
    """A loss a case and the weight of each case, so that a batch may be worked off in pieces.

    A batch's loss is the weighted mean of its cases' losses; the pieces' shares add up to it.

    Args:
        y: (n_cases,) training labels, which say how rare a class is.
        n_classes: labels are 0 .. n_classes - 1.
        settings: `imbalance`, `focal_gamma` and `label_smoothing` are used.
    """

    weights: torch.Tensor

    def __init__(self, y: np.ndarray, n_classes: int, settings: FitSettings) -> None:
        super().__init__()
        weighted = settings.imbalance == "weighted"
        weights = class_weights(y, n_classes) if weighted else np.ones(n_classes, np.float32)
        self.register_buffer("weights", torch.from_numpy(weights))
        self.gamma = settings.focal_gamma if settings.imbalance == "focal" else 0.0
        self.smoothing = settings.label_smoothing if settings.imbalance == "smoothing" else 0.0

    def forward(self, logits: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """The mean loss of cases, logits (b, n_classes) and y (b,); 0 if none has a weight."""
        return self.share(logits, y, self.weight(y))

    def share(self, logits: torch.Tensor, y: torch.Tensor, total: torch.Tensor) -> torch.Tensor:
        """What these cases add to the mean loss of a batch whose weights sum to `total`."""
        return (self.weights[y] * self._each(logits, y)).sum() / total

    def weight(self, y: torch.Tensor) -> torch.Tensor:
        """Sum of the weights of cases y (b,); tiny but not 0 where none has any."""
        return self.weights[y].sum().clamp_min(1e-12)

    def _each(self, logits: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """The loss of each case, without its weight: (b,)."""
        each = F.cross_entropy(logits.float(), y, reduction="none", label_smoothing=self.smoothing)
        if self.gamma:
            unsure = 1 - torch.exp(-each)  # exp(-cross-entropy) is the probability of y
            each = each * unsure.clamp_min(1e-6) ** self.gamma  # a gamma below 1 is steep at 0
        return each

    def chance(self, counts: np.ndarray) -> float:
        """The mean loss of always predicting the weighted shares of classes (n_classes,) counts.

        With label smoothing the shares are those of the smoothed labels.
        """
        share = torch.from_numpy(counts).double() * self.weights.cpu()
        share = (1 - self.smoothing) * share / share.sum() + self.smoothing / len(share)
        return self._expected(share.log().clamp_min(-100), counts)

    def floor(self, counts: np.ndarray) -> float:
        """The least that the mean loss can be: above 0 with label smoothing."""
        if not self.smoothing:
            return 0.0
        n_classes = len(counts)
        target = torch.full((n_classes, n_classes), self.smoothing / n_classes)
        target += (1 - self.smoothing) * torch.eye(n_classes)
        return self._expected(target.log(), counts)

    def _expected(self, logits: torch.Tensor, counts: np.ndarray) -> float:
        """The mean loss where cases of each class, as many as counted, have these logits.

        Args:
            logits: (n_classes,) of all cases, or (n_classes, n_classes) of those of each class.
        """
        y = torch.arange(len(counts))
        each = self._each(logits.float().expand(len(y), -1), y)
        weight = self.weights.cpu() * torch.from_numpy(counts)
        return float((weight * each).sum() / weight.sum())
