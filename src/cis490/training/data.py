"""The windows of a split's parts, from its parquet, the features and the tensor shards."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import polars as pl

from cis490.channels import CHANNELS, MODES, PHASES, SOURCES, channel_index
from cis490.errors import ConfigError, FormatError
from cis490.files import read_parquet, read_parquet_metadata
from cis490.models.base import Columns
from cis490.models.views import CodedSeries, WindowView
from cis490.schema import STATISTICS, Schema, feature_log, feature_names
from cis490.windows.shards import read_episodes, read_sizes


@dataclass(frozen=True)
class Cases:
    """Windows of some parts of a split, sorted by part, episode_id and window.

    Beside X itself, reading takes the memory of one file of features or tensors, and of `rows`.

    Attributes:
        rows: columns part, episode_id, window (int32), phase.
        X: features (n_cases, n_features) float32, or windows as views of the coded grids.
        y: (n_cases,) int64, index of the phase in `PHASES`.
    """

    rows: pl.DataFrame
    X: np.ndarray | WindowView
    y: np.ndarray


def columns_of(mode: str, *, tabular: bool) -> Columns:
    """What is known of the columns of `load_split`'s X: log flags, sources, absent values.

    No channel of a tensor asks for its log: its codes are of values in model space already.

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
        scaled = [channel.log for channel in channels]
        return Columns.plain(len(channels), groups=groups, scaled=scaled)
    absent = [1.0 if name.endswith(".missing") else np.nan for name in feature_names(mode)]
    return Columns(
        np.array(feature_log(mode)),
        np.array(absent, np.float32),
        np.repeat(np.arange(len(channels)), each),
        groups,
        np.array(feature_log(mode)),  # a share of missing values has no scale
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
    batch: str | None = None,
    episodes: pl.Series | None = None,
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
        batch: read only the windows of its episodes.
        episodes: read only the windows of these, by episode_id.

    Raises:
        SchemaMismatch: a file was made under another schema.
        FormatError: a file is missing or damaged, or the files do not fit each other.
    """
    split = _of_parts(split_file, parts)
    if batch is not None:
        split = split.filter(batch=batch)
    if episodes is not None:
        split = split.filter(pl.col("episode_id").is_in(episodes.implode()))
    feature_files = _by_batch(split, features, "features")
    rows = _rows(feature_files, schema)
    X: np.ndarray | WindowView
    if tabular:
        X = _features(rows, feature_files, feature_names(mode))
    else:
        shards = _by_batch(split, tensors, "tensors")
        X = _windows(rows, shards, schema, channel_index(mode), jitter=jitter)
    y = rows["phase"].cast(pl.Enum(PHASES)).to_physical().to_numpy().astype(np.int64)
    return Cases(rows.select("part", "episode_id", "window", "phase"), X, y)


def load_fit(
    fit_file: Path,
    *,
    schema: Schema,
    mode: str,
    tabular: bool,
    features: Sequence[Path],
    tensors: Sequence[Path],
) -> dict[str, Cases]:
    """The windows that a training may know: train, which may move by half a stride, and val.

    Arguments and errors as of `load_split`.
    """
    return {
        part: load_split(
            fit_file,
            [part],
            schema=schema,
            mode=mode,
            tabular=tabular,
            features=features,
            tensors=tensors,
            jitter=part == "train",
        )
        for part in ("train", "val")
    }


def batches_of(split_file: Path, parts: Sequence[str]) -> list[str]:
    """The batches that hold episodes of `parts`, for `load_split` to read one after another."""
    return sorted(_of_parts(split_file, parts)["batch"].unique())


def _of_parts(split_file: Path, parts: Sequence[str]) -> pl.DataFrame:
    split = read_parquet(split_file, columns=["episode_id", "part", "batch"])
    return split.filter(pl.col("part").is_in(list(parts)))


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


def _rows(files: Sequence[tuple[Path, pl.DataFrame]], schema: Schema) -> pl.DataFrame:
    """Windows in their final order: part, episode_id, window, phase; which file and row of it."""
    columns = {"episode_id": pl.String, "window": pl.Int32, "phase": pl.String}
    found, members = [], []
    for number, (path, episodes) in enumerate(files):
        schema.require(read_parquet_metadata(path).get("schema_sha256", "(none)"), str(path))
        found.append(read_parquet(path, columns=list(columns)))
        members.append(episodes.select("episode_id", "part", file=pl.lit(number, pl.Int32)))
    heights = [frame.height for frame in found]
    places = pl.DataFrame(
        {
            "file": np.repeat(np.arange(len(files), dtype=np.int32), heights),
            "row": np.concatenate([np.empty(0, np.int64), *map(np.arange, heights)]),
        }
    )
    rows = pl.concat([pl.DataFrame(schema=columns), *found]).hstack(places)
    empty = pl.DataFrame(schema={"episode_id": pl.String, "part": pl.String, "file": pl.Int32})
    wanted = pl.concat([empty, *members])
    return rows.join(wanted, on=["episode_id", "file"]).sort("part", "episode_id", "window")


def _features(
    rows: pl.DataFrame, files: Sequence[tuple[Path, pl.DataFrame]], names: Sequence[str]
) -> np.ndarray:
    """The named features of `rows`: (n_rows, n_names) float32."""
    X = np.empty((rows.height, len(names)), np.float32)
    places = rows.select("file", "row").with_row_index("place").partition_by("file", as_dict=True)
    for (number,), of_file in places.items():
        frame = read_parquet(files[number][0], columns=names)
        X[of_file["place"].to_numpy()] = frame.to_numpy()[of_file["row"].to_numpy()]
    return X


def _windows(
    rows: pl.DataFrame,
    shards: Sequence[tuple[Path, pl.DataFrame]],
    schema: Schema,
    channels: Sequence[int],
    *,
    jitter: bool,
) -> WindowView:
    """Windows of `rows` as views of their episodes' grids, which stand in order of episode_id."""
    episodes = _episodes(shards, schema)
    ids, n_windows = episodes["episode_id"], episodes["n_windows"].to_numpy()
    offset = np.concatenate([[0], np.cumsum(episodes["n_steps"].to_numpy())]).astype(np.int64)
    place = dict(zip(ids, range(len(ids)), strict=True))
    series = CodedSeries(
        codes=np.empty((offset[-1], len(channels)), np.int16),
        offset=offset,
        scale=np.empty((len(ids), len(channels)), np.float32),
        base=np.empty((len(ids), len(channels)), np.float32),
    )
    step_label = np.empty(offset[-1], np.int8)
    # Channels side by side are copied at once, which is four times as fast as one by one.
    cuts = [0, *(np.flatnonzero(np.diff(channels) != 1) + 1), len(channels)]
    runs = [(slice(channels[a], channels[b - 1] + 1), slice(a, b)) for a, b in pairwise(cuts)]
    for path, members in shards:
        for shard in read_episodes(path, schema, members["episode_id"].to_list()):
            j = place[shard.episode_id[0]]
            there = slice(offset[j], offset[j + 1])
            step_label[there] = shard.phase
            for theirs, own in runs:
                series.codes[there, own] = shard.codes[:, theirs]
            series.scale[j], series.base[j] = shard.scale[0, channels], shard.base[0, channels]
    placed = episodes.select("episode_id").with_row_index("place")
    of_row = rows.select("episode_id").join(placed, on="episode_id", maintain_order="left")
    of = of_row["place"].to_numpy()
    low = offset[of]
    high = low + schema.stride * (n_windows[of] - 1)
    start = low + schema.stride * rows["window"].to_numpy().astype(np.int64)
    if (start > high).any():
        raise FormatError("features tell of windows that the tensors lack: run the workflow again")
    return WindowView(
        series=series,
        start=start,
        length=schema.length,
        jitter=schema.stride // 2 if jitter else 0,
        low=low,
        high=high,
        step_label=step_label,
    )


def _episodes(shards: Sequence[tuple[Path, pl.DataFrame]], schema: Schema) -> pl.DataFrame:
    """The split's episodes: episode_id, in its order; n_steps, n_windows."""
    columns = {"episode_id": pl.String, "n_steps": pl.Int64, "n_windows": pl.Int64}
    found = [pl.DataFrame(schema=columns)]
    for path, members in shards:
        ids = members["episode_id"]
        n_steps, n_windows = read_sizes(path, schema, ids.to_list())
        found.append(pl.DataFrame({"episode_id": ids, "n_steps": n_steps, "n_windows": n_windows}))
    return pl.concat(found).sort("episode_id")
