"""Batches for the networks, cut by index from one series that lies where they compute."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from torch.profiler import record_function

from cis490.models.views import CodedSeries, WindowView
from cis490.windows.codes import LEAST, MISSING

IN_ORDER: Final = 512  # cases of a batch where nothing is learned
INPUT: Final = "input"  # what a profile calls the making of a batch
# Standardised values are cut to ±3: what training seldom saw says "much", not "a thousand times as
# much". Otherwise one gauge of another host decides alone (docs/decisions/log.md).
CLIP: Final = 3.0


class SourceDropout:
    """Hides whole sources at random: each case loses each source with that source's chance.

    Args:
        groups: columns of each source.
        probability: chance of each source to be hidden.
        absent: (n_columns,) what a hidden column reads, standardised; NaN for missing.
        device: where the cases are.
    """

    def __init__(
        self,
        groups: Mapping[str, Sequence[int]],
        probability: Mapping[str, float],
        absent: torch.Tensor,
        device: torch.device,
    ) -> None:
        names = [name for name in sorted(groups) if len(groups[name]) and probability.get(name, 0)]
        self.probability = torch.tensor([probability[name] for name in names])
        member = torch.zeros(len(names), len(absent))
        for i, name in enumerate(names):
            member[i, list(groups[name])] = 1
        self.member, self.absent = member.to(device), absent.to(device)

    def draw(self, n_cases: int, generator: torch.Generator) -> torch.Tensor:
        """Which sources (n_sources) each case loses: (n_cases, n_sources) bool, on the CPU."""
        chance = torch.rand(n_cases, len(self.probability), generator=generator)
        return chance < self.probability

    def hide(self, x: torch.Tensor, lost: torch.Tensor) -> torch.Tensor:
        """Hide the `lost` sources (b, n_sources) in x (b, n_columns, n_timepoints)."""
        if not len(self.probability):
            return x
        hidden = lost.float() @ self.member > 0
        return torch.where(hidden[:, :, None], self.absent[:, None], x)


class ScaleJitter:
    """Multiplies channels by a factor that each case draws: another machine does more or less.

    Values are standardised logs, log(1 + amount), so a factor is a shift; the less there is the
    smaller the shift, and of nothing it leaves nothing.

    Args:
        scaled: the columns (m,) whose scale may differ, and the place (m,) of each one's channel;
            columns of a channel move together (`Columns.scaled_channels`).
        deviation: standard deviation of a factor's logarithm.
        standard: mean and spread (n_columns,) of the standardisation.
        device: where the cases are.
    """

    def __init__(
        self,
        scaled: tuple[np.ndarray, np.ndarray],
        deviation: float,
        standard: tuple[np.ndarray, np.ndarray],
        device: torch.device,
    ) -> None:
        (columns, channel), (mean, spread) = scaled, standard
        self.deviation = deviation
        self.n_channels = int(channel.max()) + 1 if deviation and len(columns) else 0
        member = torch.zeros(self.n_channels, len(mean))
        if self.n_channels:
            member[channel, columns] = 1 / torch.from_numpy(spread[columns])
        self.member = member.to(device)
        self.nothing = torch.from_numpy(-mean / spread)[:, None].to(device)
        self.spread = torch.from_numpy(spread)[:, None].to(device)

    def draw(self, n_cases: int, generator: torch.Generator) -> torch.Tensor:
        """Logarithms of the factors of each case: (n_cases, n_channels) float32, on the CPU."""
        return self.deviation * torch.randn(n_cases, self.n_channels, generator=generator)

    def move(self, x: torch.Tensor, drawn: torch.Tensor) -> torch.Tensor:
        """Move x (b, n_columns, n_timepoints) as drawn (b, n_channels)."""
        if not self.n_channels:
            return x
        above = ((x - self.nothing) * self.spread).clamp_(-1, 1)  # 1 - exp(-log(1 + amount)), about
        return x + above.mul_((drawn @ self.member)[:, :, None])


@dataclass(frozen=True)
class _Series:
    """A series, or a block of it, on one device.

    Attributes:
        steps: (n_steps, n_columns) codes or values.
        scale, base: (n_segments, n_columns) what each segment's codes mean; None of values.
    """

    steps: torch.Tensor
    scale: torch.Tensor | None
    base: torch.Tensor | None

    def cut(self, start: torch.Tensor, segment: torch.Tensor, within: torch.Tensor) -> torch.Tensor:
        """Windows at `start` (b,) of their `segment` (b,): (b, n_columns, n_timepoints)."""
        cut = self.steps[start[:, None] + within].float()
        if self.scale is not None and self.base is not None:
            missing = cut == MISSING  # of floats, in half the time of 16-bit integers
            cut.sub_(LEAST).mul_(self.scale[segment][:, None]).add_(self.base[segment][:, None])
            cut = torch.where(missing, torch.nan, cut)
        return cut.transpose(1, 2)


@dataclass(frozen=True)
class Batch:
    """Cases that make one optimiser step; their inputs are cut when they are asked for.

    Attributes:
        start, segment: (b,) int64, where each window begins and in which segment.
        y: (b,) int64 labels.
        lost: (b, n_sources) bool, the sources that each case loses.
        scale: (b, n_scaled) float32, what each case draws of `ScaleJitter`.
    """

    of: Batches
    series: _Series
    start: torch.Tensor
    segment: torch.Tensor
    y: torch.Tensor
    lost: torch.Tensor
    scale: torch.Tensor

    def __len__(self) -> int:
        return len(self.y)

    def pieces(self, size: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Inputs and labels, at most `size` cases at a time."""
        each = (self.start, self.segment, self.y, self.lost, self.scale)
        for start, segment, y, lost, scale in zip(*(p.split(size) for p in each), strict=True):
            with record_function(INPUT):
                x = self.series.cut(start, segment, self.of.within)
                if self.of.scaling is not None:
                    x = self.of.scaling.move(x, scale)
                if self.of.dropout is not None:
                    x = self.of.dropout.hide(x, lost)
                x = _encoded(x)
            yield x, y


