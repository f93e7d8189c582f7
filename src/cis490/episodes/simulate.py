"""Stores of any size, for tests and benchmarks: clones of real episodes, never for a result.

A clone is a real episode under another id, host and time, so its JSON and its distributions stay
real. Its meta says `recorder: simulated`; clones of one episode stand on both sides of any split,
so a report on such a store has no headline.
"""

from __future__ import annotations

import hashlib
import io
import json
import multiprocessing
import re
import tarfile
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import zstandard

from cis490 import files
from cis490.episodes import SUFFIX, tarball
from cis490.episodes.faults import Undecodable
from cis490.episodes.plan import read_store
from cis490.episodes.recipe import Recipe
from cis490.episodes.tarball import Limits
from cis490.episodes.validate import SIMULATED, Entry, examine
from cis490.errors import StoreError

NOTE: Final = "simulation.json"

# Times move by multiples of 1000 s: of their 19 digits the last 12 stay, so that no byte of a clone
# but those digits and its meta differs from the original.
_UNIT: Final = 10**12
_PER_UNIT: Final = 10  # episodes that begin within one such unit
_CHUNK: Final = 200


@dataclass(frozen=True)
class _Original:
    """A real episode, ready to be cloned: its meta, and the rest of its tar without the end."""

    host_id: str
    meta: dict[str, Any]
    rest: bytes
    rest_without_netflow: bytes


def simulate(
    out: Path, n: int, recipe: Recipe, *, source: Path, append: bool = False, workers: int = 2
) -> Iterator[int]:
    """Write n episodes into the store `out`; yields how many are done, every now and then.

    Args:
        out: a folder that does not hold a store yet, or with `append` one that this function made.
        n: how many episodes to add.
        recipe: what the store is like; with `append` the one it was made with counts.
        source: the store to clone from; only read.
        append: add to what is there, as if the store had been larger from the start.
        workers: processes.

    Raises:
        StoreError: `out` holds a store already, or with `append` none of ours; or nothing in
            `source` can be cloned.
    """
    note = out / NOTE
    first = 0
    if append:
        if not note.exists():
            raise StoreError(f"{out} holds no {NOTE}: only a simulated store can be appended to")
        known = files.read_json(note)
        recipe, first = Recipe(**known["recipe"]), int(known["n_episodes"])
    elif (out / "index.jsonl").exists():
        raise StoreError(f"{out} holds a store already: use --append, or another folder")
    out.mkdir(parents=True, exist_ok=True)
    chunks = [range(i, min(i + _CHUNK, first + n)) for i in range(first, first + n, _CHUNK)]
    # Fresh processes: a fork of one whose threads polars holds can wait for ever.
    fresh = multiprocessing.get_context("spawn")
    with (
        ProcessPoolExecutor(workers, fresh, _load, (source, out, recipe)) as pool,
        (out / "index.jsonl").open("ab") as index,
    ):
        for chunk, lines in zip(chunks, pool.map(_write, chunks), strict=True):
            index.write(lines)
            index.flush()
            files.write_json(note, {"recipe": asdict(recipe), "n_episodes": chunk.stop})
            yield chunk.stop - first


class _Worker:
    """What each process keeps: the originals by host, and where to write."""

    originals: dict[str, list[_Original]]
    out: Path
    recipe: Recipe


def _load(source: Path, out: Path, recipe: Recipe) -> None:
    _Worker.originals = originals(source)
    _Worker.out, _Worker.recipe = out, recipe


def originals(source: Path) -> dict[str, list[_Original]]:
    """The usable episodes of a store by host, both sorted by id.

    Raises:
        StoreError: there is none.
    """
    manifests, _ = read_store(
        {"store": source, "store_pin": None, "batch": {"episodes": 10**9, "packed_bytes": 10**15}}
    )
    found: dict[str, list[_Original]] = {}
    for manifest in manifests:
        for content in sorted(manifest["episodes"], key=lambda entry: str(entry["episode_id"])):
            entry = Entry.from_manifest(content)
            if examine(entry, source, Limits())[1] is None:
                continue
            try:
                members = tarball.read(tarball.find(source, entry.path), Limits()).members
            except Undecodable:  # it went away meanwhile
                continue
            meta = json.loads(members.pop("meta.json"))
            lean = {name: data for name, data in members.items() if name != "netflow.jsonl"}
            original = _Original(entry.host_id, meta, _tar(members), _tar(lean))
            found.setdefault(entry.host_id, []).append(original)
    if not found:
        raise StoreError(f"store {source}: not one usable episode to clone")
    return found


