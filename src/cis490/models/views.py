"""Windows as views of one long series: overlapping windows are cut when they are needed."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class WindowView:
    """Equal windows of one series, in the place of an (n_cases, n_channels, n_timepoints) array.

    Attributes:
        series: (n_steps, n_channels) float32, NaN where missing; episodes one after another.
        start: (n_cases,) int64, the first step of each window.
        length: steps in a window.
        jitter: in training a window may start up to this many steps earlier or later.
        low, high: (n_cases,) int64, the first and last start that the jitter may reach.
        step_label: (n_steps,) integer class of each step, from which a moved window gets its label.
            Needed, like `low` and `high`, only where `jitter` is not 0.
    """

    series: np.ndarray
    start: np.ndarray
    length: int
    jitter: int = 0
    low: np.ndarray | None = None
    high: np.ndarray | None = None
    step_label: np.ndarray | None = None

    @classmethod
    def from_array(cls, X: np.ndarray) -> WindowView:
        """View an array (n_cases, n_channels, n_timepoints); its windows never move."""
        n_cases, n_channels, length = X.shape
        series = np.ascontiguousarray(X.transpose(0, 2, 1)).reshape(n_cases * length, n_channels)
        return cls(series, np.arange(n_cases, dtype=np.int64) * length, length)

    def to_array(self) -> np.ndarray:
        """Cut every window: (n_cases, n_channels, n_timepoints) float32."""
        steps = self.start[:, None] + np.arange(self.length)
        return np.ascontiguousarray(self.series[steps].transpose(0, 2, 1))

    @property
    def shape(self) -> tuple[int, int, int]:
        """(n_cases, n_channels, n_timepoints)."""
        return len(self.start), self.series.shape[1], self.length

    def __len__(self) -> int:
        return len(self.start)
