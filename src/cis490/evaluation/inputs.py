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
from cis490.evaluation.metrics import ALARM_PHASES
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
    unknown = sorted(set(joined["phase"].unique()) - set(PHASES))
    if unknown:
        raise FormatError(f"features: unknown phase {unknown[0]}; known: {', '.join(PHASES)}")
    return joined.with_columns(
        pl.col("phase").replace_strict(PHASES, range(len(PHASES)), return_dtype=pl.Int64)
    )


def silent_sources(split_file: Path, features: Sequence[Path]) -> list[dict[str, Any]]:
    """How many of a host's episodes have no value of a source, whether or not its file is there.

    Args:
        split_file, features: as of `read_windows`.

    Returns:
        By host and source that some train, val or test episode has nothing of: host_id, source,
        n_silent, n_episodes.
    """
    parts = files.read_parquet(split_file, columns=["episode_id", "host_id", "part"])
    parts = parts.filter(pl.col("part").is_in(["train", *SHOWN]))
    found = [pl.DataFrame(schema={"episode_id": pl.String, "source": pl.String})]
    for path in features:
        names = [name for name in pl.read_parquet_schema(path) if name.endswith(".missing")]
        if not names:
            continue
        windows = files.read_parquet(path, columns=["episode_id", *names])
        # Of each episode the least share that is missing of any channel in any window.
        least = windows.group_by("episode_id").agg(pl.col(names).min())
        for source in sorted({name.partition(".")[0] for name in names}):
            own = [name for name in names if name.startswith(f"{source}.")]
            silent = least.filter(pl.min_horizontal(own) >= 1)
            found.append(silent.select("episode_id", source=pl.lit(source)))
    silent = pl.concat(found).join(parts, on="episode_id", how="inner")
    n_episodes = dict(parts.group_by("host_id").len().rows())
    counted = silent.group_by("host_id", "source").len("n_silent").sort("host_id", "source")
    return [row | {"n_episodes": n_episodes[row["host_id"]]} for row in counted.to_dicts()]


def read_episodes(split_file: Path) -> pl.DataFrame:
    """What is known of a split's episodes: episode_id, sample_name, status, background (a list)."""
    columns = ["episode_id", "sample_name", "status", "background"]
    return files.read_parquet(split_file, columns=columns)


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


@dataclass(frozen=True)
class Probabilities:
    """What a trained model gives to each phase in each window.

    Attributes:
        architecture, mode: its name.
        seeds: those that were trained, sorted.
        scores: (len(seeds), n, K) float32 in the order of PHASES, of the windows of val and test
            in the order of `read_windows`; no rows when failed.
        checkpoint: sha256 of its weights.
    """

    architecture: str
    mode: str
    seeds: tuple[int, ...]
    scores: np.ndarray
    checkpoint: str


def read_detector(
    model_file: Path, predictions_file: Path, latency_file: Path, windows: pl.DataFrame
) -> Detector:
    """Read one model's verdict on `windows`, the val and test rows of `read_windows`.

    Raises:
        FormatError: the predictions are not of exactly these windows, disagree with the features
            about the truth, hold a value that is not a number, or are another model's.
    """
    model = _read_model(model_file, predictions_file)
    timing = read_json(latency_file)
    seeds = _trained(model)
    scores = _of_seeds(model_file, predictions_file, seeds, windows)
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
        scores.argmax(2).astype(np.int64),
        model["weights_sha256"],
        latency={key: timing.get(key) for key in ("p50_ms", "p95_ms", "batch", "threads")},
        size={key: timing.get(key) for key in ("bytes_on_disk", "n_parameters")},
        tuning=model.get("tuning"),
    )


def read_probabilities(
    model_file: Path, predictions_file: Path, windows: pl.DataFrame
) -> Probabilities:
    """Read what a model gives to each phase in `windows`, the val and test rows of `read_windows`.

    Raises:
        FormatError: as `read_detector`.
    """
    model = _read_model(model_file, predictions_file)
    seeds = _trained(model)
    return Probabilities(
        model["architecture"],
        model["mode"],
        seeds,
        _of_seeds(model_file, predictions_file, seeds, windows),
        model["weights_sha256"],
    )


