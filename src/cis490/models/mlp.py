"""A multilayer perceptron on summary features and their missing indicators."""

from __future__ import annotations

from itertools import pairwise
from typing import ClassVar

import torch
from torch import nn

from cis490.models.network import Backbone, NetworkClassifier
from cis490.models.options import Presets


class _Perceptron(Backbone):
    def __init__(
        self,
        n_inputs: int,
        width: int,
        embedding: int,
        depth: int,
        input_dropout: float,
        dropout: float,
    ) -> None:
        super().__init__()
        self.width = embedding
        sizes = [n_inputs, *[width] * (depth - 1), embedding]
        layers: list[nn.Module] = [nn.Flatten(), nn.Dropout(input_dropout)]
        for i, (before, after) in enumerate(pairwise(sizes)):
            layers += [nn.Dropout(dropout)] if i else []
            layers += [nn.Linear(before, after), nn.LayerNorm(after), nn.GELU()]
        self.layers = nn.Sequential(*layers)

    def forward(self, x: torch.Tensor) -> torch.Tensor:  # (b, n_inputs, 1)
        embedding: torch.Tensor = self.layers(x)
        return embedding  # (b, width)


class MLP(NetworkClassifier):
    """Hidden layers of 128 and 64 units, if small; `embed` gives the last."""

    tabular = True
    presets: ClassVar[Presets] = {
        # No single feature may decide, for another host shifts some of them: hence input_dropout.
        "small": {
            "width": 128,
            "embedding": 64,
            "depth": 2,
            "input_dropout": 0.1,
            "dropout": 0.3,
            "head_dropout": 0.3,
        },
        "large": {
            "width": 1024,
            "embedding": 256,
            "depth": 3,
            "input_dropout": 0.1,
            "dropout": 0.3,
            "head_dropout": 0.3,
        },
    }

    def _backbone(self, n_inputs: int, n_timepoints: int) -> Backbone:
        return _Perceptron(n_inputs * n_timepoints, **self._backbone_options)
