"""Train one architecture in one mode, over the seeds. What fails by itself is told, not raised."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cis490 import files
from cis490.channels import PHASES
from cis490.errors import Cis490Error, ConfigError
from cis490.files import read_json
from cis490.logs import MILESTONE, logger
from cis490.models.base import Classifier, FitSettings
from cis490.models.registry import get_class
from cis490.schema import Schema
from cis490.training.checkpoint import save_model
from cis490.training.data import Cases, columns_of, load_split


def train(
    architecture: str,
    mode: str,
    *,
    schema_file: Path,
    fit_file: Path,
    features: Sequence[Path],
    tensors: Sequence[Path],
    config: Mapping[str, Any],
    out: Path,
) -> None:
    """Train on a split's training windows and choose on its val windows.

    Writes model.json, weights.safetensors and history.parquet under `out` (`training.checkpoint`).
    A seed whose training raises is recorded as failed with its reason, and if all do so is the
    model; only faults of the files and settings themselves raise.

    Args:
        architecture: a name in `models.ARCHITECTURES`.
        mode: a name in `channels.MODES`.
        schema_file: schema.json.
        fit_file: splits/fit/<split>.parquet.
        features, tensors: a file for each batch of the train and val episodes.
        config: resolved settings; `seeds` and `training` are used.
        out: folder of the model.

    Raises:
        SchemaMismatch: a file was made under another schema than schema.json tells.
        ConfigError: no such architecture or mode, or no such device here.
        FormatError: a file is damaged.
    """
    kind = get_class(architecture)
    settings = FitSettings(**config["training"])
    schema = Schema.from_dict(read_json(schema_file))
    columns = columns_of(mode, tabular=kind.tabular)
    parts = {
        part: load_split(
            fit_file,
            [part],
            schema=schema,
            mode=mode,
            tabular=kind.tabular,
            features=features,
            tensors=tensors,
            jitter=part == "train",
        )
        for part in ("train", "val")
    }
    models: dict[int, Classifier] = {}
    seeds, history = [], []
    for seed in config["seeds"]:
        model = kind(len(PHASES), seed=seed, settings=settings, columns=columns)
        entry, rows = _train_seed(model, parts["train"], parts["val"], f"{architecture} {mode}")
        seeds.append(entry)
        history.extend(rows)
        if entry["status"] == "ok":
            models[seed] = model
    description = {
        "status": "ok" if models else "failed",
        "reason": None if models else seeds[0]["reason"],
        "architecture": architecture,
        "mode": mode,
        "phases": PHASES,
        "schema_sha256": schema.sha256,
        "fit_sha256": _content_sha256(fit_file),
        "settings": {key: config["training"][key] for key in config["training"] if key != "device"},
        "n_windows": {part: len(cases.y) for part, cases in parts.items()},
        "n_episodes": {part: cases.rows["episode_id"].n_unique() for part, cases in parts.items()},
        "seeds": seeds,
    }
    save_model(out, description, models, history)


def _train_seed(
    model: Classifier, train_cases: Cases, val: Cases, name: str
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Fit one seed; what becomes of it, and its rows of the history."""
    seed, n_windows = model.seed, len(train_cases.y)
    logger.info("%s seed %d: %d training and %d val windows", name, seed, n_windows, len(val.y))
    try:
        if len(only := set(train_cases.y.tolist())) == 1:
            phase = PHASES[only.pop()]
            raise Cis490Error(f"every training window is {phase}: there is nothing to tell apart")
        model.fit(train_cases.X, train_cases.y, X_val=val.X, y_val=val.y)
    except (MemoryError, ConfigError):
        raise  # the machine's fault or the settings', not the training's: the job must fail
    except Exception as error:
        reason = " ".join(str(error).split()) or "no message"
        if not isinstance(error, Cis490Error):
            reason = f"{type(error).__name__}: {reason}"
        logger.info("%s seed %d failed", name, seed, exc_info=True)
        logger.log(MILESTONE, "%s seed %d: failed: %s", name, seed, reason)
        return {"seed": seed, "status": "failed", "reason": reason}, []
    best = model.history[model.best_epoch - 1]
    entry = {
        "seed": seed,
        "status": "ok",
        "reason": None,
        "epochs": len(model.history),
        "best_epoch": best["epoch"],
        "val_loss": best["val_loss"],
        "val_macro_f1": best["val_macro_f1"],
        "n_parameters": model.n_parameters,
    }
    f1 = "no val" if best["val_macro_f1"] is None else f"val macro F1 {best['val_macro_f1']:.2f}"
    done = "%s seed %d: %s after %d epochs (n=%d windows)"
    logger.log(MILESTONE, done, name, seed, f1, len(model.history), n_windows)
    return entry, [{"seed": seed, **row} for row in model.history]


def _content_sha256(parquet: Path) -> str:
    """Hash of a table's content, which does not change with the version that wrote the file."""
    return hashlib.sha256(files.read_parquet(parquet).write_csv().encode()).hexdigest()
