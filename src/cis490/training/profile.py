"""Where the time of a training goes: a trace of some of its steps, and the share that is input."""

from __future__ import annotations

import logging
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import torch
from torch.autograd import DeviceType

from cis490.files import replacing, write_json
from cis490.training.batches import INPUT

logger = logging.getLogger("cis490")

SKIPPED: Final = 5  # steps before that, which compile and allocate
RECORDED: Final = 20  # steps that a trace shows


class Profiler:
    """Records some steps of a training with torch.profiler, if it was given a folder.

    Writes `trace.json`, for chrome://tracing or Perfetto, and `profile.json`: the number of steps,
    the milliseconds of a step and the share of them spent on making input, all on the CPU's clock.
    """

    def __init__(self, folder: Path | None) -> None:
        self.folder, self.done = folder, 0
        self._profile = None
        if folder is not None:
            self._profile = torch.profiler.profile(
                schedule=torch.profiler.schedule(wait=0, warmup=SKIPPED, active=RECORDED, repeat=1),
                on_trace_ready=self._write,
            )

    def __enter__(self) -> Self:
        if self._profile is not None:
            self._profile.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._profile is not None:
            self._profile.__exit__(kind, error, trace)
            if self.done <= SKIPPED:
                logger.info("a training of %d steps is too short for a profile", self.done)

    def step(self) -> None:
        """Say that a step ended."""
        if self._profile is not None:
            self.done += 1
            self._profile.step()

    def _write(self, profile: torch.profiler.profile) -> None:
        assert self.folder is not None
        # A card's queue is told of apart, under the same names.
        events = [e for e in profile.key_averages() if e.device_type == DeviceType.CPU]
        steps = [event for event in events if event.key.startswith("ProfilerStep")]
        whole = sum(event.cpu_time_total for event in steps)
        waited = sum(event.cpu_time_total for event in events if event.key == INPUT)
        n_steps = sum(event.count for event in steps)
        with replacing(self.folder / "trace.json") as partial:
            profile.export_chrome_trace(str(partial))
        share = waited / whole
        told = {"n_steps": n_steps, "step_ms": whole / n_steps / 1000, "input_share": share}
        write_json(self.folder / "profile.json", told)
        logger.info("%.0f%% of a step's time is input (n=%d steps)", 100 * share, n_steps)
