"""Which episodes form which batch: a pure function of the index, written as manifests.

A batch is append-only and of one host: its episodes are consecutive in the order of their first
appearance in the index, at most so many and of at most so many packed bytes, so new arrivals fill
the open batch or start the next, and no other batch changes. A manifest is rewritten only if its
content changed; Snakemake reruns what depends on it.

A batch that episodes received before and after a split's `as_of` would share is cut in two, so that
what arrives later never touches a file that a training reads. All other batches are the same with
`as_of` and without: to move it decodes two batches of a host again, at most.
"""

from __future__ import annotations

import hashlib
import os
import stat
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final, NamedTuple

import msgspec

from cis490 import files
from cis490.code import code_hash
from cis490.config import as_of_ns, splits
from cis490.episodes import SUFFIX
from cis490.episodes.store import INDEX, Index, Record, read_index
from cis490.errors import StoreError
from cis490.files import StrPath

Found = dict[str, tuple[int, int]]

_STATE: Final = "state"  # the file that says what a plan was made of
_PACKAGE: Final = Path(__file__).parents[1]
_CODE: Final = [
    *(_PACKAGE / "config.py", _PACKAGE / "files.py"),
    *(_PACKAGE / "episodes" / f"{name}.py" for name in ("__init__", "plan", "store", "strict")),
]


class Batch(NamedTuple):
    """What is known of a batch before anything of it is decoded.

    Attributes:
        host_id: whose episodes it holds.
        received_wall_ns: when the last of them was received; None if the index does not tell of
            each, which counts as later than any time.
    """

    host_id: str
    received_wall_ns: int | None

    def by(self, as_of: int | None) -> bool:
        """Whether all of it was received by a time (Unix, ns); None: at any time."""
        received = self.received_wall_ns
        return as_of is None or (received is not None and received <= as_of)


def plan(config: Mapping[str, Any], folder: StrPath) -> dict[str, Batch]:
    """Assign the store's episodes to batches and write what changed.

    Args:
        config: a resolved config.
        folder: results/plan: gets `batches/<batch>.json` for each batch, `batches.json` with the
            host of each and when it was received, and `index.json` with what is wrong with the
            index.

    Returns:
        What is known of each batch, in order.

    Raises:
        StoreError: as `read_store`, or a host of a split is not in the store, or nothing that a
            split would train on was there by its `as_of`.
    """
    folder = Path(folder)
    found = _files(Path(config["store"]))
    state = _state(config, found)
    if state is not None and _stands(folder, state):
        return read_batches(folder)
    manifests, report, batches = look(config, found)
    require_splits(config, batches)
    (folder / _STATE).unlink(missing_ok=True)
    for manifest in manifests:
        path = folder / "batches" / f"{manifest['batch']}.json"
        files.write_if_changed(path, files.to_json(manifest))
    known = {name: batch._asdict() for name, batch in batches.items()}
    files.write_if_changed(folder / "index.json", files.to_json(report))
    files.write_if_changed(folder / "batches.json", files.to_json(known))
    if state is not None:
        files.write_text(folder / _STATE, f"{state} {_laid_down(folder)}")
    return batches


def read_store(config: Mapping[str, Any]) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """The manifests of a store's batches, and what is wrong with its index.

    Args:
        config: a resolved config; `store`, `store_pin`, `batch` and, where there are splits, their
            `as_of` are used.

    Returns:
        For each batch: batch, host_id and episodes (`validate.Entry`, and the file's size and
        time); and a mapping of the records that cannot be followed, torn lines, superseded records,
        unindexed files, and what a pin leaves out.

    Raises:
        StoreError: there is no store or nothing in it, or the pin cannot be used.
    """
    return look(config)[:2]


def _state(config: Mapping[str, Any], found: Found) -> str | None:
    """Hash of all that a plan is a function of; None where the store cannot be read.

    Most runs find the store as the last one left it. To see that takes a third of the time that
    planning it anew does.
    """
    named = {name: config[name] for name in ("store", "store_pin", "batch")}
    try:
        state = hashlib.sha256((Path(config["store"]) / INDEX).read_bytes())
        if config["store_pin"] is not None:
            state.update(Path(config["store_pin"]).read_bytes())
    except OSError:
        return None
    state.update(msgspec.json.encode([named, splits(config), sorted(found.items())]))
    state.update(code_hash(_CODE).encode())
    return state.hexdigest()


def _stands(folder: Path, state: str) -> bool:
    """Whether a folder holds the plan of a state, as it was written and nothing else."""
    try:
        return (folder / _STATE).read_text() == f"{state} {_laid_down(folder)}"
    except (OSError, ValueError):
        return False


