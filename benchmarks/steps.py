"""CPU an episode of ingest and windows beside their floor and the plain reference: one thread.

    python -m benchmarks.steps STORE WORK ROUNDS

The floor is what nobody can leave out: read, hash and unzip the files, parse the members of a batch
joined into one text a table, and write the very frames and arrays that our steps write, with the
same functions. Prints JSON: ms an episode of each part in each round, rounds interleaved.
"""

from __future__ import annotations

import functools
import gc
import hashlib
import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np
import polars as pl
import zstandard

from benchmarks import plain
from cis490 import files
from cis490.config import resolve
from cis490.episodes.ingest import ingest
from cis490.episodes.plan import read_store
from cis490.episodes.tarball import Limits
from cis490.episodes.telemetry import COLUMNS
from cis490.schema import Schema
from cis490.windows import build as build_module

N_PLAIN: Final = 96
N_PEERS: Final = 3

# Columns that our telemetry keeps: with their types the parsers have the least to find out.
TABLES: Final = {table: COLUMNS[table] for table in COLUMNS if table != "episodes"}
# The functions that write results; what they do inside is theirs.
WRITERS: Final = [
    (files, "write_parquet"),
    (files, "write_bytes"),
    (files, "write_text"),
    (build_module, "write_tensors"),
]

Call = Callable[[Path], None]


class Meter:
    """CPU ms of named parts, user and system, in rounds."""

    def __init__(self) -> None:
        self.rounds: list[dict[str, float]] = []

    def start_round(self) -> None:
        self.rounds.append({})

    @contextmanager
    def part(self, name: str, n: int) -> Iterator[None]:
        """Add what happens within to this round's `name`, as ms for each of n episodes."""
        gc.collect()  # nobody pays for another's garbage
        start = time.process_time()
        yield
        spent = (time.process_time() - start) * 1e3 / n
        self.rounds[-1][name] = self.rounds[-1].get(name, 0.0) + spent


def full_batches(store: Path) -> list[dict[str, Any]]:
    """The store's batches that are full, for small ones cost more an episode."""
    config = resolve({"store": str(store)})
    manifests, _ = read_store(config)
    full = [m for m in manifests if len(m["episodes"]) == config["batch"]["episodes"]]
    return full or manifests


def unzip(path: Path) -> bytes:
    """Read, hash and unzip one file."""
    packed = path.read_bytes()
    hashlib.sha256(packed).digest()
    return zstandard.ZstdDecompressor().decompress(packed)


