"""What several networks are built of: a stem that shortens time, and pooling of measured steps."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn


def measured(x: torch.Tensor) -> torch.Tensor:
    """Steps of inputs x (b, 2 c, t) at which some channel was measured: (b, t) bool.

    Shorter series are padded with missing values, and padding must not count as signal. A case
    without a single value counts as measured throughout, for something must be pooled.
    """
    there = x[:, x.shape[1] // 2 :].amax(1) > 0
    return there | ~there.any(1, keepdim=True)


class Stem(nn.Module):
    """A convolution with a stride that leaves at most `steps` steps of time, normalised.

    Args:
        n_inputs: channels with their masks.
        n_timepoints: t of the inputs.
        width: channels that come out.
        steps: the stride is the least that leaves no more.
    """

    def __init__(self, n_inputs: int, n_timepoints: int, width: int, steps: int) -> None:
        super().__init__()
        self.stride = -(-n_timepoints // steps)
        self.n_steps = -(-n_timepoints // self.stride)
        # Neighbouring kernels overlap by more than half, so that no event falls on a border.
        self.convolve = nn.Conv1d(
            n_inputs, width, 2 * self.stride + 1, stride=self.stride, padding=self.stride
        )
        self.norm = nn.GroupNorm(1, width)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:  # (b, n_inputs, t)
        padding = (0, -x.shape[2] % self.stride)
        there = F.pad(measured(x), padding).unflatten(1, (-1, self.stride)).any(2)
        return self.norm(self.convolve(x)), there  # (b, width, n_steps), (b, n_steps)


def mean(x: torch.Tensor, there: torch.Tensor) -> torch.Tensor:
    """Mean of x (b, width, t) over the steps that are `there` (b, t): (b, width)."""
    weight = there[:, None].to(x.dtype)
    return (x * weight).sum(2) / weight.sum(2)


def pool(x: torch.Tensor, there: torch.Tensor) -> torch.Tensor:
    """Mean and maximum of x (b, width, t) over the steps that are `there` (b, t): (b, 2 width)."""
    return torch.cat([mean(x, there), x.masked_fill(~there[:, None], -torch.inf).amax(2)], dim=1)