def _laid_down(folder: Path) -> str:
    """Hash of a plan's files: another version, or a hand, may have written over them."""
    found = sorted(
        (path.name, status.st_size, status.st_mtime_ns)
        for path in (folder / "batches").iterdir()
        for status in [path.stat()]
    )
    laid = hashlib.sha256(msgspec.json.encode(found))
    for name in ("batches.json", "index.json"):
        laid.update((folder / name).read_bytes())
    return laid.hexdigest()


def look(
    config: Mapping[str, Any], found: Found | None = None
) -> tuple[list[dict[str, Any]], dict[str, Any], dict[str, Batch]]:
    """What `read_store` returns, and what is known of each batch, as `plan` has it.

    Args:
        config: as of `read_store`.
        found: the store's files, if they are known.

    Raises:
        StoreError: as `read_store`.
    """
    store = Path(config["store"])
    if found is None:
        found = _files(store)
    index = read_index(store)
    records, pin = _apply_pin(index.records, config["store_pin"])
    limits = config["batch"]["episodes"], config["batch"]["packed_bytes"]
    cuts = sorted({t for split in _splits(config) if (t := as_of_ns(split)) is not None})
    manifests, batches = [], {}
    for host_id, of_host in _by_host(record for record in records if record.problem is None):
        for number, of_batch in enumerate(_batches(of_host, *limits)):
            times = [index.received_wall_ns(record) for record in of_batch]
            for piece, (last, of_piece) in enumerate(_cut(of_batch, times, cuts)):
                name = f"{host_id}-{number:05d}" + (f"+{piece}" if piece else "")
                entries = [_entry(record, found) for record in of_piece]
                manifests.append({"batch": name, "host_id": host_id, "episodes": entries})
                batches[name] = Batch(host_id, last)
    return manifests, _report(index, records, found) | {"pin": pin}, batches


def read_batches(folder: StrPath) -> dict[str, Batch]:
    """What is known of each batch, in order, as `plan` left it."""
    known = files.read_json(Path(folder) / "batches.json")
    return {name: Batch(**batch) for name, batch in known.items()}


def batches_of(
    split: Mapping[str, Any],
    batches: Mapping[str, Batch],
    parts: Iterable[str],
    *,
    known: bool = False,
) -> list[str]:
    """The batches that can hold episodes of these parts ("train", "test") of a split.

    With the recipe "host" this is known before anything is decoded, so that new episodes of a test
    host never touch what a training reads; nor does, with any recipe, what was received after the
    split's `as_of`.

    Args:
        split: one of `config.splits`.
        batches: what is known of each batch.
        parts: "train" (which gives val too) or "test".
        known: of "test" too only those that were received by `as_of`.
    """
    as_of, wanted = as_of_ns(split), set(parts)

    def holds(batch: Batch) -> bool:
        mine = {
            part
            for part in wanted
            if split["recipe"] != "host" or batch.host_id in split[f"{part}_hosts"]
        }
        return bool(mine) if batch.by(as_of) else "test" in mine and not known

    return [name for name, batch in batches.items() if holds(batch)]


def training_settings(split: Mapping[str, Any]) -> dict[str, Any]:
    """What of a split decides which episodes are trained on: only this is a reason to train again.

    Args:
        split: one of `config.splits`.
    """
    needed = {
        "host": ("recipe", "train_hosts", "val_fraction"),
        "sample": ("recipe", "val_fraction", "test_fraction", "min_samples"),
        "time": ("recipe", "val_fraction", "test_fraction"),
    }[split["recipe"]]
    settings = {name: split[name] for name in needed}
    if split["as_of"] is not None:
        settings["as_of"] = split["as_of"]
    if "train_hosts" in settings:
        settings |= {"train_hosts": sorted(settings["train_hosts"]), "test_hosts": []}
    return settings


def _files(store: Path) -> Found:
    """Size and modification time of each file in the store, by path relative to it.

    Bytes of a name that are not UTF-8 are written as \\xff. Links to folders are followed only at
    the top, where a host's episodes may lie on another disk.
    """
    found: Found = {}
    folders = [(store, "")]
    while folders:
        folder, prefix = folders.pop()
        # What cannot be looked at is not found: its episodes will be errored as missing.
        with suppress(OSError), os.scandir(folder) as entries:
            for entry in entries:
                name = entry.name
                if not name.isascii():
                    name = os.fsencode(name).decode("utf-8", "backslashreplace")
                path = prefix + name
                try:  # for each of many files: `suppress` takes longer than the look itself
                    if entry.is_dir(follow_symlinks=not prefix):
                        folders.append((Path(entry.path), f"{path}/"))
                        continue
                    status = entry.stat()
                except OSError:
                    continue
                if stat.S_ISREG(status.st_mode):
                    found[path] = (status.st_size, status.st_mtime_ns)
    return found


