"""Telemetry as typed columns: one table a source, its dtypes, and how it lies on disk.

A batch's folder holds one Parquet file a table. Rows carry `episode`, the position of their episode
in the table `episodes`, and stand in the order of episodes and, within one, of time.
"""

from __future__ import annotations

import itertools
import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path
from typing import Any, Final

import numpy as np
import polars as pl
from numpy.typing import NDArray

from cis490 import files
from cis490.channels import SAMPLED, SOURCES, of_source
from cis490.errors import FormatError
from cis490.files import StrPath

KIND: Final = "cis490.telemetry"
VERSION: Final = "2"

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
        "held_bytes": pl.Int64(),  # of the function of that name
        "meta": pl.String(),  # meta.json as it came, for what later stages want to know
    },
    "labels": {"t_wall_ns": pl.Int64(), "phase": pl.String()},
    **{
        source: {"t_wall_ns": pl.Int64(), **{c.name: pl.Int64() for c in of_source(source)}}
        for source in SAMPLED
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


_GETTERS: Final = {table: attrgetter(*COLUMNS[table]) for table in TABLES[1:]}
# `held_bytes` of the episodes that are held in memory at once; 1,000 usual minutes have 112 MiB.
MOST_BYTES: Final = 192 << 20
# A row group has polars' usual rows; fewer where they are long.
_GROUP_ROWS: Final = 1 << 18
_GROUP_BYTES: Final = 1 << 25


Column = NDArray[np.int64] | bytes | Sequence[Any]


@dataclass(frozen=True)
class Rows:
    """The rows of one table of one episode, each value checked, column by column.

    Attributes:
        table: a key of `COLUMNS`.
        columns: in the order of `COLUMNS` of each int64 (n_rows,); or texts, each ended by a zero,
            which none of them holds; or a sequence of n_rows values of any kind.
    """

    table: str
    columns: Sequence[Column]

    @classmethod
    def of(cls, table: str, rows: Iterable[Any]) -> Rows:
        """Take decoded rows, objects with an attribute a column."""
        tuples = list(map(_GETTERS[table], rows))
        if table in SAMPLED:  # whole numbers, mostly: no Python object a value is kept
            n_columns = len(COLUMNS[table])
            pack = struct.Struct(f"{n_columns}q").pack  # refuses all but int64
            with suppress(struct.error):
                packed = b"".join([pack(*row) for row in tuples])
                return cls(table, list(np.frombuffer(packed, np.int64).reshape(-1, n_columns).T))
        return cls(table, list(zip(*tuples, strict=True)) or [()] * len(COLUMNS[table]))

    def __len__(self) -> int:
        return len(self.columns[0])

    @property
    def t_wall_ns(self) -> NDArray[np.int64]:
        """(n_rows,) int64."""
        return np.asarray(self.columns[0], np.int64)

    def tuples(self) -> list[tuple[Any, ...]]:
        """A tuple a row."""
        return list(zip(*map(_listed, self.columns), strict=True))

    def column(self, name: str) -> Sequence[Any]:
        """The values of one column."""
        return _listed(self.columns[list(COLUMNS[self.table]).index(name)])


def _listed(column: Column) -> Sequence[Any]:
    if isinstance(column, bytes):
        return column.decode().split("\0")[:-1]
    return column.tolist() if isinstance(column, np.ndarray) else column


@dataclass(frozen=True)
class Episode:
    """One usable episode, decoded.

    Attributes:
        header: the row of the table `episodes`.
        tables: the rows of the other tables; without netflow if degraded.
    """

    header: dict[str, Any]
    tables: dict[str, Rows]


def collect(episodes: Sequence[Episode], first: int = 0) -> dict[str, pl.DataFrame]:
    """Put episodes into one frame a table; `first` is the position of the first one."""
    frames = {"episodes": pl.DataFrame([e.header for e in episodes], COLUMNS["episodes"])}
    positions = np.arange(first, first + len(episodes), dtype=np.uint32)
    for table in TABLES[1:]:
        parts = [episode.tables.get(table) for episode in episodes]
        of = np.repeat(positions, [0 if part is None else len(part) for part in parts])
        frame = _frame(table, [part for part in parts if part is not None])
        frames[table] = frame.insert_column(0, pl.Series("episode", of, pl.UInt32()))
    return frames


def _frame(table: str, parts: Sequence[Rows]) -> pl.DataFrame:
    """The rows of some episodes under each other, as typed columns."""
    columns = [[part.columns[i] for part in parts] for i in range(len(COLUMNS[table]))]
    return pl.DataFrame(list(map(_series, COLUMNS[table].items(), columns)))


def _series(column: tuple[str, pl.DataType], parts: Sequence[Column]) -> pl.Series:
    """One column of some episodes under each other."""
    name, dtype = column
    arrays = [part for part in parts if isinstance(part, np.ndarray)]
    if arrays and len(arrays) == len(parts):
        return pl.Series(name, np.concatenate(arrays))
    joined = b"".join(part for part in parts if isinstance(part, bytes))
    if joined and all(isinstance(part, bytes) for part in parts):
        return pl.Series(name, [joined[:-1].decode()]).str.split("\0").explode()
    values = list(itertools.chain.from_iterable(map(_listed, parts)))
    try:
        return pl.Series(name, values, dtype=dtype, strict=True)
    except TypeError:  # a value that is not whole, or a protocol that is a number
        if dtype == pl.String():
            return pl.Series(name, [None if v is None else str(v) for v in values], dtype)
        return pl.Series(name, [None if v is None else float(v) for v in values], pl.Float64())


def held_bytes(tables: Mapping[str, Rows], text_bytes: int) -> int:
    """What an episode takes in memory as columns, about and at most.

    Args:
        tables: its rows. They alone do not tell: 64 of them can hold 64 MiB of text, which
            compresses to nothing.
        text_bytes: size of its members that hold text.
    """
    return text_bytes + sum(8 * len(COLUMNS[table]) * len(rows) for table, rows in tables.items())


def write(folder: StrPath, episodes: Iterable[Episode], most_bytes: int = MOST_BYTES) -> None:
    """Write a batch's tables as `<table>.parquet` in `folder`, taking its episodes as they come.

    Args:
        folder: made if need be; what a killed writer left in it is removed.
        episodes: a batch's, in order.
        most_bytes: of episodes held in memory at once, unless a single one has more
            (`held_bytes`); what is more lies in pieces on disk meanwhile.
    """
    folder = Path(folder)
    with files.scratch(folder) as scratch:
        pieces: list[Path] = []
        groups = _collected(episodes, most_bytes)
        frames = next(groups)
        group = _group_rows(frames)
        for following in groups:
            pieces.append(_write_piece(scratch / str(len(pieces)), frames, group))
            frames = following
            group = {table: min(n, group[table]) for table, n in _group_rows(frames).items()}
        if pieces:
            pieces.append(_write_piece(scratch / str(len(pieces)), frames, group))
        for table in TABLES:
            path = folder / f"{table}.parquet"
            whole: pl.DataFrame | pl.LazyFrame = frames[table]
            if pieces:
                parts = [pl.scan_parquet(piece / path.name) for piece in pieces]
                whole = pl.concat(parts, how="vertical_relaxed")
            metadata = {"kind": KIND, "version": VERSION, "table": table}
            files.write_parquet(path, whole, metadata, group_rows=group[table])


def _collected(episodes: Iterable[Episode], most_bytes: int) -> Iterator[dict[str, pl.DataFrame]]:
    """Frames of episodes of at most so many bytes, or of a single one, at least one piece."""
    first, n_bytes = 0, 0
    some: list[Episode] = []
    for episode in episodes:
        n_bytes += episode.header["held_bytes"]
        if some and n_bytes > most_bytes:
            frames = collect(some, first)
            # Rows as tuples take several times what frames do: they go before more are decoded.
            first, n_bytes, some = first + len(some), episode.header["held_bytes"], []
            yield frames
            del frames
        some.append(episode)
    yield collect(some, first)


def _group_rows(frames: Mapping[str, pl.DataFrame]) -> dict[str, int]:
    """Rows of each table's row groups: Parquet is written and read a whole group at a time."""
    group = {}
    for table, frame in frames.items():
        bytes_a_row = max(1, int(frame.estimated_size()) // max(1, frame.height))
        group[table] = max(1, min(_GROUP_ROWS, _GROUP_BYTES // bytes_a_row))
    return group


def _write_piece(folder: Path, frames: Mapping[str, pl.DataFrame], group: dict[str, int]) -> Path:
    folder.mkdir()
    for table, frame in frames.items():
        path = folder / f"{table}.parquet"
        frame.write_parquet(path, compression="lz4", row_group_size=group[table])
    return folder


def read(folder: StrPath) -> dict[str, pl.DataFrame]:
    """Read what `write` wrote.

    Raises:
        FormatError: a file is damaged or of an unknown version.
    """
    return {table: files.read_parquet(path) for table, path in _checked(folder).items()}


def read_pieces(folder: StrPath, most_bytes: int = MOST_BYTES) -> Iterator[dict[str, pl.DataFrame]]:
    """Read what `write` wrote, some episodes after others, with positions of their own.

    Args:
        folder: as `write` left it.
        most_bytes: of episodes read at once, unless a single one has more (`held_bytes`).

    Raises:
        FormatError: as `read`.
    """
    paths = _checked(folder)
    sizes = files.read_parquet(paths["episodes"], columns=["held_bytes"])["held_bytes"].to_numpy()
    total = np.append(0, np.cumsum(sizes))
    if total[-1] <= most_bytes:
        yield read(folder)
        return
    starts = [0]
    while starts[-1] < len(sizes):
        fits = int(np.searchsorted(total, total[starts[-1]] + most_bytes, side="right")) - 1
        starts.append(max(fits, starts[-1] + 1))
    bounds = {"episodes": starts}
    for table in TABLES[1:]:
        of = files.read_parquet(paths[table], columns=["episode"])["episode"].to_numpy()
        bounds[table] = np.searchsorted(of, starts).tolist()
    for i, first in enumerate(starts[:-1]):
        piece = {}
        for table, path in paths.items():
            start, stop = bounds[table][i : i + 2]
            piece[table] = files.read_parquet(path, rows=range(start, stop))
            if table != "episodes":
                piece[table] = piece[table].with_columns(pl.col("episode") - first)
        yield piece


def _checked(folder: StrPath) -> dict[str, Path]:
    """The files of the tables, each of the right kind and version."""
    paths = {table: Path(folder) / f"{table}.parquet" for table in TABLES}
    for path in paths.values():
        metadata = files.read_parquet_metadata(path)
        if (metadata.get("kind"), metadata.get("version")) != (KIND, VERSION):
            raise FormatError(f"{path}: not {KIND} version {VERSION}: remove it and run again")
    return paths
