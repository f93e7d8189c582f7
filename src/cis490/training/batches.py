"""Batches for the networks, gathered by index from one resident tensor."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import torch
import torch.nn.functional as F

from cis490.models.views import CodedSeries, WindowView
from cis490.windows.codes import LEAST, MISSING

IN_ORDER = 512  # cases of a batch where nothing is learned
# Standardised values are cut to ±3: what training seldom saw says "much", not "a thousand times as
# much". Otherwise one gauge of another host decides alone (docs/decisions/log.md).
CLIP = 3.0


class SourceDropout:
    """Hides whole sources at random: each case loses each source with that source's chance.

    Args:
        groups: columns of each source.
        probability: chance of each source to be hidden.
        absent: (n_columns,) what a hidden column reads, standardised; NaN for missing.
    """

    def __init__(
        self,
        groups: Mapping[str, Sequence[int]],
        probability: Mapping[str, float],
        absent: torch.Tensor,
    ) -> None:
        names = [name for name in sorted(groups) if len(groups[name]) and probability.get(name, 0)]
        self.probability = torch.tensor([probability[name] for name in names])
        self.member = torch.zeros(len(names), len(absent))
        for i, name in enumerate(names):
            self.member[i, list(groups[name])] = 1
        self.absent = absent

    def __call__(self, x: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        """Hide sources in x (n_cases, n_columns, n_timepoints)."""
        if not len(self.probability):
            return x
        lost = torch.rand(len(x), len(self.probability), generator=generator) < self.probability
        hidden = (lost.float() @ self.member > 0).to(x.device)
        return torch.where(hidden[:, :, None], self.absent.to(x.device)[:, None], x)


class Batches:
    """Windows of a view on a device, as (inputs, labels) a batch at a time.

    Inputs are (b, 2 n_columns, n_timepoints) float32: the values, 0 where missing, then the mask, 1
    where measured. Labels are (b,) int64.

    Args:
        view: windows; its series is replaced by `series`.
        series: (n_steps, n_columns) standardised values, float32 with NaN where missing, or coded;
            codes stay codes on the device, and become values in each batch.
        y: (n_cases,) labels of the windows where they stand; None if they are only predicted.
        device: where the series stays and the batches are made.
        batch_size: cases a batch in training.
        dropout: applied in training only.
    """

    def __init__(
        self,
        view: WindowView,
        series: np.ndarray | CodedSeries,
        y: np.ndarray | None,
        device: torch.device,
        *,
        batch_size: int = IN_ORDER,
        dropout: SourceDropout | None = None,
    ) -> None:
        self.coded = isinstance(series, CodedSeries)
        if isinstance(series, CodedSeries):
            self.series = torch.from_numpy(series.codes).to(device)
            self.scale = torch.from_numpy(series.scale).to(device)
            self.base = torch.from_numpy(series.base).to(device)
            self.episode = torch.from_numpy(series.episode(view.start))
        else:
            self.series = torch.from_numpy(series).to(device)
            self.episode = torch.zeros(len(view), dtype=torch.int64)
        self.start = torch.from_numpy(view.start)
        self.y = torch.zeros(len(view), dtype=torch.int64) if y is None else torch.from_numpy(y)
        self.within = torch.arange(view.length)
        self.batch_size = batch_size
        self.dropout = dropout
        self.jitter = view.jitter
        if view.jitter:
            assert view.low is not None
            assert view.high is not None
            assert view.step_label is not None
            self.low, self.high = torch.from_numpy(view.low), torch.from_numpy(view.high)
            self.step_label = torch.from_numpy(view.step_label)

    def __len__(self) -> int:
        """Batches an epoch of training."""
        return -(-len(self.start) // self.batch_size)

    def shuffled(self, generator: torch.Generator) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """One epoch: every window once, in random order, moved at random as far as it may."""
        start, y = self.moved(generator)
        order = torch.randperm(len(start), generator=generator)
        for rows in order.split(self.batch_size):
            x = self._cut(start[rows], self.episode[rows])
            if self.dropout is not None:
                x = self.dropout(x, generator)
            yield _encoded(x), y[rows].to(x.device)

    def in_order(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Every window once, in order and where it stands."""
        cases = (self.start, self.episode, self.y)
        for start, episode, y in zip(*(c.split(IN_ORDER) for c in cases), strict=True):
            x = self._cut(start, episode)
            yield _encoded(x), y.to(x.device)

    def moved(self, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
        """Starts and labels (n_cases,) after a move of up to `jitter` steps within low .. high."""
        if not self.jitter:
            return self.start, self.y
        shift = torch.randint(-self.jitter, self.jitter + 1, self.start.shape, generator=generator)
        start = (self.start + shift).clamp(self.low, self.high)
        rows = start.split(IN_ORDER)
        return start, torch.cat([self._majority(part) for part in rows])

    def _majority(self, start: torch.Tensor) -> torch.Tensor:
        """Class of most steps of the windows at `start`; a tie goes to the later class."""
        labels = self.step_label[start[:, None] + self.within]
        count = F.one_hot(labels.long()).sum(1)
        n_classes = count.shape[1]
        return (count * n_classes + torch.arange(n_classes)).argmax(1)

    def _cut(self, start: torch.Tensor, episode: torch.Tensor) -> torch.Tensor:
        """Windows at `start` (b,) of their `episode` (b,): (b, n_columns, n_timepoints)."""
        device = self.series.device
        cut = self.series[(start[:, None] + self.within).to(device)]
        if self.coded:
            of = episode.to(device)
            values = cut.float().sub_(LEAST).mul_(self.scale[of][:, None])
            values.add_(self.base[of][:, None])
            cut = values.masked_fill_(cut == MISSING, torch.nan)
        return cut.transpose(1, 2)


def _encoded(x: torch.Tensor) -> torch.Tensor:
    """Values with 0 for missing, and the mask as further channels: (b, 2 c, t)."""
    values = torch.nan_to_num(x.clamp(-CLIP, CLIP), nan=0.0)
    return torch.cat([values, (~torch.isnan(x)).to(x.dtype)], dim=1)
