"""Steps recorded on a card and played again, for small networks wait for their launches.

A step of these networks is some hundred kernels of a few microseconds each, and to start one from
Python takes longer than its work. A CUDA graph starts them all at once; what that gains is in
docs/card.md.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, Final

import torch

from cis490.errors import ConfigError
from cis490.training.batches import Batch

# Other threads fetch the next block meanwhile, which is none of a recording's business.
_MODE: Final = "thread_local"

Work = Callable[[Batch], torch.Tensor]


class Graphs:
    """Makes steps by playing recordings of them, to the same bits as making them one by one.

    A recording holds addresses: of the series, of the weights and of what the optimiser remembers.
    So the first batch of a size is left to the caller, who makes it for real (the optimiser's
    memory and libraries' workspaces come to be), the second is recorded, and all are forgotten when
    another series comes or when `forget` is called.
    """

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        """Let go of all recordings."""
        self._series: object = None
        self._met: dict[int, _Recording | None] = {}

    def step(self, batch: Batch, work: Work) -> torch.Tensor | None:
        """Do `work`, a whole step on a batch, and give what it gives, a tensor of a fixed shape.

        None: it was not done, the caller must.

        Raises:
            ConfigError: the card, its driver or torch cannot record it.
        """
        if batch.series is not self._series:
            self.forget()
            self._series = batch.series
            self._pool = torch.cuda.graph_pool_handle()
        size = len(batch)
        if size not in self._met:
            self._met[size] = None
            return None
        recording = self._met[size]
        if recording is None:
            try:
                recording = self._met[size] = _Recording(work, batch, self._pool)
            except RuntimeError as error:  # also memory that ran out; torch is of no use after it
                raise ConfigError(
                    f"steps cannot be recorded as a CUDA graph here, set training.graphs to false: "
                    f"{error}"
                ) from error
        return recording.play(batch)


class _Recording:
    """A step on batches of one size of one series: where its input is read, and what it gives."""

    def __init__(self, work: Work, batch: Batch, pool: Any) -> None:
        self._inputs = [part.clone() for part in _drawn(batch)]
        start, segment, y, lost, scale = self._inputs
        batch = replace(batch, start=start, segment=segment, y=y, lost=lost, scale=scale)
        self._graph = torch.cuda.CUDAGraph()
        with (
            _no_garbage_collected(),
            torch.cuda.graph(self._graph, pool=pool, capture_error_mode=_MODE),
        ):
            self._output = work(batch)

    def play(self, batch: Batch) -> torch.Tensor:
        for place, part in zip(self._inputs, _drawn(batch), strict=True):
            place.copy_(part)
        self._graph.replay()
        return self._output.clone()  # the next one writes to the same place


def _drawn(batch: Batch) -> tuple[torch.Tensor, ...]:
    """What differs from batch to batch of a series."""
    return batch.start, batch.segment, batch.y, batch.lost, batch.scale


@contextmanager
def _no_garbage_collected() -> Iterator[None]:
    """Keep the collector still: an older graph that it let go of would end the recording."""
    gc.collect()
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()
