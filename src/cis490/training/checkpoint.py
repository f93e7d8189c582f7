"""A trained model on disk: weights without code, and a JSON that can rebuild it alone.

A folder holds `model.json`, `weights.safetensors` (every seed's arrays, names prefixed with
`<seed>/`; an XGBoost booster is its UBJ bytes as a uint8 array) and `history.parquet`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import polars as pl
import safetensors.numpy
from safetensors import SafetensorError

from cis490 import files
from cis490.errors import DamagedError, FormatError
from cis490.models.base import Classifier, FitSettings
from cis490.models.registry import get_class
from cis490.schema import Schema

KIND: Final = "cis490.model"
VERSION: Final = 3
AGAIN: Final = "remove the folder and train again"

HISTORY_SCHEMA: Final = {
    "seed": pl.Int64(),
    "attempt": pl.Int64(),
    "epoch": pl.Int64(),
    "step": pl.Int64(),
    "train_loss": pl.Float64(),
    "val_loss": pl.Float64(),
    "val_macro_f1": pl.Float64(),
    "learning_rate": pl.Float64(),
    "grad_norm": pl.Float64(),
    "skipped_steps": pl.Int64(),
}


def save_model(
    folder: Path,
    description: Mapping[str, Any],
    models: Mapping[int, Classifier],
    history: Sequence[Mapping[str, Any]],
) -> None:
    """Write the three files of a model.

    Args:
        folder: where to.
        description: goes to model.json beside what is added here; `seeds` is a list with a mapping
            for each seed. What a metric rests on also goes to the history's own metadata.
        models: the trained classifier of each seed that did not fail.
        history: a row a seed and epoch.
    """
    arrays: dict[str, np.ndarray] = {}
    rebuilt: dict[int, dict[str, Any]] = {}
    for seed, model in models.items():
        rebuilt[seed], own = model.state()
        arrays |= {f"{seed}/{name}": np.ascontiguousarray(array) for name, array in own.items()}
    weights = safetensors.numpy.save(arrays)
    seeds = [{**seed, "model": rebuilt.get(seed["seed"])} for seed in description["seeds"]]
    content = {
        "kind": KIND,
        "version": VERSION,
        **description,
        "seeds": seeds,
        "weights_sha256": hashlib.sha256(weights).hexdigest(),
    }
    content["sha256"] = _own_sha256(content)
    files.write_bytes(folder / "weights.safetensors", weights)
    rests_on = {
        "fit_sha256": str(description["fit_sha256"]),
        "weights_sha256": content["weights_sha256"],
        **{f"n_{part}": str(n) for part, n in description["n_windows"].items()},
    }
    rows = pl.DataFrame(list(history), schema=HISTORY_SCHEMA)
    files.write_parquet(folder / "history.parquet", rows, rests_on)
    files.write_json(folder / "model.json", content)


def read_description(model_file: Path) -> dict[str, Any]:
    """Read model.json.

    Raises:
        FormatError: the file is damaged, or of another kind or version.
    """
    try:
        content = files.read_json(model_file)
    except FileNotFoundError:
        raise FormatError(f"{model_file} is missing: {AGAIN}") from None
    except DamagedError:
        raise FormatError(f"{model_file} is not JSON: {AGAIN}") from None
    kind, version = (
        (content.get("kind"), content.get("version")) if isinstance(content, dict) else (None, None)
    )
    if (kind, version) != (KIND, VERSION):
        raise FormatError(
            f"{model_file} is of kind {kind}, version {version}; this cis490 reads {KIND}, version "
            f"{VERSION}: {AGAIN}, or use the cis490 that wrote it"
        )
    if content.get("sha256") != _own_sha256(content):
        raise FormatError(f"{model_file} was changed after it was written: {AGAIN}")
    return dict(content)


def _own_sha256(content: Mapping[str, Any]) -> str:
    """Hash of all of model.json but the hash itself."""
    rest = {key: value for key, value in content.items() if key != "sha256"}
    return hashlib.sha256(files.to_json(rest).encode()).hexdigest()


def load_best(folder: Path, schema: Schema, *, device: str = "cpu") -> Classifier | None:
    """The seed that was best on val, which is the one to take elsewhere; None if all failed.

    Arguments and errors as of `load_model`.
    """
    models = load_model(folder, schema, device=device)
    return models.get(read_description(folder / "model.json")["best_seed"])


def load_model(folder: Path, schema: Schema, *, device: str = "cpu") -> dict[int, Classifier]:
    """The trained classifier of each seed that did not fail.

    Nothing is executed on the way: weights are plain arrays.

    Args:
        folder: as `save_model` wrote it.
        schema: of the data that the model is to see.
        device: `training.device` of the networks.

    Raises:
        SchemaMismatch: the model was trained under another schema.
        FormatError: a file is damaged, or of another kind or version.
    """
    content = read_description(folder / "model.json")
    schema.require(content["schema_sha256"], f"the model {folder}")
    weights_file = folder / "weights.safetensors"
    try:
        raw = weights_file.read_bytes()
    except FileNotFoundError:
        raise FormatError(f"{weights_file} is missing: {AGAIN}") from None
    if hashlib.sha256(raw).hexdigest() != content["weights_sha256"]:
        raise FormatError(
            f"{weights_file} is not the file that model.json was written with (sha256): {AGAIN}"
        )
    try:
        arrays = safetensors.numpy.load(raw)
    except SafetensorError as error:
        raise FormatError(f"{weights_file} is damaged ({error}): {AGAIN}") from None
    if content["status"] != "ok":
        return {}
    architecture = get_class(content["architecture"])
    settings = FitSettings(device=device, threads=int(content["settings"]["threads"]))
    models: dict[int, Classifier] = {}
    for entry in content["seeds"]:
        if entry["status"] != "ok":
            continue
        seed = int(entry["seed"])
        prefix = f"{seed}/"
        own = {k.removeprefix(prefix): a for k, a in arrays.items() if k.startswith(prefix)}
        try:
            models[seed] = architecture.from_state(
                entry["model"], own, seed=seed, settings=settings
            )
        except KeyError as error:
            raise FormatError(f"{weights_file} lacks {prefix}{error.args[0]}: {AGAIN}") from None
        except (ValueError, TypeError, IndexError, RuntimeError) as error:
            reason = " ".join(str(error).split())[:200]
            raise FormatError(
                f"{weights_file} does not fit model.json: {reason}: {AGAIN}"
            ) from None
    return models
