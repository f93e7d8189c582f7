"""Predict every val and test window with a trained model, and time one window."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import polars as pl

from cis490.channels import PHASES
from cis490.files import read_json, write_json, write_parquet
from cis490.logs import MILESTONE, logger
from cis490.models.base import Classifier
from cis490.models.registry import get_class
from cis490.models.views import WindowView
from cis490.schema import Schema
from cis490.training.checkpoint import load_best, load_model, read_description
from cis490.training.data import Cases, batches_of, load_split
from cis490.training.phases import PhaseFilter

PARTS: Final = ("val", "test")
TIMED: Final = 200  # single windows that are timed
WARM_UP: Final = 20  # single windows before that

PREDICTIONS_SCHEMA: Final = pl.Schema(
    {
        "episode_id": pl.String(),
        "window": pl.Int32(),
        "part": pl.String(),
        "seed": pl.Int64(),
        "phase": pl.String(),
        **{f"p_{phase}": pl.Float32() for phase in PHASES},
    }
)


def predict(
    *,
    model_dir: Path,
    schema_file: Path,
    split_file: Path,
    features: Sequence[Path],
    tensors: Sequence[Path],
    config: Mapping[str, Any],
    out: Path,
    latency_out: Path,
) -> None:
    """Write the predictions of every val and test window, and the latency of one.

    Args:
        model_dir: folder of the model, as `training.train` wrote it.
        schema_file: schema.json.
        split_file: splits/<split>.parquet.
        features, tensors: a file for each batch of the val and test episodes.
        config: resolved settings; `training.device` and `training.threads` are used.
        out: Parquet; columns `PREDICTIONS_SCHEMA`, sorted by seed, part, episode_id, window; no
            rows if the training failed.
        latency_out: JSON; p50_ms and p95_ms of one window from input to probabilities on one
            thread of the CPU, bytes_on_disk, n_parameters.

    Raises:
        SchemaMismatch: the model or a file is of another schema than schema.json tells.
        FormatError: a file is damaged, or the files do not fit each other.
    """
    schema = Schema.from_dict(read_json(schema_file))
    description = read_description(model_dir / "model.json")
    name = f"{description['architecture']} {description['mode']}"
    models = load_model(model_dir, schema, device=config["training"]["device"])
    frames = [pl.DataFrame(schema=PREDICTIONS_SCHEMA)]
    latency: dict[str, Any] = {"p50_ms": None, "p95_ms": None, "n_parameters": None}
    if models:
        n_windows, follows = 0, filter_of(description)
        # One batch at a time: a fleet's val and test windows would not fit into a job's memory.
        for batch in batches_of(split_file, PARTS) or [""]:
            cases = load_split(
                split_file,
                PARTS,
                schema=schema,
                mode=description["mode"],
                tabular=get_class(description["architecture"]).tabular,
                features=features,
                tensors=tensors,
                batch=batch,
            )
            frames += [predictions_of(m, cases, seed, follows) for seed, m in models.items()]
            n_windows += len(cases.y)
        best = load_best(model_dir, schema)
        assert best is not None
        latency = _latency(best, cases.X)
        logger.log(MILESTONE, "%s: predicted %d windows", name, n_windows)
    else:
        logger.log(MILESTONE, "%s: no predictions, its training failed", name)
    files = ("model.json", "weights.safetensors")
    size = sum((model_dir / file).stat().st_size for file in files)
    order = ["seed", "part", "episode_id", "window"]
    write_parquet(out, pl.concat(frames).sort(order))
    write_json(latency_out, latency | {"batch": 1, "threads": 1, "bytes_on_disk": size})


def filter_of(description: Mapping[str, Any]) -> PhaseFilter | None:
    """The filter that a model was trained with, from its model.json; None without one."""
    state = description["phase_filter"]
    return None if state is None else PhaseFilter.from_state(state)


def predictions_of(
    model: Classifier, cases: Cases, seed: int, follows: PhaseFilter | None
) -> pl.DataFrame:
    """A model's probabilities of cases: `PREDICTIONS_SCHEMA`, in the order of the cases.

    With a filter a window's are those after the windows before it; the cases must hold these too.
    """
    probabilities = model.predict_proba(cases.X)
    if follows is not None:
        probabilities = follows.apply(probabilities, cases.rows)
    columns = [pl.Series(f"p_{phase}", probabilities[:, i]) for i, phase in enumerate(PHASES)]
    frame = cases.rows.with_columns(pl.lit(seed, pl.Int64).alias("seed"), *columns)
    return frame.select(list(PREDICTIONS_SCHEMA)).cast(PREDICTIONS_SCHEMA)


def _latency(model: Classifier, X: np.ndarray | WindowView) -> dict[str, Any]:
    """Time single windows, one after another; a window of zeros where there is none."""
    if len(X):
        first = X if isinstance(X, np.ndarray) else WindowView(X.series, X.start[:1], X.length)
        window = first[:1] if isinstance(first, np.ndarray) else first.to_array()
    else:
        window = np.zeros((1, *X.shape[1:]), np.float32)
    took = []
    for _ in range(WARM_UP + TIMED):
        begun = time.perf_counter()
        model.predict_proba(window)
        took.append(1000 * (time.perf_counter() - begun))
    p50, p95 = np.percentile(took[WARM_UP:], [50, 95])
    return {"p50_ms": p50, "p95_ms": p95, "n_parameters": model.n_parameters}
