"""Detection in time: alarms, and how well scores rank, of all trained models of a split."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import polars as pl

from cis490 import files
from cis490.channels import PHASES
from cis490.errors import Cis490Error, FormatError
from cis490.evaluation.alarms import Alarms, Choice, Heard, Windows, alarm_score, choose
from cis490.evaluation.breakdowns import CONTROL
from cis490.evaluation.families import Family, figure_rows, resample
from cis490.evaluation.inputs import (
    SHOWN,
    Probabilities,
    read_onsets,
    read_out_of_fold,
    read_probabilities,
    read_windows,
)
from cis490.evaluation.ranking import AtThreshold, Ranking
from cis490.evaluation.tables import Entrant, Provenance, metrics_frame
from cis490.logs import logger

ALARMS_SCHEMA: Final = pl.Schema(
    {
        "split": pl.String,
        "part": pl.String,
        "model": pl.String,
        "mode": pl.String,
        "seed": pl.Int64,
        "host_id": pl.String,
        "profile": pl.String,
        "episode_id": pl.String,
        "onset_s": pl.Float64,
        "first_alarm_s": pl.Float64,
        "n_false": pl.Int64,
        "clean_hours": pl.Float64,
    }
)
THRESHOLDS: Final = "thresholds"


def detect(
    *,
    split_file: Path,
    split_json: Path,
    features: Sequence[Path],
    episodes: Sequence[Path],
    labels: Sequence[Path],
    models: Sequence[Path],
    predictions: Sequence[Path],
    out_of_fold: Sequence[Path],
    detection: Path,
    alarms: Path,
    window: Mapping[str, float],
    replicates: int,
    false_alarms_per_hour: float,
    hysteresis: float,
) -> None:
    """Write detection.parquet (METRICS_SCHEMA) and alarms.parquet (ALARMS_SCHEMA).

    Both hold the chosen thresholds, or why there is none, in their metadata (`read_thresholds`).

    Args:
        split_file, split_json: splits/<split>.parquet and .json.
        features, episodes, labels: features/<batch>.parquet and telemetry/<batch>/episodes.parquet
            and labels.parquet of at least the split's train, val and test episodes.
        models, predictions, out_of_fold: one each a model, in the same order: its model.json, its
            predictions, and those of the training hosts out of fold.
        detection, alarms: the tables to write.
        window: the settings `length_s` and `stride_s`.
        replicates: of the bootstrap.
        false_alarms_per_hour: of clean time that a threshold may give out of fold.
        hysteresis: the score at which an alarm ends over that at which it begins.

    Raises:
        Cis490Error: the lists differ in length, or predictions do not fit the split's windows.
    """
    if not len(models) == len(predictions) == len(out_of_fold):
        raise Cis490Error("detect: models, predictions and out_of_fold must be as many")
    split = files.read_json(split_json)
    origin = Provenance(split["name"], split["sha256"], replicates)
    onsets = read_onsets(episodes, labels)
    every = read_windows(split_file, features)
    scored = every.filter(pl.col("part") != "train")
    shown = next((part for part in SHOWN if part in set(scored["part"].unique())), None)
    fitted = (
        every.filter(pl.col("part") != "test").unique("episode_id").select("episode_id", "part")
    )
    thresholds: dict[str, Any] = {}
    found: list[tuple[Entrant, np.ndarray, Choice]] = []
    for model, predicted, path in zip(models, predictions, out_of_fold, strict=True):
        said = read_probabilities(model, predicted, scored)
        entrant = _entrant(said)
        unseen = _unseen(path, fitted, shown)
        choice = choose(
            _alarm_scores(unseen),
            Windows.of(unseen, onsets, **window),
            per_hour=false_alarms_per_hour,
            hysteresis=hysteresis,
        )
        if unseen.is_empty() and (why := files.read_parquet_metadata(path).get("reason")):
            choice = replace(choice, reason=f"{choice.reason}: {why}")
        if choice.reason:
            logger.warning("%s: no alarms: %s", entrant.name, choice.reason)
        seeds = unseen["seed"].unique().sort().to_list()
        thresholds[entrant.name] = asdict(choice) | {"seeds": seeds}
        if entrant.seeds:
            found.append((entrant, alarm_score(said.scores), choice))
    found.sort(key=lambda each: each[0].name)
    rows: list[dict[str, Any]] = []
    tables = [pl.LazyFrame(schema=ALARMS_SCHEMA)]
    for part in SHOWN:
        chosen = (scored["part"] == part).to_numpy()
        of_part = scored.filter(chosen)
        if found and len(of_part):
            windows = Windows.of(of_part, onsets, **window)
            of_entrants = [(entrant, score[:, chosen], choice) for entrant, score, choice in found]
            some, heard = _detect(part, of_part, windows, of_entrants, origin)
            rows += some
            tables += heard
        logger.info("%s: %d models on %d windows", part, len(found), len(of_part))
    metadata = {
        "split_sha256": split["sha256"],
        "false_alarms_per_hour": f"{false_alarms_per_hour:g}",
        "hysteresis": f"{hysteresis:g}",
        THRESHOLDS: files.to_json(thresholds),
    }
    files.write_parquet(detection, metrics_frame(rows), metadata)
    files.write_parquet(alarms, pl.concat(tables), metadata)


def read_thresholds(path: Path) -> dict[str, dict[str, Any]]:
    """What thresholds were chosen, from the metadata of detection.parquet or alarms.parquet.

    Returns:
        `<model>_<mode>` -> a `Choice` as a mapping, and the seeds of the predictions it rests on.
    """
    content: dict[str, dict[str, Any]] = json.loads(
        files.read_parquet_metadata(path).get(THRESHOLDS, "{}")
    )
    return content


def _unseen(path: Path, fitted: pl.DataFrame, shown: str | None) -> pl.DataFrame:
    """Out-of-fold predictions of the training hosts; of val too, unless val is what is shown.

    Raises:
        FormatError: an episode is not one of `fitted` (episode_id, part), those of train and val.
    """
    frame = read_out_of_fold(path)
    strangers = frame.join(fitted, on="episode_id", how="anti")
    if len(strangers):
        raise FormatError(
            f"{path}: {strangers['episode_id'][0]} is no training or val episode of this split; "
            "delete it and run the workflow again"
        )
    chosen = fitted.filter(pl.col("part") != str(shown))
    return frame.join(chosen, on="episode_id", how="semi", maintain_order="left")


def _alarm_scores(frame: pl.DataFrame) -> np.ndarray:
    return alarm_score(frame.select(f"p_{phase}" for phase in PHASES).to_numpy())


def _entrant(said: Probabilities) -> Entrant:
    runs = tuple(range(len(said.seeds)))
    return Entrant(said.architecture, said.mode, said.seeds, runs, said.checkpoint)


def _detect(
    part: str,
    frame: pl.DataFrame,
    windows: Windows,
    of_entrants: Sequence[tuple[Entrant, np.ndarray, Choice]],
    origin: Provenance,
) -> tuple[list[dict[str, Any]], list[pl.LazyFrame]]:
    """The rows of both tables for one part; `frame` has its windows, of_entrants their scores."""
    episodes = frame.unique("episode_id", maintain_order=True)
    episodes = episodes.select("part", "host_id", "profile", "episode_id")
    strata = episodes["profile"].to_list()
    control = (episodes["profile"] == CONTROL).to_numpy()
    episodes = episodes.with_columns(
        pl.Series("onset_s", windows.onset_s).fill_nan(None),
        pl.Series("clean_hours", windows.count(windows.clean) * windows.hours(1)),
    )
    tables: list[pl.LazyFrame] = []
    entrants: list[Entrant] = []
    families: list[list[Family]] = []
    for entrant, score, choice in of_entrants:
        own: list[Family] = []
        both = bool(windows.positive.any() and windows.negative.any())
        if both:
            own.append(Ranking(score, windows))
        if choice.rule is not None:
            told = (
                f"|threshold={choice.rule.threshold:.6g}|release={choice.rule.release:.6g}"
                "|chosen=out_of_fold"
            )
            heard = [Heard.of(run, windows, choice.rule) for run in score]
            own.append(Alarms(heard, windows, control, told))
            if both:
                own.append(AtThreshold(score, windows, choice.rule.threshold, told))
            tables += _episode_rows(episodes, entrant, heard, origin)
        if own:
            entrants.append(entrant)
            families.append(own)
    values = resample(families, strata, origin.replicates)
    rows: list[dict[str, Any]] = []
    for entrant, own, replicated in zip(entrants, families, values, strict=True):
        rows += figure_rows(part, entrant, own, replicated, strata, origin)
    return rows, tables


def _episode_rows(
    episodes: pl.DataFrame, entrant: Entrant, heard: Sequence[Heard], origin: Provenance
) -> list[pl.LazyFrame]:
    """ALARMS_SCHEMA of one entrant, a frame a seed; what they share stands in memory once."""
    return [
        episodes.lazy()
        .with_columns(
            pl.Series("first_alarm_s", run.first_alarm_s).fill_nan(None),
            pl.Series("n_false", run.n_false),
            split=pl.lit(origin.split),
            model=pl.lit(entrant.model),
            mode=pl.lit(entrant.mode),
            seed=pl.lit(seed, pl.Int64),
        )
        .select(list(ALARMS_SCHEMA))
        for seed, run in zip(entrant.seeds, heard, strict=True)
    ]
