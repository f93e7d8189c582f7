"""Detection in time: alarms, and how well scores rank, of all trained models of a split."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
import polars as pl

from cis490 import files
from cis490.channels import PHASES
from cis490.errors import Cis490Error, FormatError
from cis490.evaluation.alarms import (
    Alarms,
    Allowed,
    Choice,
    Heard,
    Rule,
    Windows,
    alarm_score,
    choose,
)
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
from cis490.evaluation.metrics import ALARM_PHASES
from cis490.evaluation.ranking import Called, Ranking
from cis490.evaluation.tables import DECIDED, Entrant, Provenance, metrics_frame
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
# What else is allowed, in times of the false alarms an hour that were asked for.
LIMITS: Final = (3, 10, 30)


class _Scored(NamedTuple):
    """A model with something to say of the windows of val and test.

    Attributes:
        entrant: its runs are those of the scores.
        score: (R, n) alarm scores.
        decided: (R, n) bool: the likeliest phase is an infected one.
        choice: of the threshold.
        limits: thresholds for more false alarms, by how many an hour.
    """

    entrant: Entrant
    score: np.ndarray
    decided: np.ndarray
    choice: Choice
    limits: Mapping[str, Choice]

    def of(self, chosen: np.ndarray) -> _Scored:
        """On some of the windows, (n,) bool."""
        return self._replace(score=self.score[:, chosen], decided=self.decided[:, chosen])


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
    found: list[_Scored] = []
    infected = np.flatnonzero(np.isin(PHASES, ALARM_PHASES))
    for model, predicted, path in zip(models, predictions, out_of_fold, strict=True):
        said = read_probabilities(model, predicted, scored)
        entrant = _entrant(said)
        unseen = _unseen(path, fitted, shown)
        own = _alarm_scores(unseen), Windows.of(unseen, onsets, **window)
        choice = choose(*own, per_hour=false_alarms_per_hour, hysteresis=hysteresis)
        if unseen.is_empty() and (why := files.read_parquet_metadata(path).get("reason")):
            choice = replace(choice, reason=f"{choice.reason}: {why}")
        if choice.reason:
            logger.warning("%s: no alarms: %s", entrant.name, choice.reason)
        limits = {
            f"{limit:g}": choose(*own, per_hour=limit, hysteresis=hysteresis)
            for limit in (times * false_alarms_per_hour for times in LIMITS)
            if choice.n_windows and limit
        }
        thresholds[entrant.name] = asdict(choice) | {
            "seeds": unseen["seed"].unique().sort().to_list(),
            "limits": {limit: asdict(other) for limit, other in limits.items()},
        }
        if entrant.seeds:
            decided = np.isin(said.scores.argmax(2), infected)
            found.append(_Scored(entrant, alarm_score(said.scores), decided, choice, limits))
    found.sort(key=lambda each: each.entrant.name)
    rows: list[dict[str, Any]] = []
    tables = [pl.LazyFrame(schema=ALARMS_SCHEMA)]
    for part in SHOWN:
        chosen = (scored["part"] == part).to_numpy()
        of_part = scored.filter(chosen)
        if found and len(of_part):
            windows = Windows.of(of_part, onsets, **window)
            of_models = [each.of(chosen) for each in found]
            some, heard = _detect(part, of_part, windows, of_models, origin)
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
    of_models: Sequence[_Scored],
    origin: Provenance,
) -> tuple[list[dict[str, Any]], list[pl.LazyFrame]]:
    """The rows of both tables for one part; `frame` has its windows, of_models their scores."""
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
    for entrant, score, decided, choice, limits in of_models:
        own: list[Family] = []
        both = bool(windows.positive.any() and windows.negative.any())
        if both:
            own.append(Ranking(score, windows))
            own.append(
                Called(decided, windows, DECIDED, prefix=f"{DECIDED}_", told="|called=argmax")
            )
        if choice.rule is not None:
            told = _told(choice.rule)
            heard = _heard(score, windows, choice.rule)
            own.append(Alarms(heard, windows, control, told))
            if both:
                called = score >= choice.rule.threshold
                own.append(Called(called, windows, "threshold", told=told))
            tables += _episode_rows(episodes, entrant, heard, origin)
        rules = {limit: other.rule for limit, other in limits.items() if other.rule is not None}
        if rules:
            more = {limit: _heard(score, windows, rule) for limit, rule in rules.items()}
            told_of = {limit: _told(rule) for limit, rule in rules.items()}
            own.append(Allowed(more, windows, told_of))
        if own:
            entrants.append(entrant)
            families.append(own)
    values = resample(families, strata, origin.replicates)
    rows: list[dict[str, Any]] = []
    for entrant, own, replicated in zip(entrants, families, values, strict=True):
        rows += figure_rows(part, entrant, own, replicated, strata, origin)
    return rows, tables


def _heard(score: np.ndarray, windows: Windows, rule: Rule) -> list[Heard]:
    return [Heard.of(run, windows, rule) for run in score]


def _told(rule: Rule) -> str:
    """What a signature says of a threshold, to the last digit: thresholds lie near 1."""
    return f"|threshold={rule.threshold!r}|release={rule.release!r}|chosen=out_of_fold"


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
