"""Telemetry as typed columns: one table a source, its dtypes, and how it lies on disk.

A batch's folder holds one Parquet file a table. Rows carry `episode`, the position of their episode
in the table `episodes`, and stand in the order of episodes and, within one, of time.
"""

from __future__ import annotations

import itertools
import struct
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path
from typing import Any, Final

import numpy as np
import polars as pl
from numpy.typing import NDArray

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


# Tables of whole numbers alone, as recorders write them, need no Python object a value.
_WHOLE: Final = frozenset(
    table for table in TABLES[1:] if set(COLUMNS[table].values()) == {pl.Int64()}
)
_GETTERS: Final = {table: attrgetter(*COLUMNS[table]) for table in TABLES[1:]}
# Episodes whose rows are made into columns at once: few enough to stay near the processor.
_TOGETHER: Final = 32


@dataclass(frozen=True)
class Rows:
    """The rows of one table of one episode, each value checked, in the order of `COLUMNS`.

    Attributes:
        table: a key of `COLUMNS`.
        values: int64 (n_rows, n_columns) if all are whole numbers, else a tuple a row.
    """

    table: str
    values: NDArray[np.int64] | list[tuple[Any, ...]]

    @classmethod
    def of(cls, table: str, rows: Iterable[Any]) -> Rows:
        """Take decoded rows, objects with an attribute a column."""
        tuples = list(map(_GETTERS[table], rows))
        if table in _WHOLE:
            pack = struct.Struct(f"{len(COLUMNS[table])}q").pack  # refuses all but int64
            with suppress(struct.error):
                packed = b"".join([pack(*row) for row in tuples])
                return cls(
                    table, np.frombuffer(packed, np.int64).reshape(len(tuples), len(COLUMNS[table]))
                )
        return cls(table, tuples)

    def __len__(self) -> int:
        return len(self.values)

    @property
    def t_wall_ns(self) -> NDArray[np.int64]:
        """(n_rows,) int64."""
        if isinstance(self.values, np.ndarray):
            return self.values[:, 0]
        return np.array([row[0] for row in self.values], np.int64)

    def column(self, name: str) -> list[Any]:
        """The values of one column."""
        i = list(COLUMNS[self.table]).index(name)
        return [row[i] for row in self.values]


@dataclass(frozen=True)
class Episode:
    """One usable episode, decoded.

    Attributes:
        header: the row of the table `episodes`.
        tables: the rows of the other tables; without netflow if degraded.
    """

    header: dict[str, Any]
    tables: dict[str, Rows]


def collect(episodes: Iterable[Episode]) -> dict[str, pl.DataFrame]:
    """Put the episodes of a batch into one frame a table, taking them as they come."""
    headers: list[dict[str, Any]] = []
    parts: dict[str, list[pl.DataFrame]] = {table: [] for table in TABLES[1:]}
    coming = iter(episodes)
    while some := list(itertools.islice(coming, _TOGETHER)):
        for table, frames in parts.items():
            rows = [episode.tables.get(table) for episode in some]
            of = np.arange(len(headers), len(headers) + len(some), dtype=np.uint32)
            ordinals = np.repeat(of, [0 if r is None else len(r) for r in rows])
            frame = _frame(table, [r for r in rows if r is not None])
            frames.append(frame.insert_column(0, pl.Series("episode", ordinals)))
        headers += [episode.header for episode in some]
    empty = {
        table: pl.DataFrame(schema={"episode": pl.UInt32(), **COLUMNS[table]}) for table in parts
    }
    return {
        "episodes": pl.DataFrame(headers, COLUMNS["episodes"]),
        **{
            table: pl.concat([empty[table], *frames], how="vertical_relaxed")
            for table, frames in parts.items()
        },
    }


def _frame(table: str, parts: Sequence[Rows]) -> pl.DataFrame:
    """The rows of some episodes under each other, as typed columns."""
    matrices = [part.values for part in parts if isinstance(part.values, np.ndarray)]
    if parts and len(matrices) == len(parts):
        columns = np.ascontiguousarray(np.concatenate(matrices).T)
        return pl.DataFrame(list(map(pl.Series, COLUMNS[table], columns)))
    rows = [row for part in parts for row in part.values]
    values = zip(*rows, strict=True) if rows else itertools.repeat(())
    return pl.DataFrame(list(map(_series, COLUMNS[table].items(), values)))


def _series(column: tuple[str, pl.DataType], values: Sequence[Any]) -> pl.Series:
    name, dtype = column
    if dtype == pl.String():  # protocols may be numbers
        values = [None if value is None else str(value) for value in values]
    try:
        return pl.Series(name, values, dtype=dtype, strict=True)
    except TypeError:  # a value that is not whole
        return pl.Series(name, [None if v is None else float(v) for v in values], pl.Float64())


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
