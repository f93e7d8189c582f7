"""Windows of episodes: telemetry to grid, and the grid to summary features and tensors.

Episodes of equal length are worked on together, some tens at a time: n episodes, C channels, T
steps, W windows of L steps.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import polars as pl
from numpy.typing import NDArray

from cis490 import files
from cis490.channels import CHANNELS, PHASES, SAMPLED, SOURCES, Channel, of_source
from cis490.episodes import telemetry
from cis490.files import StrPath
from cis490.logs import logger
from cis490.schema import Schema, feature_names
from cis490.windows import grid
from cis490.windows.codes import encode
from cis490.windows.features import summarise_grid
from cis490.windows.grid import Mask, Numbers, Samples, Steps, Times
from cis490.windows.shards import TensorShard, write_tensors

# Nominal intervals that a gap may last before what lies in it is missing (docs/episodes.md).
_GAP_INTERVALS: Final = 2.5
# Episodes worked on at once: enough to make calls few, few enough to stay near the processor.
_TOGETHER: Final = 32
# Steps of them, at most, unless a single one has more: an hour is 36,000.
_STEPS_TOGETHER: Final = 1 << 16
_LARGEST: Final = float(np.finfo(np.float32).max)

Tables = Mapping[str, pl.DataFrame]
Floats = NDArray[np.float32]

HEADER_SCHEMA: dict[str, Any] = {
    "episode_id": pl.String(),
    "host_id": pl.String(),
    "profile": pl.String(),
    "sample_name": pl.String(),
    "window": pl.Int32(),
    "t_start_wall_ns": pl.Int64(),
    "phase": pl.String(),
    "phase_share": pl.Float32(),
}


def build(
    folder: StrPath,
    schema: Schema,
    *,
    features: StrPath,
    tensors: StrPath,
    most_bytes: int = telemetry.MOST_BYTES,
) -> None:
    """Make the features and tensors of one batch.

    Args:
        folder: the batch's telemetry.
        schema: grid, windows and statistics.
        features: Parquet file to write, a row a window.
        tensors: shard to write, each episode once (`windows.shards`).
        most_bytes: of telemetry read at once (`telemetry.read_pieces`).
    """
    windows = joined(
        [windows_of(frames, schema) for frames in telemetry.read_pieces(folder, most_bytes)]
    )
    write_windows(windows, schema, features=features, tensors=tensors)
    header, _, shard = windows
    n_episodes = len(shard.episode_id)
    logger.info("%s: %d windows of %d episodes", Path(folder).name, header.height, n_episodes)


def write_windows(
    windows: tuple[pl.DataFrame, Floats, TensorShard],
    schema: Schema,
    *,
    features: StrPath,
    tensors: StrPath,
) -> None:
    """Write what `windows_of` made; the other arguments as of `build`."""
    header, summary, shard = windows
    columns = [pl.Series(name, summary[:, i]) for i, name in enumerate(feature_names("oracle"))]
    metadata = {"kind": "cis490.features", "version": "1", "schema_sha256": schema.sha256}
    files.write_parquet(features, header.with_columns(columns), metadata)
    write_tensors(tensors, shard, schema)


def joined(
    pieces: list[tuple[pl.DataFrame, Floats, TensorShard]],
) -> tuple[pl.DataFrame, Floats, TensorShard]:
    """What `windows_of` made of some episodes after others, at least one piece, as one."""
    if len(pieces) == 1:
        return pieces[0]
    headers, features, shards = zip(*pieces, strict=True)
    return pl.concat(headers), np.concatenate(features), TensorShard.joined(shards)


def windows_of(frames: Tables, schema: Schema) -> tuple[pl.DataFrame, Floats, TensorShard]:
    """The windows of some episodes.

    What an episode gives does not depend, to the bit, on those beside it.

    Args:
        frames: telemetry as `telemetry.collect` makes and `telemetry.read` reads it.
        schema: grid, windows and statistics.

    Returns:
        A row a window in the columns of `HEADER_SCHEMA`, episodes in the order of the table
        `episodes`; the features, float32 (n_windows, 276); and the grids.
    """
    episodes = frames["episodes"]
    sources = _Sources.of(frames)
    durations = sources.duration_ns.tolist()
    n_windows = [grid.n_windows(d, schema.hz, schema.length, schema.stride) for d in durations]
    n_steps = [
        max(d * schema.hz // 10**9, (n - 1) * schema.stride + schema.length if n else 0)
        for d, n in zip(durations, n_windows, strict=True)
    ]
    offset = np.concatenate([[0], np.cumsum(n_steps, dtype=np.int64)]).astype(np.int64)
    first_window = np.concatenate([[0], np.cumsum(n_windows, dtype=np.int64)]).astype(np.int64)
    shard = TensorShard(
        episode_id=episodes["episode_id"].to_list(),
        offset=offset,
        n_windows=np.array(n_windows, np.int64),
        codes=np.empty((offset[-1], len(CHANNELS)), np.int16),
        scale=np.empty((len(n_steps), len(CHANNELS)), np.float32),
        base=np.empty((len(n_steps), len(CHANNELS)), np.float32),
        phase=np.empty(offset[-1], np.int8),
    )
    features = np.empty((first_window[-1], len(feature_names("oracle"))), np.float32)
    phase = np.empty(first_window[-1], np.int64)
    share = np.empty(first_window[-1])
    for some in _alike(n_steps, n_windows):
        steps = Steps(grid.step_edges(n_steps[some[0]], schema.hz), len(some))
        values, mask = _grid(sources, some, steps, schema)
        codes, shard.scale[some], shard.base[some] = encode(values, mask)
        labels = _Labels.of(sources.labels, some)
        of_step = labels.at(steps)
        of_window, of_share = labels.over(steps, n_windows[some[0]], schema)
        for i, episode in enumerate(some):
            there = slice(offset[episode], offset[episode + 1])
            shard.codes[there], shard.phase[there] = codes[i], of_step[i]
            rows = slice(first_window[episode], first_window[episode + 1])
            phase[rows], share[rows] = of_window[i], of_share[i]
            features[rows] = summarise_grid(
                *(values[:, i], mask[:, i]),
                n_windows=n_windows[episode],
                length=schema.length,
                stride=schema.stride,
                hz=schema.hz,
            )
    return _header(episodes, n_windows, phase, share, schema), features, shard


def _alike(n_steps: list[int], n_windows: list[int]) -> Iterator[list[int]]:
    """Positions of episodes that have equally many steps and windows, some tens at a time."""
    groups: dict[tuple[int, int], list[int]] = {}
    for position, shape in enumerate(zip(n_steps, n_windows, strict=True)):
        groups.setdefault(shape, []).append(position)
    for (steps, _), group in groups.items():
        n = max(1, min(_TOGETHER, _STEPS_TOGETHER // max(1, steps)))
        for start in range(0, len(group), n):
            yield group[start : start + n]


class _Rows:
    """The rows of one table of a batch as arrays; times are ns after their episode's start."""

    def __init__(self, frame: pl.DataFrame, started: Times) -> None:
        episode = frame["episode"].to_numpy()
        since = started[episode]
        # Of the two clocks only the wall clock is common to all sources.
        wall = frame["t_wall_ns"].to_numpy()
        self.t: Times = np.clip(wall, since - grid.FAR_NS, since + grid.FAR_NS) - since
        self._bounds = np.searchsorted(episode, np.arange(len(started) + 1))

    def take(self, some: list[int]) -> tuple[slice | NDArray[np.intp], NDArray[np.intp]]:
        """Row numbers of some episodes, and for each row which of those episodes it is of."""
        begin, end = self._bounds[some], self._bounds[np.add(some, 1)]
        episode = np.repeat(np.arange(len(some)), end - begin)
        if some[-1] - some[0] == len(some) - 1:  # neighbours: no row is copied
            return slice(int(begin[0]), int(end[-1])), episode
        return np.concatenate(list(map(np.arange, begin, end))), episode


