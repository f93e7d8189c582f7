"""A small Inception network: convolutions of several lengths side by side.

After InceptionTime (Ismail Fawaz et al. 2020) and its light relative LITE (Ismail-Fawaz et al.
2023): a bottleneck before parallel kernels, a pooled branch, and a shortcut around each block.
"""

from __future__ import annotations

import torch
from torch import nn

from cis490.models.network import Backbone, NetworkClassifier

_KERNELS = (3, 9, 19)  # steps of the halved time axis


class _Inception(nn.Module):
    def __init__(self, width: int, branch: int) -> None:
        super().__init__()
        self.bottleneck = nn.Conv1d(width, branch, 1, bias=False)
        self.branches = nn.ModuleList(
            nn.Conv1d(branch, branch, size, padding=size // 2, bias=False) for size in _KERNELS
        )
        self.pooled = nn.Sequential(
            nn.MaxPool1d(3, stride=1, padding=1), nn.Conv1d(width, branch, 1, bias=False)
        )
        self.norm = nn.GroupNorm(1, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:  # (b, width, t)
        narrow = self.bottleneck(x)
        parts = [convolve(narrow) for convolve in self.branches] + [self.pooled(x)]
        out: torch.Tensor = x + nn.functional.gelu(self.norm(torch.cat(parts, dim=1)))
        return out  # (b, width, t)


class _CNN(Backbone):
    def __init__(self, n_inputs: int, branch: int = 16, depth: int = 3) -> None:
        super().__init__()
        width = branch * (len(_KERNELS) + 1)
        self.stem = nn.Sequential(
            nn.Conv1d(n_inputs, width, 5, stride=2, padding=2), nn.GroupNorm(1, width), nn.GELU()
        )
        self.blocks = nn.Sequential(*(_Inception(width, branch) for _ in range(depth)))
        self.width = 2 * width

    def forward(self, x: torch.Tensor) -> torch.Tensor:  # (b, n_inputs, t)
        x = self.blocks(self.stem(x))  # (b, width / 2, t / 2)
        return torch.cat([x.mean(2), x.amax(2)], dim=1)  # (b, width)


class CNN(NetworkClassifier):
    """Three inception blocks; `embed` gives the mean and the maximum over time of the last."""

    def _backbone(self, n_inputs: int, n_timepoints: int) -> Backbone:  # noqa: ARG002
        return _CNN(n_inputs)