def _tar(members: dict[str, bytes]) -> bytes:
    """Headers and contents, without the end of the archive."""
    buffer = io.BytesIO()
    for name, content in members.items():
        info = tarfile.TarInfo(name)
        info.size = len(content)
        buffer.write(info.tobuf(tarfile.USTAR_FORMAT))
        buffer.write(content + bytes(-len(content) % tarfile.BLOCKSIZE))
    return buffer.getvalue()


def _write(chunk: range) -> bytes:
    """Write the files of some episodes and return their lines of the index."""
    return b"".join(_clone(i) for i in chunk)


def _clone(i: int) -> bytes:
    recipe, names = _Worker.recipe, sorted(_Worker.originals)
    rng = np.random.default_rng([recipe.seed, i])
    host = int(rng.integers(recipe.hosts))
    like, copy = names[host % len(names)], host // len(names)
    host_id = f"{like}-{copy + 1}" if copy else like
    pool = _Worker.originals[like]
    original = pool[int(rng.integers(len(pool)))]
    episode_id = hashlib.sha256(f"{recipe.seed}/{i}".encode()).hexdigest()[:20]
    fate, how, torn, cut = rng.random(4)

    degraded = fate < recipe.degraded
    rejected = recipe.degraded <= fate < recipe.degraded + recipe.rejected
    errored = 0 <= fate - recipe.degraded - recipe.rejected < recipe.errored
    meta = original.meta | {"episode_id": episode_id, "host_id": host_id, "recorder": SIMULATED}
    if degraded:
        meta["sources"] = {k: v for k, v in meta["sources"].items() if k != "netflow"}
    rest = original.rest_without_netflow if degraded else original.rest
    start = int(original.meta["started_wall_ns"]) // _UNIT
    moved = i // _PER_UNIT
    meta["started_wall_ns"] += moved * _UNIT
    meta["ended_wall_ns"] += moved * _UNIT
    # Later prefixes first: none may be moved twice.
    for prefix in range(start + 2, start - 2, -1):
        time = rf'("t_wall_ns": ?){prefix}(?=\d{{12}}\D)'.encode()
        rest = re.sub(time, rb"\g<1>%d" % (prefix + moved), rest) if moved else rest
    if rejected and how < 0.5:
        rest = rest.replace(b'"minflt":', b'"minflt";', 1)
    head = json.dumps(meta).encode()  # noqa: TID251 - in the order of the original
    tar = _tar({"meta.json": head}) + rest + bytes(2 * tarfile.BLOCKSIZE)
    packed = zstandard.ZstdCompressor(level=3).compress(tar)
    record = {
        "schema_version": 1,
        "episode_id": episode_id,
        "host_id": host_id,
        "path": f"{host_id}/{episode_id}{SUFFIX}",
        "sha256": hashlib.sha256(packed).hexdigest(),
        "size_bytes": len(packed),
        "received_wall_ns": meta["ended_wall_ns"] + 10**9,
    }
    if rejected and how >= 0.5:
        record["sha256"] = "0" * 64
    if errored:
        packed = packed[: len(packed) // 2]
    path = _Worker.out / record["path"]
    path.parent.mkdir(exist_ok=True)
    if not (errored and how < 0.2):
        path.write_bytes(packed)
    line = json.dumps(record, separators=(",", ":")).encode()  # noqa: TID251 - in a store's order
    if torn < recipe.torn:
        return line if cut < 0.5 else line[: len(line) // 2]
    return line + b"\n"
