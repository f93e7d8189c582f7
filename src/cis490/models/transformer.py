"""A small transformer over patches of time, after PatchTST (Nie et al. 2023).

Unlike PatchTST a patch spans all channels, for what matters here is how channels move together.
"""

from __future__ import annotations

import torch
from torch import nn

from cis490.models.network import Backbone, NetworkClassifier

PATCH = 8  # steps of a patch
STRIDE = 4  # steps from one patch to the next


class _Block(nn.Module):
    """Self-attention and a feed-forward layer, each normalised before and added after."""

    def __init__(self, width: int, n_heads: int, dropout: float) -> None:
        super().__init__()
        self.n_heads = n_heads
        self.norm_attention = nn.LayerNorm(width)
        self.query_key_value = nn.Linear(width, 3 * width)
        self.project = nn.Linear(width, width)
        self.norm_forward = nn.LayerNorm(width)
        self.forward_layers = nn.Sequential(
            nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width)
        )
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: torch.Tensor) -> torch.Tensor:  # (b, n, width)
        b, n, width = x.shape
        qkv = self.query_key_value(self.norm_attention(x)).view(b, n, 3, self.n_heads, -1)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)  # each (b, heads, n, width / heads)
        attention = torch.softmax(q @ k.transpose(2, 3) / q.shape[-1] ** 0.5, dim=-1)
        mixed = (attention @ v).transpose(1, 2).reshape(b, n, width)
        x = x + self.dropout(self.project(mixed))
        out: torch.Tensor = x + self.dropout(self.forward_layers(self.norm_forward(x)))
        return out


class _Transformer(Backbone):
    def __init__(self, n_inputs: int, n_timepoints: int, depth: int = 2) -> None:
        super().__init__()
        self.width = 64
        self.padding = max(0, PATCH - n_timepoints) or -(n_timepoints - PATCH) % STRIDE
        n_patches = (n_timepoints + self.padding - PATCH) // STRIDE + 1
        self.patch = nn.Conv1d(n_inputs, self.width, PATCH, stride=STRIDE)
        self.position = nn.Parameter(0.02 * torch.randn(n_patches, self.width))
        self.dropout = nn.Dropout(0.1)
        self.blocks = nn.Sequential(*(_Block(self.width, 4, 0.1) for _ in range(depth)))
        self.norm = nn.LayerNorm(self.width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:  # (b, n_inputs, t)
        x = nn.functional.pad(x, (0, self.padding))  # zeros, which also mean missing
        x = self.dropout(self.patch(x).transpose(1, 2) + self.position)  # (b, n_patches, width)
        embedding: torch.Tensor = self.norm(self.blocks(x)).mean(1)
        return embedding  # (b, width)


class Transformer(NetworkClassifier):
    """Two pre-norm blocks over overlapping patches; `embed` gives their mean over time."""

    def _backbone(self, n_inputs: int, n_timepoints: int) -> Backbone:
        return _Transformer(n_inputs, n_timepoints)