class Batches:
    """Windows of a view on a device, a batch at a time.

    The series goes to the device once. Of an epoch everything random is drawn at its beginning, on
    the CPU, so that it is the same on every device, and goes there in one piece: no step copies
    anything. A series beyond `budget` stays in (pinned) memory, and an epoch visits it in blocks of
    whole segments, chosen anew each time; the next block is fetched while one is worked on.

    Inputs are (b, 2 n_columns, n_timepoints) float32: the values, 0 where missing, then the mask, 1
    where measured. Labels are (b,) int64.

    Args:
        view: windows; its series is replaced by `series`.
        series: (n_steps, n_columns) standardised values, float32 with NaN where missing, or coded;
            codes stay codes on the device, and become values in each batch.
        y: (n_cases,) labels of the windows where they stand; None if they are only predicted.
        device: where the series stays and the batches are made.
        batch_size: cases a batch in training.
        dropout, scaling: applied in training only.
        balanced: in training, draw a class, then a case of it, both evenly and with replacement.
        budget: bytes that the series may take on the device; None: whatever it takes.
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
        scaling: ScaleJitter | None = None,
        balanced: bool = False,
        budget: int | None = None,
    ) -> None:
        self.device, self.batch_size = device, batch_size
        self.dropout, self.scaling, self.balanced = dropout, scaling, balanced
        self.within = torch.arange(view.length, device=device)
        if isinstance(series, CodedSeries):
            offset, segment = series.offset, series.episode(view.start)
            whole = _Series(*map(torch.from_numpy, (series.codes, series.scale, series.base)))
        else:  # cases side by side, or one series without episodes
            offset = np.arange(len(view) + 1) * view.length
            if view.jitter or not np.array_equal([*view.start, len(series)], offset):
                offset = np.array([0, len(series)])
            segment = np.searchsorted(offset, view.start, side="right") - 1
            whole = _Series(torch.from_numpy(series), None, None)
        n_bytes = whole.steps.nbytes
        self.resident = budget is None or n_bytes <= budget
        # A third of it: one block is worked on, the next one arrives, and the last one is let go.
        self.steps_a_block = len(whole.steps) * (budget or 0) // max(1, 3 * n_bytes)
        self.series = _moved(whole, device) if self.resident else _pinned(whole, device)
        self.offset = torch.from_numpy(offset)
        self.start = torch.from_numpy(view.start)
        self.segment = torch.from_numpy(segment)
        self.y = torch.zeros(len(view), dtype=torch.int64) if y is None else torch.from_numpy(y)
        self.jitter = view.jitter
        if view.jitter:
            assert view.low is not None
            assert view.high is not None
            assert view.step_label is not None
            self.low, self.high = torch.from_numpy(view.low), torch.from_numpy(view.high)
            self.step_label = torch.from_numpy(view.step_label)

    def __len__(self) -> int:
        """Batches an epoch of training, if the series is resident; else about as many."""
        return -(-len(self.start) // self.batch_size)

    def shuffled(self, generator: torch.Generator) -> Iterator[Batch]:
        """One epoch: every window once, in random order, moved at random as far as it may.

        Args:
            generator: on the CPU; an epoch that is left early leaves it where a whole one does.
        """
        start, y = self.moved(generator)
        n_sources = 0 if self.dropout is None else len(self.dropout.probability)
        lost = torch.zeros(len(start), n_sources, dtype=torch.bool)
        if self.dropout is not None:
            lost = self.dropout.draw(len(start), generator)
        scale = torch.zeros(len(start), 0)
        if self.scaling is not None:
            scale = self.scaling.draw(len(start), generator)
        order = self._order(y, generator)
        for series, start_of, segment_of, rows in self._blocks(start, order, generator):
            epoch = [
                part[rows].to(self.device) for part in (start_of, segment_of, y, lost, scale)
            ]  # in the order of the epoch, so that a batch is a slice
            for parts in zip(*(part.split(self.batch_size) for part in epoch), strict=True):
                yield Batch(self, series, *parts)

    def in_order(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Every window once, in order and where it stands."""
        where = self.series.steps.device
        cases = (self.start, self.segment, self.y)
        within = self.within.to(where)
        for start, segment, y in zip(*(part.split(IN_ORDER) for part in cases), strict=True):
            x = self.series.cut(start.to(where), segment.to(where), within)
            yield _encoded(x.to(self.device)), y.to(self.device)

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
        labels = self.step_label[start[:, None] + torch.arange(len(self.within))]
        n_classes = int(labels.max()) + 1
        count = torch.stack([(labels == label).sum(1) for label in range(n_classes)], dim=1)
        return (count * n_classes + torch.arange(n_classes)).argmax(1)

    def _order(self, y: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        """Which cases an epoch visits, one after another: (n_cases,) int64."""
        if not self.balanced:
            return torch.randperm(len(y), generator=generator)
        by_class = y.argsort(stable=True)
        count = torch.bincount(y)
        first = count.cumsum(0) - count
        present = count.nonzero()[:, 0]
        drawn = present[torch.randint(len(present), y.shape, generator=generator)]
        place = torch.rand(len(y), generator=generator, dtype=torch.float64) * count[drawn]
        return by_class[first[drawn] + torch.minimum(place.long(), count[drawn] - 1)]

    def _blocks(
        self, start: torch.Tensor, order: torch.Tensor, generator: torch.Generator
    ) -> Iterator[tuple[_Series, torch.Tensor, torch.Tensor, torch.Tensor]]:
        """A series on the device, starts and segments within it, and the cases to visit there."""
        if self.resident:
            yield self.series, start, self.segment, order
            return
        length = self.offset.diff()
        segments = torch.randperm(len(length), generator=generator)
        filled = length[segments].cumsum(0)
        block = torch.div(filled - 1, max(1, self.steps_a_block), rounding_mode="floor")
        blocks = [segments[block == number] for number in block.unique()]
        of_segment = torch.empty_like(segments)
        of_segment[segments] = block.unique(return_inverse=True)[1]
        with ThreadPoolExecutor(1) as fetcher:
            coming = fetcher.submit(self._fetch, blocks[0])
            for number, members in enumerate(blocks):
                series = coming.result()
                if number + 1 < len(blocks):
                    coming = fetcher.submit(self._fetch, blocks[number + 1])
                place = torch.empty_like(segments)
                place[members] = torch.arange(len(members))
                begin = torch.zeros_like(segments)
                begin[members] = length[members].cumsum(0) - length[members]
                rows = order[of_segment[self.segment[order]] == number]
                if not len(rows):  # a block without windows, or of which none was drawn
                    continue
                inside = start - self.offset[self.segment] + begin[self.segment]
                yield series, inside, place[self.segment], rows

    def _fetch(self, segments: torch.Tensor) -> _Series:
        """Some segments, one after another, on the device."""
        ends = zip(self.offset[segments].tolist(), self.offset[segments + 1].tolist(), strict=True)
        steps = torch.cat([self.series.steps[a:b] for a, b in ends])
        scale, base = self.series.scale, self.series.base
        of_segments = (None if part is None else part[segments] for part in (scale, base))
        block = _Series(steps, *of_segments)
        return _moved(_pinned(block, self.device), self.device)


def _each(series: _Series, change: Callable[[torch.Tensor], torch.Tensor]) -> _Series:
    scale, base = series.scale, series.base
    return _Series(
        change(series.steps),
        None if scale is None else change(scale),
        None if base is None else change(base),
    )


def _moved(series: _Series, device: torch.device) -> _Series:
    return _each(series, lambda part: part.to(device, non_blocking=True))


def _pinned(series: _Series, device: torch.device) -> _Series:
    """The same in memory from which a card copies by itself."""
    return _each(series, torch.Tensor.pin_memory) if device.type == "cuda" else series


def _encoded(x: torch.Tensor) -> torch.Tensor:
    """Values with 0 for missing, and the mask as further channels: (b, 2 c, t).

    The channels of a step lie side by side, as they were cut and as a CPU convolves (`blocks`).
    """
    steps, n = x.transpose(1, 2), x.shape[1]
    out = steps.new_empty(*steps.shape[:2], 2 * n)
    values, mask = out[..., :n], out[..., n:]
    torch.eq(steps, steps, out=mask)  # NaN is not itself; numbers at once, for bools are slow
    values.copy_(torch.nan_to_num_(steps.clamp(-CLIP, CLIP), nan=0.0))
    return out.transpose(1, 2)
