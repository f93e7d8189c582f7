"""Windows as views of one long series: overlapping windows are cut when they are needed."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from cis490.windows.codes import decode


@dataclass(frozen=True)
class CodedSeries:
    """A long series held as codes, two bytes a value, and never expanded as a whole.

    Attributes:
        codes: (n_steps, n_channels) int16 (`windows.codes`); episodes one after another.
        offset: (n_episodes + 1,) int64; episode i is codes[offset[i]:offset[i + 1]].
        scale, base: (n_episodes, n_channels) float32, what an episode's codes mean: base + (code -
            LEAST) * scale, and NaN for the code MISSING or where the base is NaN.
    """

    codes: np.ndarray
    offset: np.ndarray
    scale: np.ndarray
    base: np.ndarray

    @property
    def shape(self) -> tuple[int, int]:
        """(n_steps, n_channels)."""
        return len(self.codes), self.codes.shape[1]

    def episode(self, start: np.ndarray) -> np.ndarray:
        """(n,) int64: in which episode each of the steps `start` (n,) lies."""
        return np.searchsorted(self.offset, start, side="right") - 1

    def hidden(self, channels: np.ndarray) -> CodedSeries:
        """The same with the flagged channels (n_channels,) as if they had not been measured."""
        return replace(self, base=np.where(channels, np.float32(np.nan), self.base))


@dataclass(frozen=True)
class WindowView:
    """Equal windows of one series, in the place of an (n_cases, n_channels, n_timepoints) array.

    Attributes:
        series: (n_steps, n_channels) float32, NaN where missing, or coded; episodes one after
            another. A window lies within one episode.
        start: (n_cases,) int64, the first step of each window.
        length: steps in a window.
        jitter: in training a window may start up to this many steps earlier or later.
        low, high: (n_cases,) int64, the first and last start that the jitter may reach.
        step_label: (n_steps,) integer class of each step, from which a moved window gets its label.
            Needed, like `low` and `high`, only where `jitter` is not 0.
    """

    series: np.ndarray | CodedSeries
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
        steps, series = self.start[:, None] + np.arange(self.length), self.series
        if isinstance(series, CodedSeries):
            episode = series.episode(self.start)[:, None]
            cut = decode(series.codes[steps], series.scale[episode], series.base[episode])
        else:
            cut = series[steps]
        return np.ascontiguousarray(cut.transpose(0, 2, 1))

    @property
    def shape(self) -> tuple[int, int, int]:
        """(n_cases, n_channels, n_timepoints)."""
        return len(self.start), self.series.shape[1], self.length

    def __len__(self) -> int:
        return len(self.start)
