"""A small Inception network: convolutions of several lengths side by side.

After InceptionTime (Ismail Fawaz et al. 2020) and its light relative LITE (Ismail-Fawaz et al.
2023): a bottleneck before parallel kernels, a pooled branch, and a shortcut around each block.
"""

from __future__ import annotations

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import nn

from cis490.models.blocks import Stem, as_steps, convolution, pool
from cis490.models.network import Backbone, NetworkClassifier
from cis490.models.options import Presets

_KERNELS = (3, 9, 19)  # steps after the stem


class _Inception(nn.Module):
    def __init__(self, width: int, branch: int) -> None:
        super().__init__()
        self.bottleneck = convolution(width, branch, 1)
        self.branches = nn.ModuleList(convolution(branch, branch, size) for size in _KERNELS)
        self.pooled = nn.Sequential(
            nn.MaxPool2d((1, 3), stride=1, padding=(0, 1)), convolution(width, branch, 1)
        )
        self.norm = nn.GroupNorm(1, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:  # (b, width, 1, t)
        narrow = self.bottleneck(x)
        parts = [convolve(narrow) for convolve in self.branches] + [self.pooled(x)]
        out: torch.Tensor = x + F.gelu(self.norm(torch.cat(parts, dim=1)))
        return out  # (b, width, 1, t)


class _CNN(Backbone):
    def __init__(
        self, n_inputs: int, n_timepoints: int, branch: int, depth: int, steps: int
    ) -> None:
        super().__init__()
        width = branch * (len(_KERNELS) + 1)
        self.stem = Stem(n_inputs, n_timepoints, width, steps)
        self.blocks = nn.ModuleList(_Inception(width, branch) for _ in range(depth))
        self.width = 2 * width

    def forward(self, x: torch.Tensor) -> torch.Tensor:  # (b, n_inputs, t)
        x, there = self.stem(x)
        x = F.gelu(x)
        for block in self.blocks:
            x = block(x * there[:, None, None])  # (b, width / 2, 1, n_steps)
        return pool(as_steps(x), there)  # (b, width)


class CNN(NetworkClassifier):
    """Inception blocks; `embed` gives the mean and the maximum over time of the last."""

    presets: ClassVar[Presets] = {
        "small": {"branch": 8, "depth": 3, "steps": 25, "head_dropout": 0.3},
        "large": {"branch": 80, "depth": 6, "steps": 100, "head_dropout": 0.3},
    }

    def _backbone(self, n_inputs: int, n_timepoints: int) -> Backbone:
        return _CNN(n_inputs, n_timepoints, **self._backbone_options)