def joined(tars: list[bytes]) -> dict[str, bytes]:
    """The members of plain tars, joined into one text a table."""
    parts: dict[str, list[bytes]] = {table: [] for table in TABLES}
    for tar in tars:
        offset = 0
        while name := tar[offset : offset + 100].partition(b"\0")[0]:
            size = int(tar[offset + 124 : offset + 136].rstrip(b"\0 "), 8)
            table = name.decode().removesuffix(".jsonl")
            if table in parts:
                parts[table].append(tar[offset + 512 : offset + 512 + size])
            offset += 512 + -(-size // 512) * 512
    return {table: b"".join(of_table) for table, of_table in parts.items()}


def parse_polars(texts: dict[str, bytes]) -> dict[str, pl.DataFrame]:
    """Columns by polars' own reader."""
    return {
        table: pl.read_ndjson(text, schema=TABLES[table]) for table, text in texts.items() if text
    }


def parse_msgspec(texts: dict[str, bytes]) -> list[list[Any]]:
    """Typed rows by msgspec: objects, not yet columns."""
    return [_MSGSPEC[table].decode_lines(text) for table, text in texts.items()]


_MSGSPEC: dict[str, msgspec.json.Decoder[Any]] = {
    table: msgspec.json.Decoder(
        msgspec.defstruct(
            table,
            [(n, str | None if t == pl.String else int | None, None) for n, t in columns.items()],
            gc=False,
        )
    )
    for table, columns in TABLES.items()
}


@contextmanager
def recorded(folder: Path) -> Iterator[list[Call]]:
    """Collect what is written below `folder`, as calls that write the same into another folder.

    A file that none of `WRITERS` wrote is written again as bytes, without its compression: that
    makes the floor lower, never higher.
    """
    calls: list[Call] = []
    written: set[Path] = set()
    there = set(folder.rglob("*"))
    inside = False

    def wrap(function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def wrapper(path: Any, *args: Any, **kwargs: Any) -> Any:
            nonlocal inside
            if inside:  # a writer that uses another is recorded once
                return function(path, *args, **kwargs)
            inside = True
            try:
                done = function(path, *args, **kwargs)
            finally:
                inside = False
            written.add(Path(path))
            relative = Path(path).relative_to(folder)
            calls.append(lambda out: function(out / relative, *args, **kwargs))
            return done

        return wrapper

    writers = [(where, name) for where, name in WRITERS if hasattr(where, name)]
    originals = [getattr(where, name) for where, name in writers]
    for (where, name), original in zip(writers, originals, strict=True):
        setattr(where, name, wrap(original))
    try:
        yield calls
    finally:
        for (where, name), original in zip(writers, originals, strict=True):
            setattr(where, name, original)
    for path in sorted(set(folder.rglob("*")) - there - written):
        if path.is_file():
            calls.append(_write_again(path.relative_to(folder), path.read_bytes()))


def _write_again(relative: Path, content: bytes) -> Call:
    return lambda out: files.write_bytes(out / relative, content)


def same_files(one: Path, other: Path) -> bool:
    """Whether two folders hold the same files, byte for byte."""
    contents = [
        {p.relative_to(folder): p.read_bytes() for p in folder.rglob("*") if p.is_file()}
        for folder in (one, other)
    ]
    return contents[0] == contents[1]


def read_inputs(folder: Path) -> None:
    """Read a batch's telemetry, whole."""
    for path in sorted(folder.iterdir()):
        pl.read_parquet(path) if path.suffix == ".parquet" else path.read_bytes()


class Ours:
    """The two steps on each batch, as the workflow runs them, into one folder."""

    def __init__(self, store: Path, manifests: list[dict[str, Any]], out: Path) -> None:
        self.store, self.manifests, self.out = store, manifests, out
        self.schema = Schema.from_config(resolve({"store": str(store)}))

    def telemetry(self, manifest: dict[str, Any]) -> Path:
        return self.out / f"telemetry/{manifest['batch']}"

    def ingest(self) -> None:
        for manifest in self.manifests:
            ingest(
                manifest,
                store=self.store,
                limits=Limits(),
                verdicts=self.out / f"verdicts/{manifest['batch']}.parquet",
                folder=self.telemetry(manifest),
            )

    def windows(self) -> None:
        for manifest in self.manifests:
            build_module.build(
                self.telemetry(manifest),
                self.schema,
                features=self.out / f"features/{manifest['batch']}.parquet",
                tensors=self.out / f"tensors/{manifest['batch']}.safetensors",
            )


def measure(store: Path, work: Path, rounds: int) -> dict[str, Any]:
    """The figures of this room; `work` is left with what `benchmarks.peers` needs."""
    assert pl.thread_pool_size() == 1, "run with POLARS_MAX_THREADS=1"
    manifests = full_batches(store)
    paths = [[store / entry["path"] for entry in m["episodes"]] for m in manifests]
    n = sum(map(len, paths))
    some = [path for of_batch in paths for path in of_batch][:: max(1, n // N_PLAIN)]
    ours, again = Ours(store, manifests, work / "ours"), work / "again"
    ours.out.mkdir(parents=True)
    with recorded(ours.out) as ingested:
        ours.ingest()
    with recorded(ours.out) as built:
        ours.windows()
    for call in (*ingested, *built):
        call(again)
    assert same_files(ours.out, again), "the floor must write what the steps write"

    meter = Meter()
    for _ in range(rounds):
        meter.start_round()
        with meter.part("ingest", n):
            ours.ingest()
        with meter.part("windows", n):
            ours.windows()
        for of_batch in paths:
            with meter.part("unzip", n):
                tars = [unzip(path) for path in of_batch]
            with meter.part("join", n):
                texts = joined(tars)
            del tars
            with meter.part("parse_polars", n):
                parse_polars(texts)
            with meter.part("parse_msgspec", n):
                parse_msgspec(texts)
        with meter.part("write_telemetry", n):
            for call in ingested:
                call(again)
        with meter.part("read_telemetry", n):
            for manifest in manifests:
                read_inputs(ours.telemetry(manifest))
        with meter.part("write_windows", n):
            for call in built:
                call(again)
        with meter.part("plain", len(some)):
            done = {path.name: plain.episode(plain.read(path), ours.schema) for path in some}
            out = {"features": work / "plain.parquet", "tensors": work / "plain.safetensors"}
            plain.write(done, ours.schema, **out)
        del done
    _leave_for_peers(paths, work, ours.schema)
    return {
        "n": n,
        "n_batches": len(manifests),
        "n_plain": len(some),
        "unzipped_bytes": sum(len(unzip(path)) for path in some) // len(some),
        "rounds": meter.rounds,
    }


def _leave_for_peers(paths: list[list[Path]], work: Path, schema: Schema) -> None:
    """Windows of the first episode of some batches, and the texts of the first batch."""
    windows = []
    for of_batch in paths[:N_PEERS]:
        done = plain.episode(plain.read(of_batch[0]), schema)
        grid = np.array([[0.0 if v is None else v for v in series] for series in done.grid])
        starts = [k * schema.stride for k in range(len(done.phase))]
        windows.append(np.stack([grid[:, start : start + schema.length] for start in starts]))
    np.savez(work / "windows.npz", *windows)
    texts = joined([unzip(path) for path in paths[0]])
    (work / "texts").mkdir()
    for table, text in texts.items():
        (work / "texts" / f"{table}.jsonl").write_bytes(text)
    columns = {
        table: {name: "text" if dtype == pl.String else "integer" for name, dtype in names.items()}
        for table, names in TABLES.items()
    }
    files.write_json(work / "texts/columns.json", {"n": len(paths[0]), "columns": columns})


if __name__ == "__main__":
    print(json.dumps(measure(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]))))
