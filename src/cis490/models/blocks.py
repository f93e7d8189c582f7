"""What several networks are built of: a stem that shortens time, and pooling of measured steps.

Inside a network a series is an image of one row, (b, c, 1, t). On a CPU the channels of a step lie
side by side (`channels_last`): in that order oneDNN convolves about twice as fast as in the other,
and a matrix product over channels needs no copy.
"""

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


def as_rows(x: torch.Tensor) -> torch.Tensor:
    """Series x (b, c, t) as images of one row (b, c, 1, t), laid out for the device they are on."""
    order = torch.contiguous_format if x.is_cuda else torch.channels_last
    return x.unsqueeze(2).contiguous(memory_format=order)


def convolution(n_inputs: int, width: int, size: int, *, stride: int = 1) -> nn.Conv2d:
    """A convolution of `size` steps over images of one row, without bias; one step a stride."""
    return nn.Conv2d(
        n_inputs, width, (1, size), stride=(1, stride), padding=(0, size // 2), bias=False
    )


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
        self.convolve = nn.Conv2d(
            n_inputs,
            width,
            (1, 2 * self.stride + 1),
            stride=(1, self.stride),
            padding=(0, self.stride),
        )
        self.norm = nn.GroupNorm(1, width)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:  # (b, n_inputs, t)
        padding = (0, -x.shape[2] % self.stride)
        there = F.pad(measured(x), padding).unflatten(1, (-1, self.stride)).any(2)
        return self.norm(self.convolve(as_rows(x))), there  # (b, width, 1, n_steps), (b, n_steps)


def as_steps(x: torch.Tensor) -> torch.Tensor:
    """Images of one row (b, c, 1, t) as steps (b, t, c), whose gradients keep the layout."""
    return x.squeeze(2).transpose(1, 2)


def mean(x: torch.Tensor, there: torch.Tensor) -> torch.Tensor:
    """Mean of x (b, t, width) over the steps that are `there` (b, t): (b, width)."""
    weight = there[:, :, None].to(x.dtype)
    return (x * weight).sum(1) / weight.sum(1)


def pool(x: torch.Tensor, there: torch.Tensor) -> torch.Tensor:
    """Mean and maximum of x (b, t, width) over the steps that are `there` (b, t): (b, 2 width)."""
    return torch.cat([mean(x, there), x.masked_fill(~there[:, :, None], -torch.inf).amax(1)], dim=1)
