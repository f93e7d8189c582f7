"""The plain reference: an episode to features and grid with json.loads, loops and floats.

What a competent person writes from docs/episodes.md with nothing but Python: each line is decoded
once, steps are found once a source, constant windows take a short cut. What it finds it writes with
the library's own encoder and writers. It judges nothing and keeps no telemetry, so it does less
than what it is compared with.
"""

from __future__ import annotations

import io
import json
import tarfile
from bisect import bisect_left, bisect_right
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import accumulate, pairwise
from math import nan, sqrt
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import zstandard

from cis490 import files
from cis490.channels import NOMINAL_INTERVAL_S, PHASES, SOURCES, Channel, of_source
from cis490.schema import Schema, feature_names
from cis490.windows.codes import encode
from cis490.windows.shards import TensorShard, write_tensors

SECOND = 10**9
GAP_INTERVALS = 2.5
COMPLETE = 0.95
FAR = 10**18

Row = dict[str, Any]
Series = list[float | None]  # None: missing


@dataclass(frozen=True)
class Plain:
    """One episode: C channels, T steps, W windows.

    Attributes:
        grid: C lists of T rates or levels, None where missing.
        step_phase: T indices into `PHASES`.
        features: W lists of C * 6 statistics, nan where there is none.
        phase, share: of each window.
    """

    grid: list[Series]
    step_phase: list[int]
    features: list[list[float]]
    phase: list[int]
    share: list[float]


def read(path: Path) -> dict[str, bytes]:
    """The members of an episode's file."""
    unzipped = zstandard.ZstdDecompressor().decompressobj().decompress(path.read_bytes())
    with tarfile.open(fileobj=io.BytesIO(unzipped)) as tar:
        members = {info.name: tar.extractfile(info) for info in tar}
        return {name: member.read() for name, member in members.items() if member}