def _entry(record: Record, found: Found) -> dict[str, Any]:
    return {
        "episode_id": record.content["episode_id"],
        "host_id": record.content["host_id"],
        "path": record.content["path"],
        "sha256": record.text("sha256"),
        "size_bytes": record.integer("size_bytes"),
        "schema_version": record.integer("schema_version"),
        "line": record.line,
        # Size and time of the file: a file that vanished, came or changed dirties this batch alone.
        "file": found.get(record.place),
    }


def _by_host(records: Iterable[Record]) -> list[tuple[str, list[Record]]]:
    by_host: dict[str, list[Record]] = {}
    for record in records:
        by_host.setdefault(record.content["host_id"], []).append(record)
    return sorted(by_host.items())


def _batches(records: Iterable[Record], most: int, most_bytes: int) -> Iterator[list[Record]]:
    """Consecutive records, at most so many and with at most so many packed bytes, at least one."""
    batch: list[Record] = []
    n_bytes = 0
    for record in records:
        size = max(record.integer("size_bytes") or 0, 0)
        if batch and (len(batch) == most or n_bytes + size > most_bytes):
            yield batch
            batch, n_bytes = [], 0
        batch.append(record)
        n_bytes += size
    if batch:
        yield batch


def _splits(config: Mapping[str, Any]) -> list[dict[str, Any]]:
    return splits(config) if "split" in config else []


def _cut(
    records: Sequence[Record], received: Sequence[int | None], cuts: Sequence[int]
) -> list[tuple[int | None, list[Record]]]:
    """The records received by each of some times and by no earlier one, and when the last was."""
    pieces: dict[int, tuple[list[int | None], list[Record]]] = {}
    for record, time in zip(records, received, strict=True):
        piece = len(cuts) if time is None else bisect_left(cuts, time)
        times, members = pieces.setdefault(piece, ([], []))
        times.append(time)
        members.append(record)
    return [
        (None if None in times else max(t for t in times if t is not None), members)
        for _, (times, members) in sorted(pieces.items())
    ]


def require_splits(config: Mapping[str, Any], batches: Mapping[str, Batch]) -> None:
    """Check that a store has all hosts that the splits name, and what each would train on.

    Args:
        config: a resolved config.
        batches: of the store, as `plan` and `look` know them.

    Raises:
        StoreError: a host is not in the store, or nothing that a split would train on was there by
            its `as_of`.
    """
    there = sorted({batch.host_id for batch in batches.values()})
    for split in splits(config):
        name, store = split["name"], config["store"]
        named = ("train_hosts", "test_hosts") if split["recipe"] == "host" else ()
        for key in named:
            for host_id in split[key]:
                if host_id not in there:
                    raise StoreError(
                        f"config: split {name}: {key}: the store {store} has no host {host_id}; "
                        f"its hosts are {', '.join(there) or '(none)'}"
                    )
        if split["as_of"] is not None and not batches_of(split, batches, ["train"]):
            hosts = ", ".join(split["train_hosts"]) if named else "any host"
            raise StoreError(
                f"config: split {name}: as_of: the store {store} had no episode of {hosts} by "
                f"{split['as_of']} (received_wall_ns in its index): set a later time"
            )


def _apply_pin(
    records: list[Record], pin: str | None
) -> tuple[list[Record], dict[str, list[str]] | None]:
    """The records that take part, and what the pin leaves out or misses."""
    if pin is None:
        return records, None
    import polars as pl  # only a pinned run pays for it at parse time

    try:
        rows = pl.read_parquet(pin, columns=["episode_id", "sha256"])
    except (OSError, pl.exceptions.PolarsError) as error:
        reason = " ".join(str(error).split())[:200]
        raise StoreError(
            f"config: store_pin: {pin} is not a validation.parquet: {reason}"
        ) from None
    wanted = dict(rows.drop_nulls().iter_rows())
    there = {record.text("episode_id"): record for record in records}
    taken = [r for r in records if wanted.get(r.text("episode_id")) == r.text("sha256") is not None]
    report = {
        "not_pinned": [id_ for id_ in there if id_ is not None and id_ not in wanted],
        "changed": [
            id_ for id_, sha in wanted.items() if id_ in there and there[id_].text("sha256") != sha
        ],
        "gone": [id_ for id_ in wanted if id_ not in there],
    }
    if not taken:
        raise StoreError(f"config: store_pin: no episode of {pin} is in the store")
    return taken, report


def _report(index: Index, records: list[Record], found: Found) -> dict[str, Any]:
    return {
        "invalid": [
            {
                "line": record.line,
                "problem": record.problem,
                **{key: record.text(key) for key in ("episode_id", "host_id", "path", "sha256")},
                "size_bytes": record.integer("size_bytes"),
            }
            for record in records
            if record.problem is not None
        ],
        "torn": [asdict(torn) for torn in index.torn],
        "superseded": [list(entry) for entry in index.superseded],
        "unindexed": sorted({path for path in found if path.endswith(SUFFIX)} - index.paths),
    }
