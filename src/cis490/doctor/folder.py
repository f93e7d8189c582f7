"""The store, the working directory and what earlier runs left in it."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from cis490 import files, runlock
from cis490.channels import PHASES
from cis490.clean import as_text
from cis490.code import LEARNING, code_hash
from cis490.config import splits
from cis490.doctor.finding import Finding, Findings
from cis490.episodes.plan import look, read_store, require_splits
from cis490.errors import Cis490Error, DamagedError
from cis490.home import workflow_folder
from cis490.training.settings import settings_of

# Bytes in results/, measured on the sample store and its clones (docs/operations.md).
DATA_PER_BYTE: Final = 2.95  # a packed byte of the store: telemetry, features, tensors, verdicts
SPLIT_PER_BYTE: Final = (
    0.4  # likewise: predictions of 18 models with three seeds, in and out of fold
)
SPLIT_BYTES: Final = 25_000_000  # those models, their evaluation, the report
PERTURBED_BYTES: Final = 870_000  # an episode that `robustness` draws, under all conditions
_MARGIN: Final = 1.2
_NAMED: Final = 5
_SNAKEMAKE: Final = Path(".snakemake")


def store(config: Mapping[str, Any]) -> Findings:
    """Whether the store can be read, holds the hosts of the splits, and is whole."""
    manifests, report, batches = look(config)
    folder = Path(config["store"])
    episodes = [episode for manifest in manifests for episode in manifest["episodes"]]
    hosts = sorted({manifest["host_id"] for manifest in manifests})
    what = f"{len(episodes):,} episodes of {len(hosts)} hosts in {folder}"
    try:
        require_splits(config, batches)
        yield Finding("ok", "store", what)
    except Cis490Error as error:
        mend = "set split.train_hosts and test_hosts, or as_of where it is named"
        yield Finding("fault", "store", str(error), mend)
    missing = [each["path"] for each in episodes if each["file"] is None]
    closed = [
        each["path"]
        for each in episodes
        if each["file"] is not None and not os.access(folder / each["path"], os.R_OK)
    ]
    if closed:
        what = f"files that cannot be read: {len(closed):,}, {closed[0]} for one"
        yield Finding("fault", "store", what, f"chmod -R u+rX {folder}, as their owner")
    if missing:
        what = f"files that are indexed and not there: {len(missing):,}, {missing[0]} for one"
        mend = "copy them again, or let them be: they are errored and reported"
        yield Finding("warning", "store", what, mend)
    lines = len(report["invalid"]) + len(report["torn"])
    if lines:
        what = f"lines of index.jsonl that are torn or cannot be followed: {lines:,}"
        yield Finding("warning", "store", what, "nothing; results/validation.md names each")


def architectures(config: Mapping[str, Any]) -> Findings:
    """Whether each architecture can be made with the options that it is given."""
    from cis490.models.registry import get_class

    wrong = 0
    for name in sorted({*config["models"], *config["baselines"]}):
        _, made = settings_of(config, name)
        try:
            get_class(name)(len(PHASES), **made)
        except Cis490Error as error:
            wrong += 1
            yield Finding("fault", "settings", str(error), f"correct architectures.{name}")
    if not wrong:
        yield Finding("ok", "settings", "every architecture can be made with its options")


def disk(config: Mapping[str, Any], results: Path) -> Findings:
    """Room for the results of this store, beside what is free."""
    manifests = read_store(config)[0]
    whole = needed(config, [each for manifest in manifests for each in manifest["episodes"]])
    there = _bytes_in(results)
    place = _nearest(results)
    usage = shutil.disk_usage(place)
    left = max(whole - there, 0)
    what = (
        f"{as_text(usage.free)} free at {place.absolute()}; results of this store take about "
        f"{as_text(whole)}, {as_text(there)} are there"
    )
    if usage.free < left:
        mend = f"free {as_text(left - usage.free)}, or move results/ to a larger disk"
        yield Finding("fault", "disk", what, f"{mend} (docs/operations.md)")
    elif usage.free < _MARGIN * left:
        yield Finding("warning", "disk", f"{what}: that is tight", "cis490 clean, or a larger disk")
    else:
        yield Finding("ok", "disk", what)


def needed(config: Mapping[str, Any], episodes: Sequence[Mapping[str, Any]]) -> int:
    """Bytes that all results of a store take, estimated, with all models, modes and three seeds.

    Args:
        config: a resolved config.
        episodes: entries of manifests (`episodes.plan.read_store`).
    """
    packed = sum(max(episode["size_bytes"] or 0, 0) for episode in episodes)
    robustness = config["robustness"]
    drawn = min(len(episodes), robustness["episodes"]) if robustness["run"] else 0
    of_split = round(packed * SPLIT_PER_BYTE) + SPLIT_BYTES + drawn * PERTURBED_BYTES
    return round(packed * DATA_PER_BYTE) + len(splits(config)) * of_split


def _bytes_in(folder: Path) -> int:
    return sum(
        os.lstat(Path(at, name)).st_size for at, _, names in os.walk(folder) for name in names
    )


def _nearest(path: Path) -> Path:
    """The folder itself, or the nearest one above it that exists."""
    return next(each for each in (path, *path.absolute().parents) if each.exists())


def writable(results: Path) -> Findings:
    """Whether a run can write where it must, and lock."""
    bad = False
    for folder in (Path(), results, _SNAKEMAKE):
        if not folder.exists():
            continue
        try:
            with tempfile.TemporaryFile(dir=folder) as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            bad = True
            yield _unwritable(folder, error)
    if not bad:
        yield Finding("ok", "folder", f"{Path().absolute()} can be written to and locked")


def _unwritable(folder: Path, error: OSError) -> Finding:
    if isinstance(error, PermissionError) or error.errno in (30, 28, 122):
        what = f"{folder.absolute()} cannot be written to ({error.strerror})"
        return Finding("fault", "folder", what, "run in a folder of your own: cis490 init DIR")
    what = f"{folder.absolute()} is on a file system without locks ({error.strerror})"
    mend = "never start two runs there; after a kill run snakemake --unlock"
    return Finding("warning", "folder", what, mend)


def locks() -> Findings:
    """What a run that was killed left behind, and whether one is alive."""
    if not _SNAKEMAKE.is_dir():
        yield Finding("ok", "locks", "no run has been here yet")
        return
    held = runlock.keep_out(_SNAKEMAKE)
    if held is None:
        yield Finding("ok", "locks", "a run is alive in this folder")
        return
    held.close()
    stale = list((_SNAKEMAKE / "locks").glob("*"))
    if stale:
        what = f"{len(stale)} locks of a run that was killed"
        mend = "nothing: the next run removes them; or snakemake --unlock"
        yield Finding("warning", "locks", what, mend)
    else:
        yield Finding("ok", "locks", "no run is alive, and none left a lock")


def models(results: Path) -> Findings:
    """Whether each trained model can be read, is whole, and is of the schema that is in force."""
    described = sorted(results.glob("models/*/*/model.json"))
    if not described:
        return
    schema = _schema_sha256(results)
    codes = _codes()
    bad, stale = [], []
    for file in described:
        fault = _fault_of(file, schema)
        if fault:
            bad.append(Finding("fault", "models", fault))
        elif _trained_by(file.parent) not in codes:
            stale.append(f"{file.parent.parent.name}/{file.parent.name}")
    yield from bad[:_NAMED]
    if len(bad) > _NAMED:
        yield Finding("fault", "models", f"{len(bad) - _NAMED} more of {len(described)} likewise")
    if stale:
        what = f"{len(stale)} of {len(described)} were trained by other code, {stale[0]} for one"
        yield Finding("warning", "models", what, "nothing: the next run trains them again")
    if not bad and not stale:
        yield Finding("ok", "models", f"{len(described)} whole, of this code and schema")


def _schema_sha256(results: Path) -> str | None:
    try:
        told: str = files.read_json(results / "schema.json")["sha256"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return told


def _codes() -> set[str]:
    """As the workflow and `cis490 train` hash the code of a training (rules/common.smk)."""
    package = Path(files.__file__).parent
    learning = [package / part for part in LEARNING]
    script = workflow_folder() / "workflow/scripts/train.py"
    return {code_hash([script, *learning]), code_hash(learning)}


def _trained_by(folder: Path) -> str:
    told: str = files.read_json(folder / "training_metadata.json")["code"]["sha256"]
    return told


def _fault_of(file: Path, schema: str | None) -> str | None:
    """What is wrong with a model, with what to do; None if nothing is."""
    from cis490.training.checkpoint import AGAIN, read_description

    try:
        description = read_description(file)
    except Cis490Error as error:
        return str(error)
    weights = file.with_name("weights.safetensors")
    try:
        with weights.open("rb") as content:
            found = hashlib.file_digest(content, "sha256").hexdigest()
    except OSError as error:
        return f"{weights} cannot be read ({error.strerror}): {AGAIN}"
    if found != description["weights_sha256"]:
        return f"{weights} is not the file that model.json was written with (sha256): {AGAIN}"
    if schema is not None and description["schema_sha256"] != schema:
        return f"{file} is of another schema than {file.parents[3]}/schema.json: {AGAIN}"
    return _fault_of_metadata(file.with_name("training_metadata.json"), AGAIN)


def _fault_of_metadata(file: Path, again: str) -> str | None:
    from cis490.training.provenance import KIND, VERSION

    try:
        told = files.read_json(file)
        if not isinstance(told["code"]["sha256"], str):
            raise TypeError("code.sha256 is no text")
        kind, version = told["kind"], told["version"]
    except OSError as error:
        return f"{file} cannot be read ({error.strerror}): {again}"
    except DamagedError:
        return f"{file} is damaged (no JSON): {again}"
    except (ValueError, KeyError, TypeError) as error:
        return f"{file} is damaged ({type(error).__name__}: {error}): {again}"
    if (kind, version) != (KIND, VERSION):
        return (
            f"{file} is of kind {kind}, version {version}, not {KIND}, version {VERSION}: {again}"
        )
    return None
