"""What an evaluation reads: the truth of every window, and what each detector says of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import polars as pl

from cis490 import files
from cis490.channels import PHASES
from cis490.errors import FormatError
from cis490.files import read_json

# The parts that are scored, in the order in which one stands in for the other: test, else val.
SHOWN: Final = ("test", "val")

_KEY: Final = ["part", "episode_id", "window"]
_WINDOW_COLUMNS: Final = pl.Schema(
    {
        "episode_id": pl.String,
        "window": pl.Int32,
        "phase": pl.String,
        "phase_share": pl.Float32,
    }
)


def read_windows(split_file: Path, features: Sequence[Path]) -> pl.DataFrame:
    """Every window of a split's train, val and test episodes, sorted by part, episode and window.

    Returns:
        part, episode_id, host_id, profile (str), window (int32), phase (int64, index into
        PHASES), phase_share (float32).

    Raises:
        FormatError: a window has a phase that is not one of PHASES.
    """
    empty = pl.DataFrame(schema=_WINDOW_COLUMNS)
    windows = pl.concat(
        [empty, *(files.read_parquet(path, columns=list(_WINDOW_COLUMNS)) for path in features)]
    )
    parts = files.read_parquet(split_file, columns=["episode_id", "host_id", "profile", "part"])
    parts = parts.filter(pl.col("part").is_in(["train", *SHOWN]))
    joined = windows.join(parts, on="episode_id", how="inner").sort(_KEY)
    unknown = sorted(set(joined["phase"]) - set(PHASES))
    if unknown:
        raise FormatError(f"features: unknown phase {unknown[0]}; known: {', '.join(PHASES)}")
    return joined.with_columns(
        pl.col("phase").replace_strict(PHASES, range(len(PHASES)), return_dtype=pl.Int64)
    )


@dataclass(frozen=True)
class Detector:
    """A trained model as the evaluation sees it.

    Attributes:
        architecture, mode: its name.
        status: "ok" or "failed"; with `reason` (None when ok).
        seeds: those that were trained, sorted.
        failed_seeds: seed and reason of each that was not.
        predicted: (len(seeds), n) int64 index into PHASES, of the windows of val and test in the
            order of `read_windows`; no rows when failed.
        checkpoint: sha256 of its weights.
        latency, size: from its latency file, for eval.json.
        tuning: what model.json says of a search of its settings; None without one.
    """

    architecture: str
    mode: str
    status: str
    reason: str | None
    seeds: tuple[int, ...]
    failed_seeds: list[dict[str, Any]]
    predicted: np.ndarray
    checkpoint: str
    latency: dict[str, Any]
    size: dict[str, Any]
    tuning: dict[str, Any] | None


def read_detector(
    model_file: Path, predictions_file: Path, latency_file: Path, windows: pl.DataFrame
) -> Detector:
    """Read one model's verdict on `windows`, the val and test rows of `read_windows`.

    Raises:
        FormatError: the predictions are not of exactly these windows, disagree with the features
            about the truth, hold a value that is not a number, or are another model's.
    """
    model = read_json(model_file)
    name = f"{model['architecture']}_{model['mode']}"
    if Path(predictions_file).stem != name:
        raise FormatError(f"{predictions_file}: expected the predictions of {name} ({model_file})")
    timing = read_json(latency_file)
    seeds = tuple(sorted(each["seed"] for each in model["seeds"] if each["status"] == "ok"))
    frame = files.read_parquet(predictions_file).sort("seed", *_KEY)
    if len(windows) and set(frame["seed"]) != set(seeds):
        raise FormatError(
            _mismatch(
                predictions_file,
                f"seeds {sorted(set(frame['seed']))}, but {model_file} trained {list(seeds)}",
            )
        )
    predicted = np.array(
        [_argmax(predictions_file, frame.filter(seed=seed), windows) for seed in seeds],
        dtype=np.int64,
    ).reshape(len(seeds), len(windows))
    return Detector(
        model["architecture"],
        model["mode"],
        model["status"],
        model.get("reason"),
        seeds,
        [
            {"seed": each["seed"], "reason": each["reason"]}
            for each in model["seeds"]
            if each["status"] != "ok"
        ],
        predicted,
        model["weights_sha256"],
        latency={key: timing.get(key) for key in ("p50_ms", "p95_ms", "batch", "threads")},
        size={key: timing.get(key) for key in ("bytes_on_disk", "n_parameters")},
        tuning=model.get("tuning"),
    )


def _argmax(path: Path, frame: pl.DataFrame, windows: pl.DataFrame) -> np.ndarray:
    ours, theirs = windows.select(_KEY), frame.select(_KEY)
    if not ours.equals(theirs):
        lacking, foreign = (
            ours.join(theirs, on=_KEY, how="anti"),
            theirs.join(ours, on=_KEY, how="anti"),
        )
        first = next(iter([*lacking.rows(), *foreign.rows()]), "a window twice")
        raise FormatError(
            _mismatch(
                path,
                f"{len(theirs)} windows for {len(ours)}: lacks {len(lacking)}, has "
                f"{len(foreign)} others (first: {first})",
            )
        )
    known = np.array(PHASES, dtype=object)[windows["phase"].to_numpy()]
    if list(known) != frame["phase"].to_list():
        raise FormatError(_mismatch(path, "another true phase in some windows"))
    scores = frame.select(f"p_{phase}" for phase in PHASES).to_numpy()
    if not np.isfinite(scores).all():
        raise FormatError(f"{path}: a probability is not a finite number; train that model again")
    return np.asarray(scores.argmax(1), dtype=np.int64)


def _mismatch(path: Path, what: str) -> str:
    return (
        f"{path} does not fit this split's val and test windows: {what}; "
        "delete it and run the workflow again"
    )