def read_out_of_fold(path: Path) -> pl.DataFrame:
    """Read a model's out-of-fold predictions of the training hosts, oof/<split>/<model>.parquet.

    Returns:
        episode_id (str), window (int32), seed (int64), phase (int64, index into PHASES), fold
        (int32) and a p_<phase> (float32) each, sorted by episode and window; no rows where none
        could be made.

    Raises:
        FormatError: a phase is not one of PHASES, or a probability is not a finite number.
    """
    scores = [f"p_{phase}" for phase in PHASES]
    columns = ["episode_id", "window", "seed", "phase", "fold", *scores]
    frame = files.read_parquet(path, columns=columns)
    if unknown := sorted(set(frame["phase"].unique()) - set(PHASES)):
        raise FormatError(f"{path}: unknown phase {unknown[0]}; known: {', '.join(PHASES)}")
    if not np.isfinite(frame.select(scores).to_numpy()).all():
        raise FormatError(f"{path}: a probability is not a finite number; make it again")
    return frame.sort("episode_id", "window").with_columns(
        pl.col("phase").replace_strict(PHASES, range(len(PHASES)), return_dtype=pl.Int64)
    )


def read_onsets(episodes: Sequence[Path], labels: Sequence[Path]) -> pl.DataFrame:
    """When each infection began, to the exactness of the labels.

    The onset is the first label of ALARM_PHASES (usually `infecting`; an episode may skip it) if
    another label came before it. An episode that begins in one of them was infected before it was
    recorded: when is not known.

    Args:
        episodes, labels: telemetry/<batch>/episodes.parquet and labels.parquet, in the same order.

    Returns:
        episode_id (str), onset_s (float64) seconds after the episode's start; a row for each
        episode with an onset that is known.
    """
    found = [pl.DataFrame(schema={"episode_id": pl.String, "onset_s": pl.Float64})]
    for episodes_file, labels_file in zip(episodes, labels, strict=True):
        started = files.read_parquet(episodes_file, columns=["episode_id", "started_wall_ns"])
        of_batch = files.read_parquet(labels_file, columns=["episode", "t_wall_ns", "phase"])
        alarming = pl.col("phase").is_in(ALARM_PHASES)
        first = of_batch.group_by("episode", maintain_order=True).agg(
            begins_infected=alarming.first(), t=pl.col("t_wall_ns").filter(alarming).first()
        )
        known = first.filter(~pl.col("begins_infected"), pl.col("t").is_not_null())
        began = started[known["episode"].to_list()]
        onset = (known["t"] - began["started_wall_ns"]) / 1e9
        found.append(pl.DataFrame([began["episode_id"], onset.alias("onset_s")]))
    return pl.concat(found)


def _read_model(model_file: Path, predictions_file: Path) -> dict[str, Any]:
    model: dict[str, Any] = read_json(model_file)
    name = f"{model['architecture']}_{model['mode']}"
    if Path(predictions_file).stem != name:
        raise FormatError(f"{predictions_file}: expected the predictions of {name} ({model_file})")
    return model


def _trained(model: dict[str, Any]) -> tuple[int, ...]:
    return tuple(sorted(each["seed"] for each in model["seeds"] if each["status"] == "ok"))


def _of_seeds(
    model_file: Path, predictions_file: Path, seeds: Sequence[int], windows: pl.DataFrame
) -> np.ndarray:
    """(len(seeds), n_windows, K) float32."""
    frame = files.read_parquet(predictions_file)
    found = frame["seed"].unique().sort().to_list()
    if len(windows) and found != list(seeds):
        raise FormatError(
            _mismatch(predictions_file, f"seeds {found}, but {model_file} trained {list(seeds)}")
        )
    scores = [_of_seed(predictions_file, frame.filter(seed=seed), windows) for seed in seeds]
    return np.array(scores, dtype=np.float32).reshape(len(seeds), len(windows), len(PHASES))


def _of_seed(path: Path, frame: pl.DataFrame, windows: pl.DataFrame) -> np.ndarray:
    ours, theirs = windows.select(_KEY), frame.select(_KEY)
    if not ours.equals(theirs):  # sorted already, if the workflow wrote it
        frame = frame.sort(_KEY)
        theirs = frame.select(_KEY)
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
    if not pl.Series(PHASES).gather(windows["phase"]).equals(frame["phase"]):
        raise FormatError(_mismatch(path, "another true phase in some windows"))
    scores = frame.select(f"p_{phase}" for phase in PHASES).to_numpy()
    if not np.isfinite(scores).all():
        raise FormatError(f"{path}: a probability is not a finite number; train that model again")
    return np.asarray(scores)


def _mismatch(path: Path, what: str) -> str:
    return (
        f"{path} does not fit this split's val and test windows: {what}; "
        "delete it and run the workflow again"
    )
