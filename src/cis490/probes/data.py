"""The windows that probes look at: all of a small store, whole episodes drawn from a large one."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import polars as pl

from cis490.channels import CHANNELS, channel_index
from cis490.errors import Cis490Error
from cis490.files import read_parquet, write_parquet
from cis490.models.base import Columns
from cis490.schema import STATISTICS, Schema
from cis490.training.data import columns_of, load_split

# Windows of a part that are looked at, at most: some 370 episodes of a minute train, and each
# fit stays within seconds.
MOST: Final = {"train": 4096, "val": 2048, "test": 4096}


class NotMeasurable(Cis490Error):
    """What a probe asks cannot be said of these episodes, and why."""


@dataclass(frozen=True)
class Windows:
    """Windows of n episodes, sorted by part, episode and window.

    Attributes:
        frame: columns part, episode_id, window, host_id, profile and phase (index into PHASES).
        X: (n_windows, 276) float32, the features of all channels (`schema.feature_names`,
            oracle); None where no features are needed.
    """

    frame: pl.DataFrame
    X: np.ndarray | None = None

    @property
    def y(self) -> np.ndarray:
        """(n_windows,) int64, index into PHASES."""
        return self.frame["phase"].to_numpy().astype(np.int64)

    @property
    def unit(self) -> np.ndarray:
        """(n_windows,) int64 in [0, n), the episode of each window."""
        return self.frame["episode_id"].rle_id().to_numpy().astype(np.int64)

    @property
    def episodes(self) -> pl.DataFrame:
        """A row an episode, in the order of `unit`: part, episode_id, host_id, profile."""
        names = ["part", "episode_id", "host_id", "profile"]
        return self.frame.select(names).unique("episode_id", maintain_order=True)

    @property
    def profile(self) -> list[str]:
        """Of each episode: the strata of the bootstrap."""
        return self.episodes["profile"].to_list()

    def features(self, kept: np.ndarray) -> np.ndarray:
        """(n_windows, len(kept)) float32, some columns of X."""
        assert self.X is not None
        return self.X[:, kept]

    def shows(self, channel: int) -> np.ndarray:
        """(n_windows,) bool: a channel (position in CHANNELS) has a value in the window."""
        levels = [i for i, name in enumerate(STATISTICS) if name != "missing"]
        return np.asarray(~np.isnan(self.features(columns_at([channel])[levels])).all(1))

    def __len__(self) -> int:
        return len(self.frame)


def joined(*parts: Windows) -> Windows:
    """Windows of several parts with features, in their order."""
    X = np.concatenate([part.X for part in parts if part.X is not None])
    return Windows(pl.concat([part.frame for part in parts]), X)


def draw(windows: pl.DataFrame, most: int) -> pl.DataFrame:
    """The windows of so many episodes that they are at most `most`; all, if they are no more.

    Episodes are taken by the hash of their ids, so the draw is random, and the same each time.

    Args:
        windows: columns episode_id and others, sorted by episode.
        most: windows; the first episode is taken in any case.
    """
    if len(windows) <= most:
        return windows
    sizes = dict(windows.group_by("episode_id").len().rows())
    total, kept = 0, list[str]()
    for episode_id in sorted(sizes, key=_hash):
        total += sizes[episode_id]
        if kept and total > most:
            break
        kept.append(episode_id)
    return windows.filter(pl.col("episode_id").is_in(kept))


def load(
    windows: pl.DataFrame,
    split_file: Path,
    *,
    schema: Schema,
    features: Sequence[Path],
    folder: Path,
) -> Windows:
    """The features of some windows of one part.

    Args:
        windows: as `evaluation.inputs.read_windows` gives them, whole episodes of one part.
        split_file: splits/<split>.parquet.
        schema: what features were made under.
        features: a file a batch.
        folder: for a split of these episodes alone, so that no others are read.
    """
    part = windows["part"][0] if len(windows) else "none"
    small = restricted(split_file, windows["episode_id"], folder / f"{part}.parquet")
    cases = load_split(
        small, [part], schema=schema, mode="oracle", tabular=True, features=features, tensors=[]
    )
    assert cases.rows.select("episode_id", "window").equals(windows.select("episode_id", "window"))
    assert isinstance(cases.X, np.ndarray)
    return Windows(windows, cases.X)


def restricted(split_file: Path, episodes: pl.Series, out: Path) -> Path:
    """Write the rows of a split or fit file that are of some episodes; return `out`."""
    split = read_parquet(split_file)
    write_parquet(out, split.filter(pl.col("episode_id").is_in(episodes.unique().to_list())))
    return out


def columns_at(channels: Sequence[int]) -> np.ndarray:
    """Positions in `Windows.X` of all statistics of some channels (positions in CHANNELS)."""
    each = len(STATISTICS)
    return (np.asarray(channels, np.int64)[:, None] * each + np.arange(each)).ravel()


def of_mode(mode: str, *, without: str | None = None) -> np.ndarray:
    """Positions in `Windows.X` of what a mode may see, of all sources but one."""
    return columns_at([i for i in channel_index(mode) if CHANNELS[i].source != without])


def told_of(kept: np.ndarray) -> Columns:
    """What is known of some columns of `Windows.X`."""
    whole = columns_of("oracle", tabular=True)
    place = {int(old): new for new, old in enumerate(kept)}
    groups = {
        source: [place[i] for i in members if i in place]
        for source, members in whole.groups.items()
    }
    scaled = None if whole.scaled is None else whole.scaled[kept]
    return Columns(whole.log[kept], whole.absent[kept], whole.channel[kept], groups, scaled)


def folds(episodes: pl.DataFrame, n_folds: int) -> np.ndarray:
    """(n,) int64 fold of each episode: those of a host and profile go to all folds in turn.

    Raises:
        NotMeasurable: there are fewer episodes than folds.
    """
    if len(episodes) < n_folds:
        raise NotMeasurable(f"it takes {n_folds} episodes, there are {len(episodes)}")
    rows = episodes.select("host_id", "profile", "episode_id").rows()
    order = sorted(range(len(rows)), key=lambda i: (*rows[i][:2], _hash(rows[i][2])))
    fold = np.empty(len(rows), np.int64)
    fold[order] = np.arange(len(rows)) % n_folds
    return fold


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
