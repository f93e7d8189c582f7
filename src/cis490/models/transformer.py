"""A small transformer over overlapping patches of time.

After PatchTST (Nie et al. 2023). Unlike there a patch spans all channels, as in ConvTran (Foumani
et al. 2024), for what matters here is how channels move together.
"""

from __future__ import annotations

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import nn

from cis490.models.blocks import as_rows, as_steps, mean, measured
from cis490.models.network import Backbone, NetworkClassifier
from cis490.models.options import Presets

HEAD = 16  # width of an attention head


class _Block(nn.Module):
    """Self-attention and a feed-forward layer, each normalised before and added after."""

    def __init__(self, width: int, dropout: float) -> None:
        super().__init__()
        self.norm_attention = nn.LayerNorm(width)
        self.query_key_value = nn.Linear(width, 3 * width)
        self.project = nn.Linear(width, width)
        self.norm_forward = nn.LayerNorm(width)
        self.forward_layers = nn.Sequential(
            nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width)
        )
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: torch.Tensor, there: torch.Tensor) -> torch.Tensor:
        b, n, width = x.shape  # there: (b, n), the steps that may be attended to
        qkv = self.query_key_value(self.norm_attention(x)).view(b, n, 3, -1, HEAD)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)  # each (b, heads, n, HEAD)
        scores = q @ k.transpose(2, 3) / HEAD**0.5
        attention = torch.softmax(scores.masked_fill(~there[:, None, None], -torch.inf), dim=-1)
        mixed = (attention @ v).transpose(1, 2).reshape(b, n, width)
        x = x + self.dropout(self.project(mixed))
        out: torch.Tensor = x + self.dropout(self.forward_layers(self.norm_forward(x)))
        return out


class _Patches(nn.Module):
    """Tokens of overlapping patches, twice as long as the stride, and which of them were measured.

    The stride is the least that leaves at most `steps` patches.
    """

    def __init__(self, n_inputs: int, n_timepoints: int, width: int, steps: int) -> None:
        super().__init__()
        self.stride = -(-n_timepoints // steps)
        self.size = 2 * self.stride
        over = n_timepoints - self.size
        self.padding = max(0, -over) or -over % self.stride
        self.n_steps = (over + self.padding) // self.stride + 1
        self.convolve = nn.Conv2d(n_inputs, width, (1, self.size), stride=(1, self.stride))

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:  # (b, n_inputs, t)
        padding = (0, self.padding)  # zeros, which also mean missing
        there = F.pad(measured(x).to(x.dtype), padding).unfold(1, self.size, self.stride).amax(2)
        x = as_steps(self.convolve(F.pad(as_rows(x), padding)))
        return x, there > 0  # (b, n_steps, width), (b, n_steps)


class _Transformer(Backbone):
    def __init__(
        self, n_inputs: int, n_timepoints: int, heads: int, depth: int, steps: int, dropout: float
    ) -> None:
        super().__init__()
        self.width = HEAD * heads
        self.stem = _Patches(n_inputs, n_timepoints, self.width, steps)
        self.position = nn.Parameter(0.02 * torch.randn(self.stem.n_steps, self.width))
        self.dropout = nn.Dropout(dropout)
        self.blocks = nn.ModuleList(_Block(self.width, dropout) for _ in range(depth))
        self.norm = nn.LayerNorm(self.width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:  # (b, n_inputs, t)
        x, there = self.stem(x)
        x = self.dropout(x + self.position)  # (b, n_steps, width)
        for block in self.blocks:
            x = block(x, there)
        return mean(self.norm(x), there)  # (b, width)


class Transformer(NetworkClassifier):
    """Pre-norm attention blocks; `embed` gives their mean over time."""

    presets: ClassVar[Presets] = {
        "small": {"heads": 4, "depth": 2, "steps": 25, "dropout": 0.1, "head_dropout": 0.3},
        "large": {"heads": 16, "depth": 4, "steps": 50, "dropout": 0.1, "head_dropout": 0.3},
    }

    def _backbone(self, n_inputs: int, n_timepoints: int) -> Backbone:
        return _Transformer(n_inputs, n_timepoints, **self._backbone_options)
