"""Which episodes form which batch: a pure function of the index, written as manifests.

A batch is append-only and of one host: its episodes are consecutive in the order of their first
appearance in the index, at most so many and of at most so many packed bytes, so new arrivals fill
the open batch or start the next, and no other batch changes. A manifest is rewritten only if its
content changed; Snakemake reruns what depends on it.
"""

from __future__ import annotations

import os
import posixpath
import stat
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from cis490 import files
from cis490.config import splits
from cis490.episodes import SUFFIX
from cis490.episodes.store import Index, Record, read_index
from cis490.errors import StoreError
from cis490.files import StrPath

Found = dict[str, tuple[int, int]]


def plan(config: Mapping[str, Any], folder: StrPath) -> dict[str, str]:
    """Assign the store's episodes to batches and write what changed.

    Args:
        config: a resolved config.
        folder: results/plan: gets `batches/<batch>.json` for each batch, `batches.json` with the
            host of each, and `index.json` with what is wrong with the index.

    Returns:
        The host_id of each batch, in order.

    Raises:
        StoreError: as `read_store`, or a host of a split is not in the store.
    """
    manifests, report = read_store(config)
    hosts = {manifest["host_id"] for manifest in manifests}
    _require_hosts(config, hosts)
    folder = Path(folder)
    for manifest in manifests:
        path = folder / "batches" / f"{manifest['batch']}.json"
        files.write_if_changed(path, files.to_json(manifest))
    batches: dict[str, str] = {m["batch"]: m["host_id"] for m in manifests}
    files.write_if_changed(folder / "index.json", files.to_json(report))
    files.write_if_changed(folder / "batches.json", files.to_json(batches))
    return batches


def read_store(config: Mapping[str, Any]) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """The manifests of a store's batches, and what is wrong with its index.

    Args:
        config: a resolved config; `store`, `store_pin` and `batch` are used.

    Returns:
        For each batch: batch, host_id and episodes (`validate.Entry`, and the file's size and
        time); and a mapping of the records that cannot be followed, torn lines, superseded records,
        unindexed files, and what a pin leaves out.

    Raises:
        StoreError: there is no store or nothing in it, or the pin cannot be used.
    """
    store = Path(config["store"])
    index = read_index(store)
    found = _files(store)
    records, pin = _apply_pin(index.records, config["store_pin"])
    limits = config["batch"]["episodes"], config["batch"]["packed_bytes"]
    manifests = [
        {
            "batch": f"{host_id}-{number:05d}",
            "host_id": host_id,
            "episodes": [_entry(record, found) for record in of_batch],
        }
        for host_id, of_host in _by_host(record for record in records if record.problem is None)
        for number, of_batch in enumerate(_batches(of_host, *limits))
    ]
    return manifests, _report(index, records, found) | {"pin": pin}


def read_batches(folder: StrPath) -> dict[str, str]:
    """The host_id of each batch, in order, as `plan` left it."""
    batches: dict[str, str] = files.read_json(Path(folder) / "batches.json")
    return batches


def batches_of(
    split: Mapping[str, Any], batches: Mapping[str, str], parts: Iterable[str]
) -> list[str]:
    """The batches that can hold episodes of these parts ("train", "test") of a split.

    With the recipe "host" this is known before anything is decoded, so that new episodes of a test
    host never touch what a training reads.

    Args:
        split: one of `config.splits`.
        batches: the host_id of each batch.
        parts: "train" (which gives val too) or "test".
    """
    if split["recipe"] != "host":
        return list(batches)
    hosts = {host_id for part in parts for host_id in split[f"{part}_hosts"]}
    return [batch for batch, host_id in batches.items() if host_id in hosts]


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
                with suppress(OSError):
                    if entry.is_dir(follow_symlinks=not prefix):
                        folders.append((Path(entry.path), f"{path}/"))
                        continue
                    status = entry.stat()
                    if stat.S_ISREG(status.st_mode):
                        found[path] = (status.st_size, status.st_mtime_ns)
    return found


def _entry(record: Record, found: Found) -> dict[str, Any]:
    path = record.content["path"]
    return {
        "episode_id": record.content["episode_id"],
        "host_id": record.content["host_id"],
        "path": path,
        "sha256": record.text("sha256"),
        "size_bytes": record.integer("size_bytes"),
        "schema_version": record.integer("schema_version"),
        "line": record.line,
        # Size and time of the file: a file that vanished, came or changed dirties this batch alone.
        "file": found.get(posixpath.normpath(path)),
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


def _require_hosts(config: Mapping[str, Any], there: set[str]) -> None:
    for split in splits(config):
        if split["recipe"] != "host":
            continue
        for key in ("train_hosts", "test_hosts"):
            for host_id in split[key]:
                if host_id not in there:
                    raise StoreError(
                        f"config: split {split['name']}: {key}: the store {config['store']} has no "
                        f"host {host_id}; its hosts are {', '.join(sorted(there)) or '(none)'}"
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
