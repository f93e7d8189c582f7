"""Telemetry made worse: sources gone, rows lost, clocks apart, rates halved, a guest that lies.

Everything is done to rows as they were ingested, before any grid; labels stay true. What an episode
gets does not depend on those beside it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import numpy as np
import polars as pl
from numpy.typing import NDArray

from cis490.channels import PHASES, SAMPLED, SOURCES, Channel, of_source
from cis490.evaluation.metrics import ALARM_PHASES
from cis490.robustness.conditions import Condition

# Any fixed number would do; episode_id and source are added to it, so that draws are an episode's.
SEED: Final = 490
# Host and hypervisor share the machine; the clock of proc is the one that the others are off from.
_REFERENCE: Final = "proc"
_CLEAN: Final = PHASES[0]
_FLOW: Final = ("proto", "src", "sport", "dst", "dport")
_SUMS: Final = ("pkts_out", "bytes_out", "pkts_in", "bytes_in", "new")
_SPEECH: Final = {
    source: channels
    for source in SAMPLED
    if (channels := [channel for channel in of_source(source) if channel.trust == "guest"])
}
# A made-up counter stays well within int64.
_LARGEST: Final = 9.2e18

Tables = dict[str, pl.DataFrame]


def perturb(frames: Mapping[str, pl.DataFrame], condition: Condition) -> Tables:
    """Telemetry of some episodes under a condition.

    Args:
        frames: as `telemetry.read` gives them; not changed.
        condition: of `conditions.conditions`.

    Returns:
        The same tables. "without": no row of the source, which is said to be absent (not silent).
        "loss": each row of each source is gone with chance `level`; a row that is gone at one level
        is gone at every higher one. "skew": the clock of each source but proc is off by one amount
        all through an episode, uniform within +-`level` seconds. "half_rate": `halved`.
        "lying_guest": `lied`.
    """
    tables = dict(frames)
    if condition.source is not None:
        tables = _without(tables, condition.source)
    elif condition.kind == "loss":
        tables |= {source: _lost(tables, source, condition.level or 0.0) for source in SOURCES}
    elif condition.kind == "skew":
        skewed = [source for source in SOURCES if source != _REFERENCE]
        tables |= {source: _skewed(tables, source, condition.level or 0.0) for source in skewed}
    elif condition.kind == "half_rate":
        tables = halved(tables)
    elif condition.kind == "lying_guest":
        tables |= lied(tables)
    return tables


def _rng(episode_id: str, source: str, what: str) -> np.random.Generator:
    return np.random.default_rng([SEED, *f"{episode_id}/{source}/{what}".encode()])


def _without(tables: Tables, source: str) -> Tables:
    absent = pl.lit(None, pl.Float64).alias(f"interval_s_{source}")
    return tables | {
        source: tables[source].clear(),
        "episodes": tables["episodes"].with_columns(absent),
    }


def _bounds(tables: Tables, table: str) -> NDArray[np.intp]:
    """(n + 1,): the rows of episode i are bounds[i]:bounds[i + 1]."""
    episode = tables[table]["episode"].to_numpy()
    return np.searchsorted(episode, np.arange(len(tables["episodes"]) + 1))


def _lost(tables: Tables, source: str, share: float) -> pl.DataFrame:
    n_rows = np.diff(_bounds(tables, source)).tolist()
    drawn = [
        _rng(episode_id, source, "loss").random(n)
        for episode_id, n in zip(tables["episodes"]["episode_id"], n_rows, strict=True)
    ]
    return tables[source].filter(pl.Series(np.concatenate([np.empty(0), *drawn]) >= share))


def _skewed(tables: Tables, source: str, most_s: float) -> pl.DataFrame:
    drawn = [_rng(name, source, "skew").uniform(-1, 1) for name in tables["episodes"]["episode_id"]]
    shift = np.rint(np.array(drawn) * most_s * 1e9).astype(np.int64)
    of_row = shift[tables[source]["episode"].to_numpy()]
    return tables[source].with_columns(pl.col("t_wall_ns") + pl.Series(of_row, dtype=pl.Int64))


def halved(tables: Tables) -> Tables:
    """Recorders at half their rate, which say so in `interval_s`.

    Sampled sources keep their first row and every second one after it. Netflow adds up what its
    flows did since the flush before, in twice the interval: nothing is lost, but when within it.
    """
    every = pl.col("episode").cum_count().over("episode") % 2 == 1
    doubled = [pl.col(f"interval_s_{source}") * 2 for source in SOURCES]
    return tables | {
        "episodes": tables["episodes"].with_columns(doubled),
        **{source: tables[source].filter(every) for source in SAMPLED},
        "netflow": _flushed(tables),
    }


def _flushed(tables: Tables) -> pl.DataFrame:
    """Netflow as it would be with flushes half as often."""
    episodes, netflow = tables["episodes"], tables["netflow"]
    of = netflow["episode"].to_numpy()
    started = pl.Series(episodes["started_wall_ns"].to_numpy()[of], dtype=pl.Int64)
    interval_s = episodes["interval_s_netflow"].to_numpy()[of]
    interval_ns = pl.Series(np.rint(2e9 * interval_s).astype(np.int64), dtype=pl.Int64)
    since = pl.col("t_wall_ns") - started
    amounts = [pl.when(pl.col(name).null_count() == 0).then(pl.col(name).sum()) for name in _SUMS]
    flags = pl.col("tcp_flags")
    return (
        netflow.with_columns(t_wall_ns=started - (-since // interval_ns) * interval_ns)
        .group_by("episode", "t_wall_ns", *_FLOW, maintain_order=True)
        .agg(*amounts, pl.when(flags.null_count() == 0).then(flags.bitwise_or()))
        .sort("episode", "t_wall_ns", maintain_order=True)
        .select(netflow.columns)
    )


def lied(tables: Tables) -> Tables:
    """The sampled sources with a guest that goes on as when it was clean, once it is infected.

    What the guest says (channels of trust "guest": all of source guest, and the balloon's in qmp)
    is frozen from the onset, the first label of `metrics.ALARM_PHASES`, to the end: gauges at their
    last clean value, counters at their mean clean rate. An episode without an onset, or without a
    row of clean time before it, stays as it is: the guest has nothing to hide, or nothing to say.
    """
    labels = tables["labels"].with_columns(
        clean=pl.col("phase") == _CLEAN, alarm=pl.col("phase").is_in(ALARM_PHASES)
    )
    times = labels.group_by("episode", maintain_order=True).agg(
        clean_until=pl.col("t_wall_ns").filter(~pl.col("clean")).first(),
        onset=pl.col("t_wall_ns").filter(pl.col("alarm")).first(),
        begins_clean=pl.col("clean").first(),
    )
    hiding = times.filter("begins_clean", pl.col("onset").is_not_null())
    spoken = {}
    for source, channels in _SPEECH.items():
        frame, bounds = tables[source], _bounds(tables, source)
        t = frame["t_wall_ns"].to_numpy()
        columns = {c.name: frame[c.name].cast(pl.Float64).to_numpy().copy() for c in channels}
        said = {c.name: np.zeros(len(t), bool) for c in channels}
        for episode, clean_until, onset, _ in hiding.iter_rows():
            rows = slice(bounds[episode], bounds[episode + 1])
            clean, after = np.searchsorted(t[rows], [clean_until, onset])
            for channel in channels:
                values = columns[channel.name][rows]
                frozen = _frozen(channel, t[rows], values, int(clean), int(after))
                if frozen is not None:
                    values[after:] = frozen
                    said[channel.name][rows][after:] = True
        spoken[source] = frame.with_columns(
            _spoken(frame[name], values, said[name]) for name, values in columns.items()
        )
    return spoken


def _frozen(
    channel: Channel, t: NDArray[np.int64], values: NDArray[np.float64], clean: int, after: int
) -> NDArray[np.float64] | None:
    """What a channel says from row `after` on, going by its first `clean` rows; None: nothing."""
    known = np.flatnonzero(~np.isnan(values[:clean]))
    if not len(known):
        return None
    first, last = known[0], known[-1]
    if channel.kind == "gauge":
        return np.full(len(values) - after, values[last])
    elapsed = t[last] - t[first]
    rate = max(0.0, (values[last] - values[first]) / elapsed) if elapsed else 0.0
    latest = np.flatnonzero(~np.isnan(values[:after]))[-1]
    return np.asarray(values[latest] + rate * (t[after:] - t[latest]))


def _spoken(column: pl.Series, values: NDArray[np.float64], said: NDArray[np.bool_]) -> pl.Series:
    """A column with some of its rows replaced; the others keep every digit."""
    made_up = np.where(said, np.clip(values, -_LARGEST, _LARGEST), 0.0)
    if column.dtype == pl.Int64:
        made_up = np.rint(made_up).astype(np.int64)
    return (
        pl.Series(made_up, dtype=column.dtype).zip_with(pl.Series(said), column).alias(column.name)
    )
