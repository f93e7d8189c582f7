"""What gru and lstm share: a patched time axis, both directions, pooling over time."""

from __future__ import annotations

import torch
from torch import nn

from cis490.models.network import Backbone

PATCH = 5  # steps that become one: a recurrence over every step costs much and remembers little


class Recurrent(Backbone):
    """Patches of 5 steps, a bidirectional recurrent layer, its mean and maximum over time.

    Args:
        n_inputs: channels with their masks.
        cell: `nn.GRU` or `nn.LSTM`.
        hidden: units in each direction.
    """

    def __init__(self, n_inputs: int, cell: type[nn.GRU] | type[nn.LSTM], hidden: int = 48) -> None:
        super().__init__()
        self.patch = nn.Conv1d(n_inputs, 64, PATCH, stride=PATCH)
        self.norm = nn.LayerNorm(64)
        self.dropout = nn.Dropout(0.1)
        self.recurrent = cell(64, hidden, batch_first=True, bidirectional=True)
        self.width = 4 * hidden

    def forward(self, x: torch.Tensor) -> torch.Tensor:  # (b, n_inputs, t)
        x = nn.functional.pad(x, (0, -x.shape[2] % PATCH))  # zeros, which also mean missing
        x = self.patch(x).transpose(1, 2)  # (b, t / PATCH, 64)
        x, _ = self.recurrent(self.dropout(nn.functional.gelu(self.norm(x))))
        return torch.cat([x.mean(1), x.amax(1)], dim=1)  # (b, width)