class _Channels(_Rows):
    """The rows of a sampled source, with its channels as arrays (values, which are null)."""

    def __init__(self, frame: pl.DataFrame, started: Times, source: str) -> None:
        super().__init__(frame, started)
        self.columns: list[tuple[Channel, Numbers, Mask | None]] = []
        for channel in of_source(source):
            column = frame[channel.name]
            null = column.is_null().to_numpy() if column.null_count() else None
            values = column if null is None else column.fill_null(0)
            self.columns.append((channel, values.to_numpy(), null))


@dataclass(frozen=True)
class _Flows:
    """The rows of netflow, and its flushes: the records of one episode and time.

    Attributes:
        rows: a record each.
        amounts: (8, n_records) float64 what is summed, NaN where unknown.
        flushes: a flush each, with its time.
        counts: (2, n_flushes) float64 distinct flows and destinations.
    """

    rows: _Rows
    amounts: NDArray[np.float64]
    flushes: _Rows
    counts: NDArray[np.float64]

    @classmethod
    def of(cls, netflow: pl.DataFrame, started: Times) -> _Flows:
        """Of the table `netflow`, and when each episode started."""
        # A flow's flags and protocol say what its record counts as; where they are unknown, and
        # only then, so is the count.
        flags = pl.col("tcp_flags")
        may_have_flags = pl.col("proto").is_null() | (pl.col("proto") == "tcp")
        flagless = pl.when(may_have_flags).then(None).otherwise(0)
        amounts = netflow.select(
            "pkts_out",
            "bytes_out",
            "pkts_in",
            "bytes_in",
            syn=pl.coalesce((flags & 2) // 2, flagless),
            rst=pl.coalesce((flags & 4) // 4, flagless),
            arp=pl.col("proto") == "arp",
            new_flows=pl.col("new"),
        ).select(pl.all().cast(pl.Float64).fill_null(float("nan")))
        flushes = (
            netflow.lazy()
            .group_by("episode", "t_wall_ns")
            .agg(
                flows=pl.struct("proto", "src", "sport", "dst", "dport").n_unique(),
                dsts=pl.col("dst").n_unique(),
            )
            .sort("episode", "t_wall_ns")
            .collect()
        )
        counts = flushes.select(pl.col("flows", "dsts").cast(pl.Float64))
        return cls(
            _Rows(netflow, started),
            amounts.to_numpy().T,
            _Rows(flushes, started),
            counts.to_numpy().T,
        )


@dataclass(frozen=True)
class _Sources:
    """What the sources of a batch's episodes measured.

    Attributes:
        duration_ns: int64 (n,) of each episode.
        interval_s: float64 (n,) nominal interval of each source; NaN: no such source.
        sampled: the sources of counters and gauges.
        flows: netflow.
        labels: the phases.
    """

    duration_ns: Times
    interval_s: dict[str, NDArray[np.float64]]
    sampled: dict[str, _Channels]
    flows: _Flows
    labels: _LabelRows

    @classmethod
    def of(cls, frames: Tables) -> _Sources:
        """Of a batch's telemetry."""
        episodes = frames["episodes"]
        started = episodes["started_wall_ns"].to_numpy()
        return cls(
            episodes["ended_wall_ns"].to_numpy() - started,
            {name: episodes[f"interval_s_{name}"].to_numpy() for name in SOURCES},
            {name: _Channels(frames[name], started, name) for name in SAMPLED},
            _Flows.of(frames["netflow"], started),
            _LabelRows(frames["labels"], started),
        )


def _grid(sources: _Sources, some: list[int], steps: Steps, schema: Schema) -> tuple[Floats, Mask]:
    """All channels of n alike episodes: float32 (C, n, T), 0 where missing, and their mask."""
    shape = (len(CHANNELS), len(some), steps.n_steps)
    values, mask = np.empty(shape, np.float32), np.empty(shape, bool)
    stop = 0
    for source in SOURCES:
        start, stop = stop, stop + len(of_source(source))
        interval_s = sources.interval_s[source][some]
        if source == "netflow":
            duration_ns = sources.duration_ns[some]
            found = _flows(sources.flows, some, duration_ns, interval_s, steps, schema.hz)
        else:
            gap_s = schema.max_gap_s or _GAP_INTERVALS * interval_s
            gap_ns = np.broadcast_to(gap_s * 1e9, len(some))
            found = _sampled(sources.sampled[source], some, gap_ns, steps, schema.hz)
        for i, (level, there) in zip(range(start, stop), found, strict=True):
            np.clip(level, -_LARGEST, _LARGEST, out=values[i], casting="same_kind")
            mask[i] = there
    return values, mask


def _sampled(
    source: _Channels, some: list[int], gap_ns: NDArray[np.float64], steps: Steps, hz: int
) -> Iterator[tuple[NDArray[np.float64], Mask]]:
    """Counters and gauges: (n, T) each."""
    rows, episode = source.take(some)
    t, gap_ns = source.t[rows] + episode * grid.SPAN, gap_ns[episode]
    everywhere = Samples(t, gap_ns, steps)
    for channel, values, null in source.columns:
        samples, v = everywhere, values[rows]
        if null is not None and (missing := null[rows]).any():
            samples, v = Samples(t[~missing], gap_ns[~missing], steps), v[~missing]
        yield (
            samples.counter(v, hz=hz, modulus=channel.modulus)
            if channel.kind == "counter"
            else samples.gauge(v)
        )


def _flows(
    flows: _Flows,
    some: list[int],
    duration_ns: Times,
    interval_s: NDArray[np.float64],
    steps: Steps,
    hz: int,
) -> Iterator[tuple[NDArray[np.float64], Mask]]:
    """The ten netflow channels, in the order of `channels.CHANNELS`: (n, T) each."""
    there = ~np.isnan(interval_s)
    interval_ns = np.round(np.where(there, interval_s, 1.0) * 1e9).astype(np.int64)
    mask = grid.silence(duration_ns, steps) & there[:, None]
    rows, of = flows.rows.take(some)
    yield from zip(
        *grid.spread_sums(
            flows.rows.t[rows],
            of,
            flows.amounts[:, rows],
            interval_ns=interval_ns,
            mask=mask,
            steps=steps,
            hz=hz,
        ),
        strict=True,
    )
    rows, of = flows.flushes.take(some)
    yield from zip(
        *grid.hold_counts(
            flows.flushes.t[rows] + of * grid.SPAN,
            flows.counts[:, rows],
            interval_ns=interval_ns[of],
            mask=mask,
            steps=steps,
        ),
        strict=True,
    )


class _LabelRows(_Rows):
    """The labels of a batch, their phases as positions in `PHASES`."""

    def __init__(self, frame: pl.DataFrame, started: Times) -> None:
        super().__init__(frame, started)
        index = {phase: i for i, phase in enumerate(PHASES)}
        self.phase = np.array([index[phase] for phase in frame["phase"]], np.int8)


@dataclass(frozen=True)
class _Labels:
    """Which phase holds when, in n episodes: each label from `begin` to `end`, on its own axis."""

    episode: NDArray[np.intp]
    phase: NDArray[np.int8]
    begin: Times
    end: Times

    @classmethod
    def of(cls, labels: _LabelRows, some: list[int]) -> _Labels:
        """The first label of an episode reaches back to its start, the last on without end."""
        rows, episode = labels.take(some)
        t, phase = labels.t[rows], labels.phase[rows]
        # A label that repeats the one before it says nothing: at most one a phase is left.
        says = np.append(True, (episode[1:] != episode[:-1]) | (phase[1:] != phase[:-1]))
        t, episode, phase = t[says], episode[says], phase[says]
        new = np.append(True, episode[1:] != episode[:-1])
        begin = np.where(new, -grid.FAR_NS, t)
        end = np.where(np.append(new[1:], True), grid.FAR_NS, np.append(t[1:], 0))
        return cls(episode, phase, begin, end)

    def at(self, steps: Steps) -> NDArray[np.int8]:
        """(n, T) phase in the middle of each step."""
        middle = ((steps.begin + steps.end) // 2).ravel()
        begin = self.begin + self.episode * grid.SPAN
        held = np.searchsorted(begin, middle, side="right") - 1
        return self.phase[held].reshape(steps.n_episodes, steps.n_steps)

    def over(
        self, steps: Steps, n_windows: int, schema: Schema
    ) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """(n, W) phase that covers most of each window (a tie: the later one), and its share."""
        starts = np.arange(n_windows) * schema.stride
        start, stop = steps.edges[starts], steps.edges[starts + schema.length]
        held = np.minimum(stop, self.end[:, None]) - np.maximum(start, self.begin[:, None])
        covered = np.zeros((steps.n_episodes, len(PHASES), n_windows), np.int64)
        np.add.at(covered, (self.episode, self.phase), np.maximum(held, 0))
        latest = len(PHASES) - 1 - covered[:, ::-1].argmax(axis=1)
        return latest, covered.max(axis=1) / (stop - start)


def _header(
    episodes: pl.DataFrame,
    n_windows: list[int],
    phase: NDArray[np.int64],
    share: NDArray[np.float64],
    schema: Schema,
) -> pl.DataFrame:
    of = np.repeat(np.arange(len(n_windows)), n_windows)
    window = np.concatenate([np.empty(0, np.int64), *map(np.arange, n_windows)])
    start_ns = grid.step_edges(int(window.max(initial=0)) * schema.stride, schema.hz)
    started = episodes["started_wall_ns"].to_numpy()[of]
    columns: list[pl.Series] = [episodes[name][of] for name in list(HEADER_SCHEMA)[:4]]
    columns += [
        pl.Series("window", window),
        pl.Series("t_start_wall_ns", started + start_ns[window * schema.stride]),
        pl.Series("phase", np.array(PHASES, dtype=object)[phase], dtype=pl.String),
        pl.Series("phase_share", share),
    ]
    return pl.DataFrame(columns).cast(pl.Schema(HEADER_SCHEMA))
