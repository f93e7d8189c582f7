"""Telemetry as typed columns: one table a source, its dtypes, and how it lies on disk.

A batch's folder holds one Parquet file a table. Rows carry `episode`, the position of their episode
in the table `episodes`, and stand in the order of episodes and, within one, of time.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import polars as pl

from cis490 import files
from cis490.channels import SOURCES, of_source
from cis490.errors import FormatError
from cis490.files import StrPath

KIND: Final = "cis490.telemetry"
VERSION: Final = "1"

_FLOW_SUMS = ("pkts_out", "bytes_out", "pkts_in", "bytes_in", "tcp_flags", "new")

# Columns of each table beside `episode`. A channel is Int64, exact over its whole range, unless one
# of its values in the batch is not whole: then it is Float64.
COLUMNS: Final[dict[str, dict[str, pl.DataType]]] = {
    "episodes": {
        "episode_id": pl.String(),
        "host_id": pl.String(),
        "profile": pl.String(),
        "sample_name": pl.String(),
        "status": pl.String(),
        "started_wall_ns": pl.Int64(),
        "ended_wall_ns": pl.Int64(),
        **{f"interval_s_{source}": pl.Float64() for source in SOURCES},  # null: no such source
        "meta": pl.String(),  # meta.json as it came, for what later stages want to know
    },
    "labels": {"t_wall_ns": pl.Int64(), "phase": pl.String()},
    **{
        source: {"t_wall_ns": pl.Int64(), **{c.name: pl.Int64() for c in of_source(source)}}
        for source in ("proc", "qmp", "guest")
    },
    "netflow": {
        "t_wall_ns": pl.Int64(),
        "proto": pl.String(),
        "src": pl.String(),
        "sport": pl.Int64(),
        "dst": pl.String(),
        "dport": pl.Int64(),
        **{name: pl.Int64() for name in _FLOW_SUMS},
    },
    "exec": {
        "t_wall_ns": pl.Int64(),
        "event": pl.String(),
        "pid": pl.Int64(),
        "ppid": pl.Int64(),
        "cmdline": pl.String(),
    },
}
TABLES: Final = tuple(COLUMNS)


@dataclass(frozen=True)
class Episode:
    """One usable episode, decoded.

    Attributes:
        header: the row of the table `episodes`.
        tables: the other tables, without the column `episode`; without netflow if degraded.
    """

    header: dict[str, Any]
    tables: dict[str, pl.DataFrame]


def collect(episodes: list[Episode]) -> dict[str, pl.DataFrame]:
    """Put the episodes of a batch into one frame a table."""
    frames = {"episodes": pl.DataFrame([e.header for e in episodes], COLUMNS["episodes"])}
    for table in TABLES[1:]:
        parts = [episode.tables.get(table) for episode in episodes]
        heights = [0 if part is None else part.height for part in parts]
        ordinals = pl.Series("episode", np.repeat(np.arange(len(parts), dtype=np.uint32), heights))
        empty = pl.DataFrame(schema=COLUMNS[table])
        rows = [empty, *(part for part in parts if part is not None)]
        frames[table] = pl.concat(rows, how="vertical_relaxed").insert_column(0, ordinals)
    return frames


def write(folder: StrPath, frames: Mapping[str, pl.DataFrame]) -> None:
    """Write a batch's tables as `<table>.parquet` in `folder`."""
    for table, frame in frames.items():
        metadata = {"kind": KIND, "version": VERSION, "table": table}
        files.write_parquet(Path(folder) / f"{table}.parquet", frame, metadata)


def read(folder: StrPath) -> dict[str, pl.DataFrame]:
    """Read what `write` wrote.

    Raises:
        FormatError: a file is damaged or of an unknown version.
    """
    frames = {}
    for table in TABLES:
        path = Path(folder) / f"{table}.parquet"
        metadata, frames[table] = files.read_parquet_metadata(path), files.read_parquet(path)
        if (metadata.get("kind"), metadata.get("version")) != (KIND, VERSION):
            raise FormatError(f"{path}: not {KIND} version {VERSION}: remove it and run again")
    return frames
