"""The windows of a split's parts, from its parquet, the features and the tensor shards."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from cis490.channels import CHANNELS, MODES, PHASES, SOURCES, channel_index
from cis490.errors import ConfigError, FormatError
from cis490.files import read_parquet, read_parquet_metadata
from cis490.models.base import Columns
from cis490.models.views import WindowView
from cis490.schema import STATISTICS, Schema, feature_log, feature_names
from cis490.windows.shards import TensorShard, read_tensors


@dataclass(frozen=True)
class Cases:
    """Windows of some parts of a split, sorted by part, episode_id and window.

    Attributes:
        rows: columns part, episode_id, window (int32), phase.
        X: features (n_cases, n_features) float32, or windows as views of the grid.
        y: (n_cases,) int64, index of the phase in `PHASES`.
    """

    rows: pl.DataFrame
    X: np.ndarray | WindowView
    y: np.ndarray


def columns_of(mode: str, *, tabular: bool) -> Columns:
    """What is known of the columns of `load_split`'s X: log flags, sources, absent values.

    Raises:
        ConfigError: there is no such mode.
    """
    if mode not in MODES:
        raise ConfigError(f"no mode is called {mode}; there are {', '.join(MODES)}")
    channels = [CHANNELS[i] for i in channel_index(mode)]
    each = len(STATISTICS) if tabular else 1
    sources = [channel.source for channel in channels for _ in range(each)]
    groups = {name: [i for i, of in enumerate(sources) if of == name] for name in SOURCES}
    if not tabular:
        return Columns.plain(len(channels), log=[c.log for c in channels], groups=groups)
    absent = [1.0 if name.endswith(".missing") else np.nan for name in feature_names(mode)]
    return Columns(
        np.array(feature_log(mode)),
        np.array(absent, np.float32),
        np.repeat(np.arange(len(channels)), each),
        groups,
    )


def load_split(
    split_file: Path,
    parts: Sequence[str],
    *,
    schema: Schema,
    mode: str,
    tabular: bool,
    features: Iterable[Path],
    tensors: Iterable[Path],
    jitter: bool = False,
) -> Cases:
    """Read the windows of `parts`, and of no other part, in an order that files do not decide.

    Args:
        split_file: splits/<split>.parquet or splits/fit/<split>.parquet.
        parts: of "train", "val" and "test".
        schema: what every file must have been made under.
        mode: which channels to take.
        tabular: whether X is features; else windows of the tensor shards.
        features, tensors: one file a batch, named after it; at least the batches of the parts.
        jitter: whether windows of the tensor shards may move by up to half a stride.

    Raises:
        SchemaMismatch: a file was made under another schema.
        FormatError: a file is missing or damaged, or the files do not fit each other.
    """
    split = read_parquet(split_file, columns=["episode_id", "part", "batch"])
    split = split.filter(pl.col("part").is_in(list(parts)))
    names = feature_names(mode) if tabular else []
    rows = _read_features(split, features, schema, names).sort("part", "episode_id", "window")
    X: np.ndarray | WindowView
    if tabular:
        X = np.ascontiguousarray(rows.select(names).to_numpy(), np.float32)
    else:
        X = _windows(rows, split, tensors, schema, channel_index(mode), jitter=jitter)
    rows = rows.select("part", "episode_id", "window", "phase")
    index = {phase: i for i, phase in enumerate(PHASES)}
    y = np.array([index[phase] for phase in rows["phase"]], np.int64)
    return Cases(rows, X, y)


def _by_batch(
    split: pl.DataFrame, files: Iterable[Path], what: str
) -> list[tuple[Path, pl.DataFrame]]:
    """The file of each batch of the split, with the split's episodes in it."""
    path_of = {Path(path).stem: Path(path) for path in files}
    members = split.sort("batch", "episode_id").partition_by("batch", as_dict=True)
    lacking = [batch for (batch,) in members if batch not in path_of]
    if lacking:
        raise FormatError(f"no {what} file for batch {lacking[0]}: run the workflow again")
    return [(path_of[batch], episodes) for (batch,), episodes in members.items()]


def _read_features(
    split: pl.DataFrame, files: Iterable[Path], schema: Schema, names: Sequence[str]
) -> pl.DataFrame:
    """Windows of the split's episodes: part, episode_id, window, phase and the named features."""
    start = {"episode_id": pl.String, "window": pl.Int32, "phase": pl.String}
    frames = [pl.DataFrame(schema=start | dict.fromkeys(names, pl.Float32) | {"part": pl.String})]
    for path, episodes in _by_batch(split, files, "features"):
        schema.require(read_parquet_metadata(path).get("schema_sha256", "(none)"), str(path))
        rows = read_parquet(path, columns=[*start, *names])
        part = episodes.select("episode_id", "part")
        frames.append(rows.join(part, on="episode_id", how="inner", maintain_order="left"))
    return pl.concat(frames)


def _windows(
    rows: pl.DataFrame,
    split: pl.DataFrame,
    files: Iterable[Path],
    schema: Schema,
    channels: Sequence[int],
    *,
    jitter: bool,
) -> WindowView:
    """Windows of `rows` as views of their episodes' grids, which stand in order of episode_id."""
    grids: dict[str, tuple[np.ndarray, np.ndarray, int]] = {}
    for path, episodes in _by_batch(split, files, "tensors"):
        shard = read_tensors(path, schema)
        place = {episode_id: i for i, episode_id in enumerate(shard.episode_id)}
        for episode_id in episodes["episode_id"]:
            if episode_id not in place:
                raise FormatError(f"{path} lacks episode {episode_id}: run the workflow again")
            grids[episode_id] = _grid(shard, place[episode_id], channels)
    order = sorted(grids)
    steps = [len(grids[episode_id][0]) for episode_id in order]
    first = dict(zip(order, np.cumsum([0, *steps]), strict=False))
    windows = [grids[episode_id][2] for episode_id in rows["episode_id"]]
    low = np.array([first[episode_id] for episode_id in rows["episode_id"]], np.int64)
    high = low + schema.stride * (np.array(windows, np.int64) - 1)
    start = low + schema.stride * rows["window"].to_numpy().astype(np.int64)
    if (start > high).any():
        raise FormatError("features tell of windows that the tensors lack: run the workflow again")
    empty = np.empty((0, len(channels)), np.float32)
    return WindowView(
        series=np.concatenate([empty, *(grids[episode_id][0] for episode_id in order)]),
        start=start,
        length=schema.length,
        jitter=schema.stride // 2 if jitter else 0,
        low=low,
        high=high,
        step_label=np.concatenate([np.empty(0, np.int8), *(grids[e][1] for e in order)]),
    )


def _grid(
    shard: TensorShard, i: int, channels: Sequence[int]
) -> tuple[np.ndarray, np.ndarray, int]:
    """Episode i: values (n_steps, n_channels), NaN where missing; phases (n_steps,); windows."""
    steps = slice(shard.offset[i], shard.offset[i + 1])
    values = np.where(shard.mask[channels, steps], shard.values[channels, steps], np.nan)
    return values.T.astype(np.float32), shard.phase[steps], int(shard.n_windows[i])
