"""A multilayer perceptron on summary features and their missing indicators."""

from __future__ import annotations

import torch
from torch import nn

from cis490.models.network import Backbone, NetworkClassifier


class _Perceptron(Backbone):
    def __init__(self, n_inputs: int) -> None:
        super().__init__()
        self.width = 64
        self.layers = nn.Sequential(
            nn.Flatten(),
            nn.Dropout(0.1),  # no single feature may decide: another host shifts some of them
            nn.Linear(n_inputs, 128),
            nn.LayerNorm(128),
            nn.GELU(),
            nn.Dropout(0.3),
            nn.Linear(128, self.width),
            nn.LayerNorm(self.width),
            nn.GELU(),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:  # (b, n_inputs, 1)
        embedding: torch.Tensor = self.layers(x)
        return embedding  # (b, width)


class MLP(NetworkClassifier):
    """Two hidden layers, of 128 and 64 units; `embed` gives the second."""

    tabular = True

    def _backbone(self, n_inputs: int, n_timepoints: int) -> Backbone:
        return _Perceptron(n_inputs * n_timepoints)
