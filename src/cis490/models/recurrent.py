"""What gru and lstm share: a recurrent and a convolutional branch over the same stem.

After LSTM-FCN and GRU-FCN (Karim et al. 2018, Elsayed et al. 2018): the recurrence tells the order
of what happens, the convolutions its shape. Here both read a stem that shortens time, for a
recurrence over every step costs much and remembers little.
"""

from __future__ import annotations

from typing import Final

import torch
import torch.nn.functional as F
from torch import nn

from cis490.models.blocks import Stem, as_steps, convolution, pool
from cis490.models.network import Backbone
from cis490.models.options import Presets

PRESETS: Final[Presets] = {
    "small": {
        "width": 48,
        "hidden": 48,
        "layers": 1,
        "depth": 2,
        "steps": 25,
        "dropout": 0.1,
        "head_dropout": 0.3,
    },
    "large": {
        "width": 192,
        "hidden": 256,
        "layers": 2,
        "depth": 3,
        "steps": 50,
        "dropout": 0.1,
        "head_dropout": 0.3,
    },
}


class _Convolution(nn.Module):
    """A convolution of 5 steps, normalised, with a shortcut."""

    def __init__(self, width: int, dropout: float) -> None:
        super().__init__()
        self.convolve = convolution(width, width, 5)
        self.norm = nn.GroupNorm(1, width)
        self.dropout = nn.Dropout2d(dropout)  # whole channels

    def forward(self, x: torch.Tensor) -> torch.Tensor:  # (b, width, 1, t)
        out: torch.Tensor = x + self.dropout(F.relu(self.norm(self.convolve(x))))
        return out


class Recurrent(Backbone):
    """A bidirectional recurrence and convolutions side by side, each pooled over time.

    Args:
        n_inputs: channels with their masks.
        n_timepoints: t of the inputs.
        cell: `nn.GRU` or `nn.LSTM`.
        width: channels of the stem and the convolutions.
        hidden: units of the recurrence in each direction.
        layers: of the recurrence.
        depth: convolutions.
        steps: that the stem leaves, at most.
        dropout: of the recurrence's inputs and of what each convolution adds.
    """

    def __init__(
        self,
        n_inputs: int,
        n_timepoints: int,
        cell: type[nn.GRU] | type[nn.LSTM],
        *,
        width: int,
        hidden: int,
        layers: int,
        depth: int,
        steps: int,
        dropout: float,
    ) -> None:
        super().__init__()
        self.stem = Stem(n_inputs, n_timepoints, width, steps)
        self.convolutions = nn.ModuleList(_Convolution(width, dropout) for _ in range(depth))
        self.dropout = nn.Dropout(dropout)
        self.recurrent = cell(width, hidden, layers, batch_first=True, bidirectional=True)
        self.width = 4 * hidden + 2 * width

    def forward(self, x: torch.Tensor) -> torch.Tensor:  # (b, n_inputs, t)
        x, there = self.stem(x)
        x = F.relu(x)
        here = there[:, None, None]
        states, _ = self.recurrent(as_steps(self.dropout(x * here)))
        for convolve in self.convolutions:
            x = convolve(x * here)
        return torch.cat([pool(states, there), pool(as_steps(x), there)], dim=1)  # (b, width)