def episode(members: dict[str, bytes], schema: Schema) -> Plain:
    """Grid, windows and statistics of one episode."""
    meta = json.loads(members["meta.json"])
    rows = {
        name: [json.loads(line) for line in members[f"{name}.jsonl"].splitlines()]
        for name in ("labels", *SOURCES)
        if f"{name}.jsonl" in members
    }
    start = meta["started_wall_ns"]
    duration = meta["ended_wall_ns"] - start
    hz, length, stride = schema.hz, schema.length, schema.stride
    whole = duration * hz // SECOND
    n_windows = 0
    while min(length, whole - n_windows * stride) >= COMPLETE * length - 1e-9:
        n_windows += 1
    n_steps = max(whole, (n_windows - 1) * stride + length if n_windows else 0)
    edges = [j * SECOND // hz for j in range(n_steps + 1)]

    grid: list[Series] = []
    for source in SOURCES:
        interval = interval_s(meta, source)
        if source == "netflow":
            grid += netflow(rows.get(source), start, duration, interval, edges, hz)
        else:
            gap = (schema.max_gap_s or GAP_INTERVALS * interval) * SECOND
            grid += sampled(of_source(source), rows[source], start, gap, edges, hz)

    seconds = [j / hz for j in range(length)]
    features = [
        [
            value
            for series in grid
            for value in statistics(series[k * stride : k * stride + length], seconds)
        ]
        for k in range(n_windows)
    ]
    begins = [label["t_wall_ns"] - start for label in rows["labels"]]
    begins[0] = -FAR
    phases = [PHASES.index(label["phase"]) for label in rows["labels"]]
    middles = [(edges[j] + edges[j + 1]) // 2 for j in range(n_steps)]
    step_phase = [phases[bisect_right(begins, middle) - 1] for middle in middles]
    most = [
        longest(begins, phases, edges[k * stride], edges[k * stride + length])
        for k in range(n_windows)
    ]
    return Plain(grid, step_phase, features, [p for p, _ in most], [share for _, share in most])


def write(episodes: Mapping[str, Plain], schema: Schema, *, features: Path, tensors: Path) -> None:
    """Write the features and tensors of some episodes, by episode_id, as `windows.build` does."""
    shards = []
    for episode_id, done in episodes.items():
        grid = np.array(done.grid, np.float64)  # None becomes NaN
        mask = ~np.isnan(grid)
        values = np.where(mask, grid, 0).astype(np.float32)
        codes, scale, base = encode(values[:, None], mask[:, None])
        phase = np.array(done.step_phase, np.int8)
        offset = np.array([0, len(phase)])
        shards.append(
            TensorShard(
                episode_id=[episode_id],
                offset=offset,
                n_windows=np.array([len(done.phase)]),
                codes=codes[0],
                scale=scale,
                base=base,
                phase=phase,
            )
        )
    found = np.array([row for done in episodes.values() for row in done.features], np.float32)
    n_windows = [len(done.phase) for done in episodes.values()]
    header = {
        "episode_id": np.repeat(np.array(list(episodes), object), n_windows),
        "window": [i for n in n_windows for i in range(n)],
        "phase": [PHASES[phase] for done in episodes.values() for phase in done.phase],
        "phase_share": [share for done in episodes.values() for share in done.share],
    }
    columns = {name: found[:, i] for i, name in enumerate(feature_names("oracle"))}
    files.write_parquet(features, pl.DataFrame(header | columns), {})
    write_tensors(tensors, TensorShard.joined(shards), schema)


def interval_s(meta: Row, source: str) -> float:
    """Nominal seconds between two rows of a source."""
    rate = meta["sources"].get(source, {})
    if rate.get("hz") is not None:
        return 1 / float(rate["hz"])
    return float(rate.get("interval_s") or NOMINAL_INTERVAL_S[source])


def sampled(
    channels: list[Channel], rows: list[Row], start: int, gap: float, edges: list[int], hz: int
) -> list[Series]:
    """The channels of a source that is sampled."""
    every_row = Places([row["t_wall_ns"] - start for row in rows], gap, edges)
    out = []
    for channel in channels:
        values = [row.get(channel.name) for row in rows]
        places = every_row
        if None in values:
            there = [i for i, value in enumerate(values) if value is not None]
            values = [values[i] for i in there]
            places = Places([rows[i]["t_wall_ns"] - start for i in there], gap, edges)
        if channel.kind == "counter":
            out.append(places.rates(values, hz, channel.modulus))
        else:
            out.append(places.levels(values))
    return out


class Places:
    """Where the steps fall among the samples of a source."""

    def __init__(self, times: list[int], gap: float, edges: list[int]) -> None:
        self.keep: list[int] | None = None
        if len(set(times)) < len(times):  # of samples at one time the last counts
            self.keep = sorted({t: i for i, t in enumerate(times)}.values())
            times = [times[i] for i in self.keep]
        most = len(times) - 2
        self.n_steps = len(edges) - 1
        self.too_long = [b - a > gap for a, b in pairwise(times)]
        # For each step: the interval it begins in and how far into it, the same for its end.
        self.spans: list[tuple[int, float, int, float] | None] = []
        self.latest: list[int | None] = []
        for a, b in pairwise(edges):
            first, last = bisect_right(times, a) - 1, bisect_left(times, b) - 1
            self.latest.append(last if last >= 0 and b - times[last] <= gap else None)
            if first < 0 or last > most:
                self.spans.append(None)
                continue
            head = (a - times[first]) / (times[first + 1] - times[first])
            tail = (b - times[last]) / (times[last + 1] - times[last])
            self.spans.append((first, head, last, tail))

    def rates(self, values: list[Any], hz: int, modulus: int | None) -> Series:
        """Rates of a counter: interpolated at the edges; restarts and long gaps are missing."""
        if self.keep is not None:
            values = [values[i] for i in self.keep]
        if len(values) < 2:
            return [None] * self.n_steps
        rises = [b - a for a, b in pairwise(values)]
        bad = self.too_long
        if min(rises) < 0:
            if modulus is not None:
                rises = [r + modulus if -modulus <= r < 0 else r for r in rises]
            bad = [r < 0 or long for r, long in zip(rises, bad, strict=True)]
            rises = [max(r, 0) for r in rises]
        total = [0, *accumulate(rises)]
        n_bad = [0, *accumulate(bad)]
        out: Series = []
        for span in self.spans:
            if span is None or n_bad[span[2] + 1] > n_bad[span[0]]:
                out.append(None)
                continue
            first, head, last, tail = span
            if first == last:
                out.append((tail - head) * rises[first] * hz)
            else:
                whole = total[last] - total[first + 1]
                out.append(((1 - head) * rises[first] + whole + tail * rises[last]) * hz)
        return out

    def levels(self, values: list[Any]) -> Series:
        """Levels of a gauge: the last value before a step's end, if recent."""
        if self.keep is not None:
            values = [values[i] for i in self.keep]
        return [None if i is None else float(values[i]) for i in self.latest]


def netflow(
    rows: list[Row] | None, start: int, duration: int, interval: float, edges: list[int], hz: int
) -> list[Series]:
    """The ten netflow channels: sums spread over the interval before a record, counts held."""
    n_steps = len(edges) - 1
    if rows is None:
        return [[None] * n_steps for _ in range(10)]
    reach = round(interval * SECOND)
    silence = [0.0 if end <= duration else None for end in edges[1:]]
    sums: list[Series] = [silence.copy() for _ in range(8)]
    counts: list[Series] = [silence.copy() for _ in range(2)]
    flushes: dict[int, list[Row]] = {}
    for row in rows:
        flushes.setdefault(row["t_wall_ns"] - start, []).append(row)
    for t, flush in flushes.items():
        low = max(bisect_right(edges, t - reach) - 1, 0)
        high = min(bisect_left(edges, t), n_steps)
        if high <= low:
            continue
        parts = [
            (j, (min(edges[j + 1], t) - max(edges[j], t - reach)) / reach * hz)
            for j in range(low, high)
        ]
        for row in flush:
            for series, amount in zip(sums, amounts(row), strict=True):
                if amount == 0:
                    continue
                for j, part in parts:
                    before = series[j]
                    if before is not None:
                        series[j] = None if amount is None else before + amount * part
        distinct = float(len({flow(row) for row in flush}))
        destinations = float(len({row.get("dst") for row in flush}))
        for j, _ in parts:
            if counts[0][j] is not None:
                counts[0][j], counts[1][j] = distinct, destinations
    return sums + counts


def amounts(row: Row) -> list[float | None]:
    """What a flow record adds to the eight sums; None is unknown."""
    proto, flags = row.get("proto"), row.get("tcp_flags")
    unknown = None if proto in (None, "tcp") else 0
    return [
        *(row.get(name) for name in ("pkts_out", "bytes_out", "pkts_in", "bytes_in")),
        unknown if flags is None else (flags & 2) // 2,
        unknown if flags is None else (flags & 4) // 4,
        None if proto is None else int(proto == "arp"),
        row.get("new"),
    ]


def flow(row: Row) -> tuple[Any, ...]:
    """What makes two records ones of the same flow."""
    proto = row.get("proto")
    ends = (row.get("src"), row.get("sport"), row.get("dst"), row.get("dport"))
    return (None if proto is None else str(proto), *ends)


def statistics(window: Series, seconds: list[float]) -> list[float]:
    """Mean, sample standard deviation, min, max, trend per second and share missing."""
    n_steps = len(window)
    values = [value for value in window if value is not None]
    n = len(values)
    if n == 0:
        return [nan, nan, nan, nan, nan, 1.0]
    if n < n_steps:
        seconds = [t for t, value in zip(seconds, window, strict=True) if value is not None]
    mean, low, high = sum(values) / n, min(values), max(values)
    if low == high:  # often: most counters stand still most of the time
        spread, trend = 0.0, 0.0
    else:
        middle = sum(seconds) / n
        deviations = [value - mean for value in values]
        spread = sqrt(sum(d * d for d in deviations) / (n - 1))
        lags = [t - middle for t in seconds]
        across = sum(t * d for t, d in zip(lags, deviations, strict=True))
        trend = across / sum(t * t for t in lags)
    return [
        mean,
        spread if n >= 2 else nan,
        low,
        high,
        trend if n >= 3 else nan,
        1 - n / n_steps,
    ]


def longest(begins: list[int], phases: list[int], start: int, stop: int) -> tuple[int, float]:
    """The phase that covers most of a window (a tie: the later one), and its share."""
    held = [0] * len(PHASES)
    for begin, end, phase in zip(begins, [*begins[1:], FAR], phases, strict=True):
        held[phase] += max(0, min(end, stop) - max(begin, start))
    most = max(held)
    return len(PHASES) - 1 - held[::-1].index(most), most / (stop - start)
