"""Windows of episodes: telemetry to grid, and the grid to summary features and tensors."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from cis490 import files
from cis490.channels import CHANNELS, PHASES, SOURCES, of_source
from cis490.episodes import telemetry
from cis490.files import StrPath
from cis490.logs import logger
from cis490.schema import Schema, feature_names
from cis490.windows import grid
from cis490.windows.features import summarise
from cis490.windows.shards import TensorShard, write_tensors

# Nominal intervals that a gap may last before what lies in it is missing (docs/episodes.md).
_GAP_INTERVALS = 2.5
# Rows further than this from the start cannot reach the grid; the bound keeps int64 from overflow.
_FAR_NS = 10**15
_LARGEST = float(np.finfo(np.float32).max)

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
) -> None:
    """Make the features and tensors of one batch.

    Args:
        folder: the batch's telemetry.
        schema: grid, windows and statistics.
        features: Parquet file to write, a row a window.
        tensors: shard to write, each episode once (`windows.shards`).
    """
    headers, rows, shards = [], [], []
    for episode, tables in _episodes(telemetry.read(folder)):
        frame, summary, shard = windows_of(episode, tables, schema)
        headers.append(frame)
        rows.append(summary)
        shards.append(shard)
    header = pl.concat([pl.DataFrame(schema=HEADER_SCHEMA), *headers])
    names = feature_names("oracle")
    summary = np.concatenate([np.empty((0, len(names)), np.float32), *rows])
    columns = [pl.Series(name, summary[:, i]) for i, name in enumerate(names)]
    metadata = {"kind": "cis490.features", "version": "1", "schema_sha256": schema.sha256}
    files.write_parquet(features, header.with_columns(columns), metadata)
    write_tensors(tensors, _join(shards), schema)
    logger.info("%s: %d windows of %d episodes", Path(folder).name, header.height, len(shards))


def windows_of(
    header: Mapping[str, Any], tables: Tables, schema: Schema
) -> tuple[pl.DataFrame, Floats, TensorShard]:
    """The windows of one episode.

    Args:
        header: its row of the telemetry table `episodes`.
        tables: its other tables, without the column `episode`.
        schema: grid, windows and statistics.

    Returns:
        A row a window in the columns of `HEADER_SCHEMA`; the features, float32
        (n_windows, 276); and the grid as a shard of one episode.
    """
    hz, length, stride = schema.hz, schema.length, schema.stride
    duration_ns = header["ended_wall_ns"] - header["started_wall_ns"]
    n_windows = grid.n_windows(duration_ns, hz, length, stride)
    n_steps = max(duration_ns * hz // 10**9, (n_windows - 1) * stride + length if n_windows else 0)
    edges = grid.step_edges(n_steps, hz)
    values, mask = _grid(header, tables, edges, duration_ns, schema)
    label_times = _relative(tables["labels"], header)
    phase = np.array([PHASES.index(name) for name in tables["labels"]["phase"]], np.int8)
    middle = (edges[:-1] + edges[1:]) // 2
    shard = TensorShard(
        episode_id=[header["episode_id"]],
        offset=np.array([0, n_steps]),
        n_windows=np.array([n_windows]),
        values=values,
        mask=mask,
        phase=phase[np.maximum(np.searchsorted(label_times, middle, side="right") - 1, 0)],
    )
    starts = np.arange(n_windows) * stride
    of_window = starts[:, None] + np.arange(length)  # (n_windows, length) steps
    summary = summarise(
        np.moveaxis(values[:, of_window], 0, 1), np.moveaxis(mask[:, of_window], 0, 1), hz
    )
    window_phase, share = _phases(label_times, phase, edges[starts], edges[starts + length])
    frame = pl.DataFrame(
        {
            **{name: [header[name]] * n_windows for name in list(HEADER_SCHEMA)[:4]},
            "window": np.arange(n_windows),
            "t_start_wall_ns": header["started_wall_ns"] + edges[starts],
            "phase": [PHASES[p] for p in window_phase],
            "phase_share": share,
        },
        HEADER_SCHEMA,
        strict=False,
    )
    return frame, summary, shard


def _grid(
    header: Mapping[str, Any],
    tables: Tables,
    edges: NDArray[np.int64],
    duration_ns: int,
    schema: Schema,
) -> tuple[Floats, NDArray[np.bool_]]:
    """All channels on the grid: float32 (46, n_steps), 0 where missing, and their mask."""
    n_steps = len(edges) - 1
    values = np.zeros((len(CHANNELS), n_steps))
    mask = np.zeros((len(CHANNELS), n_steps), bool)
    row = 0
    for source in SOURCES:
        rows = slice(row, row + len(of_source(source)))
        row = rows.stop
        interval_s = header[f"interval_s_{source}"]
        if interval_s is None or source not in tables:
            continue
        gap_s = schema.max_gap_s or _GAP_INTERVALS * interval_s
        t = _relative(tables[source], header)
        if source == "netflow":
            values[rows], mask[rows] = _flows(
                t, tables[source], edges, round(interval_s * 1e9), duration_ns, schema.hz
            )
            continue
        for i, channel in enumerate(of_source(source), start=rows.start):
            column = tables[source][channel.name]
            if column.null_count():
                valid = column.is_not_null().to_numpy()
                at, v = t[valid], column.drop_nulls().to_numpy()
            else:
                at, v = t, column.to_numpy()
            if channel.kind == "counter":
                values[i], mask[i] = grid.counter_rates(
                    at, v, edges, gap_ns=gap_s * 1e9, hz=schema.hz, modulus=channel.modulus
                )
            else:
                values[i], mask[i] = grid.gauge_levels(at, v, edges, gap_ns=gap_s * 1e9)
    return np.clip(values, -_LARGEST, _LARGEST).astype(np.float32), mask


def _flows(
    t: NDArray[np.int64],
    flows: pl.DataFrame,
    edges: NDArray[np.int64],
    interval_ns: int,
    end_ns: int,
    hz: int,
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """The ten netflow channels, in the order of `channels.CHANNELS`."""
    # A flow's flags and protocol say what its record counts as; where they are unknown, and only
    # then, so is the count.
    flags = pl.col("tcp_flags")
    flagless = (
        pl.when(pl.col("proto").is_null() | (pl.col("proto") == "tcp")).then(None).otherwise(0)
    )
    sums = flows.select(
        *(
            pl.col(name).cast(pl.Float64)
            for name in ("pkts_out", "bytes_out", "pkts_in", "bytes_in")
        ),
        syn=pl.coalesce((flags & 2) // 2, flagless).cast(pl.Float64),
        rst=pl.coalesce((flags & 4) // 4, flagless).cast(pl.Float64),
        arp=(pl.col("proto") == "arp").cast(pl.Float64),
        new_flows=pl.col("new").cast(pl.Float64),
    )
    amounts = sums.fill_null(float("nan")).to_numpy().T
    summed = grid.spread_sums(t, amounts, edges, interval_ns=interval_ns, end_ns=end_ns, hz=hz)
    flow = pl.struct("proto", "src", "sport", "dst", "dport")
    flushes = (
        flows.with_columns(t=pl.Series(t))
        .group_by("t")
        .agg(flows=flow.n_unique(), dsts=pl.col("dst").n_unique())
        .sort("t")
    )
    counts = flushes.select("flows", "dsts").cast(pl.Float64).to_numpy().T
    held = grid.hold_counts(
        flushes["t"].to_numpy(), counts, edges, interval_ns=interval_ns, end_ns=end_ns
    )
    return np.concatenate([summed[0], held[0]]), np.concatenate([summed[1], held[1]])


def _phases(
    label_times: NDArray[np.int64],
    phase: NDArray[np.int8],
    start: NDArray[np.int64],
    stop: NDArray[np.int64],
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """The phase that covers the largest part of each window (a tie: the later), and its share."""
    # The first label reaches back to the start, the last one on without end.
    begins = np.concatenate([[np.iinfo(np.int64).min // 2], label_times[1:]])
    ends = np.concatenate([label_times[1:], [np.iinfo(np.int64).max // 2]])
    held = np.minimum(stop[:, None], ends) - np.maximum(start[:, None], begins)
    covered = np.zeros((len(start), len(PHASES)), np.int64)
    np.add.at(covered.T, phase, np.maximum(held, 0).T)
    latest = len(PHASES) - 1 - covered[:, ::-1].argmax(axis=1)
    return latest, covered.max(axis=1, initial=0) / (stop - start)


def _relative(rows: pl.DataFrame, header: Mapping[str, Any]) -> NDArray[np.int64]:
    """Times of rows in ns after the start. Of the two clocks only the wall clock is common."""
    started = header["started_wall_ns"]
    wall: NDArray[np.int64] = rows["t_wall_ns"].to_numpy()
    times: NDArray[np.int64] = np.clip(wall, started - _FAR_NS, started + _FAR_NS) - started
    return times


def _episodes(frames: Tables) -> Iterator[tuple[dict[str, Any], dict[str, pl.DataFrame]]]:
    """Each episode of a batch with its rows of each table."""
    headers = frames["episodes"].to_dicts()
    ordinals = pl.Series(range(len(headers) + 1), dtype=pl.UInt32)
    bounds = {
        name: frames[name]["episode"].search_sorted(ordinals, side="left").to_list()
        for name in telemetry.TABLES[1:]
    }
    rows = {name: frames[name].drop("episode") for name in bounds}
    for i, header in enumerate(headers):
        yield (
            header,
            {
                name: rows[name].slice(bound[i], bound[i + 1] - bound[i])
                for name, bound in bounds.items()
            },
        )


def _join(shards: list[TensorShard]) -> TensorShard:
    no_values, no_mask = (
        np.empty((len(CHANNELS), 0), np.float32),
        np.empty((len(CHANNELS), 0), bool),
    )
    steps = [shard.offset[1] for shard in shards]
    return TensorShard(
        episode_id=[shard.episode_id[0] for shard in shards],
        offset=np.concatenate([[0], np.cumsum(steps, dtype=np.int64)]).astype(np.int64),
        n_windows=np.array([shard.n_windows[0] for shard in shards], np.int64),
        values=np.concatenate([no_values, *(shard.values for shard in shards)], axis=1),
        mask=np.concatenate([no_mask, *(shard.mask for shard in shards)], axis=1),
        phase=np.concatenate([np.empty(0, np.int8), *(s.phase for s in shards)]),
    )
