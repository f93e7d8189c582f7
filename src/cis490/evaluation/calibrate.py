"""Calibration and prediction sets of all models of one split, from files to files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
import polars as pl

from cis490.channels import PHASES
from cis490.errors import Cis490Error, FormatError
from cis490.evaluation.calibration import (
    BINS,
    KEY,
    RELIABILITY_SCHEMA,
    SCOPE,
    Calibration,
    Reliability,
    Sums,
    Temperature,
    fit_temperature,
    scaled,
)
from cis490.evaluation.conformal import (
    ALPHA,
    MIN_EPISODES,
    Coverage,
    cross_conformal,
    in_words,
    least_probability,
    prediction_sets,
)
from cis490.evaluation.conformal import SCOPE as CONFORMAL
from cis490.evaluation.families import Family, figure_rows, resample
from cis490.evaluation.inputs import (
    SHOWN,
    read_out_of_fold,
    read_probabilities,
    read_windows,
)
from cis490.evaluation.tables import Entrant, Provenance, metrics_frame
from cis490.files import read_json, to_json, write_parquet
from cis490.logs import logger

# The part of figures that rest on out-of-fold predictions of the training hosts.
OUT_OF_FOLD: Final = "oof"
# Models whose sums are held at once: a fleet's of all of them would not fit into a job's memory.
TOGETHER: Final = 6


def calibrate(
    *,
    split_file: Path,
    split_json: Path,
    features: Sequence[Path],
    models: Sequence[Path],
    predictions: Sequence[Path],
    out_of_fold: Sequence[Path],
    calibration: Path,
    reliability: Path,
    replicates: int,
) -> None:
    """Write calibration.parquet and reliability.parquet.

    Args:
        split_file, split_json: splits/<split>.parquet and .json.
        features: features/<batch>.parquet of at least the split's train, val and test episodes.
        models, predictions, out_of_fold: one each a model, in the same order: its model.json, its
            predictions, and those of the training hosts by models that did not see the episode.
        calibration: the table to write, in the columns of metrics.parquet. Its metadata tells by
            model what could not be measured and why (`not_measurable`), and what the coverage on
            test says in words (`exchangeability`).
        reliability: the diagrams to write, in the columns of `RELIABILITY_SCHEMA`.
        replicates: of the bootstrap.

    Raises:
        Cis490Error: the lists differ in length, or predictions do not fit the split's windows.
    """
    if not len(models) == len(predictions) == len(out_of_fold):
        raise Cis490Error("calibrate: models, predictions and out_of_fold must be as many")
    split = read_json(split_json)
    windows = read_windows(split_file, features)
    shown = next((part for part in SHOWN if part in set(windows["part"])), None)
    tables = _Tables(Provenance(split["name"], split["sha256"], replicates))

    learned = tables.learn(models, out_of_fold, windows, shown)
    scored = windows.filter(pl.col("part") != "train")
    files = list(zip(models, predictions, strict=True))
    for start in range(0, len(files) if shown else 0, TOGETHER):
        some = slice(start, start + TOGETHER)
        tables.score(files[some], learned[some], scored, str(shown))
    about = {
        "split_sha256": split["sha256"],
        "part": str(shown),
        "alpha": str(ALPHA),
        "not_measurable": to_json(tables.unmeasured),
        "exchangeability": to_json(tables.verdicts),
    }
    write_parquet(calibration, metrics_frame(tables.rows), about)
    key = ["split", "model", "mode", "part", "scaled", "bin"]
    diagrams = pl.DataFrame(tables.diagrams, schema=RELIABILITY_SCHEMA)
    write_parquet(reliability, diagrams.sort(key))


@dataclass(frozen=True)
class _Cases:
    """Windows of n episodes.

    Attributes:
        truth, unit: (n_windows,) index into PHASES, and episode in [0, n).
        host, profile: of each episode.
    """

    truth: np.ndarray
    unit: np.ndarray
    host: list[str]
    profile: list[str]

    @classmethod
    def of(cls, windows: pl.DataFrame) -> _Cases:
        """Of windows that are sorted by episode."""
        episodes = windows.unique("episode_id", maintain_order=True)
        first = windows["episode_id"] != windows["episode_id"].shift()
        return cls(
            windows["phase"].to_numpy(),
            first.fill_null(value=True).cum_sum().to_numpy().astype(np.int64) - 1,
            episodes["host_id"].to_list(),
            episodes["profile"].to_list(),
        )


@dataclass(frozen=True)
class _Learned:
    """What out-of-fold predictions of a model chose, None where they could not; from n episodes."""

    temperature: Temperature | None = None
    least: float | None = None
    n_episodes: int = 0


@dataclass
class _Tables:
    """The rows of both tables, and what can only be said in words, by model."""

    origin: Provenance
    rows: list[dict[str, Any]] = field(default_factory=list)
    diagrams: list[dict[str, Any]] = field(default_factory=list)
    unmeasured: dict[str, dict[str, str]] = field(default_factory=dict)
    verdicts: dict[str, str] = field(default_factory=dict)

    def learn(
        self,
        models: Sequence[Path],
        paths: Sequence[Path],
        windows: pl.DataFrame,
        shown: str | None,
    ) -> list[_Learned]:
        """Temperature and sets of each model, and how well the sets cover out of fold.

        What is shown never chooses: if val is, out-of-fold predictions of val are left out.
        """
        training = windows.filter(pl.col("part").is_in(["train", "val"])).with_row_index("row")
        kept = training.filter(pl.col("part") != str(shown))
        cases = _Cases.of(kept)  # sorted by part, train first: what is left out is at the end
        learned, covered = [], []
        for model_file, path in zip(models, paths, strict=True):
            model = read_json(model_file)
            entrant = Entrant(model["architecture"], model["mode"], (), (0,))
            frame = _out_of_fold(path, entrant, training)
            frame = frame.filter(pl.col("row") < len(kept))
            chosen, coverage = self._learn(entrant, frame, cases)
            learned.append(chosen)
            covered += [(entrant, [coverage])] if coverage else []
        if covered:
            families = [own for _, own in covered]
            resampled = resample(families, cases.profile, self.origin.replicates)
            for (entrant, own), values in zip(covered, resampled, strict=True):
                rows = figure_rows(OUT_OF_FOLD, entrant, own, values, cases.profile, self.origin)
                self.rows += rows
        return learned

    def _learn(
        self, entrant: Entrant, frame: pl.DataFrame, cases: _Cases
    ) -> tuple[_Learned, Coverage | None]:
        """From out-of-fold predictions, whose rows are places among the cases."""
        if frame.is_empty():
            self._lacks(entrant, "temperature", "there are no out-of-fold predictions")
            self._lacks(entrant, "conformal", "there are no out-of-fold predictions")
            return _Learned(), None
        p = frame.select(f"p_{phase}" for phase in PHASES).to_numpy()
        place, fold = frame["row"].to_numpy(), frame["fold"].to_numpy()
        truth, unit = cases.truth[place], cases.unit[place]
        n_episodes = len(np.unique(unit))
        temperature = fit_temperature(p, truth, unit)
        self._temperature_row(entrant, temperature, len(p), n_episodes)
        least = least_probability(p[np.arange(len(p)), truth], unit)
        if least is None:
            few = f"it takes {MIN_EPISODES} calibration episodes, there are {n_episodes}"
            self._lacks(entrant, "conformal", few)
        learned = _Learned(temperature, least, n_episodes)
        sets = cross_conformal(p, truth, unit, fold)
        if sets is None:
            few = f"it takes {MIN_EPISODES} calibration episodes beside each fold's own"
            self._lacks(entrant, "in_distribution", few)
            return learned, None
        told = f"|alpha={ALPHA}"
        return learned, Coverage.of(sets[None], truth, unit, cases.host, told)

    def score(
        self,
        files: Sequence[tuple[Path, Path]],
        learned: Sequence[_Learned],
        scored: pl.DataFrame,
        part: str,
    ) -> None:
        """All rows of some models on a part; `scored` are the windows of val and test."""
        chosen = (scored["part"] == part).to_numpy()
        cases = _Cases.of(scored.filter(chosen))
        entrants, of_entrants = [], []
        for own, both in zip(learned, files, strict=True):
            model = read_probabilities(*both, scored)
            runs = tuple(range(len(model.seeds)))
            entrant = Entrant(model.architecture, model.mode, model.seeds, runs, model.checkpoint)
            if runs:
                entrants.append(entrant)
                of_entrants.append(_families(model.scores[:, chosen], own, cases, part))
            else:
                self._lacks(entrant, "calibration", "its training failed")
        if entrants:
            families = [each.all for each in of_entrants]
            resampled = resample(families, cases.profile, self.origin.replicates)
            for entrant, each, values in zip(entrants, of_entrants, resampled, strict=True):
                self._write(entrant, each, values, cases, part)

    def _write(
        self, entrant: Entrant, families: _Families, values: np.ndarray, cases: _Cases, part: str
    ) -> None:
        """The rows of one model."""
        diagrams = len(families.diagrams) * 2 * BINS
        drawn, tabled = values[:diagrams], values[diagrams:]
        drawn = drawn.reshape(-1, 2 * BINS, *values.shape[1:])
        rows = figure_rows(part, entrant, families.tabled, tabled, cases.profile, self.origin)
        self.rows += rows
        logger.info("%s: %d figures on %s", entrant.name, len(rows), part)
        name = {"split": self.origin.split, "model": entrant.model, "mode": entrant.mode}
        for state, (diagram, own) in enumerate(zip(families.diagrams, drawn, strict=True)):
            of_state = name | {"part": part, "scaled": bool(state)}
            of_bins = diagram.rows(own, entrant, cases.profile)
            self.diagrams += [of_state | row for row in of_bins]
        for row in rows:
            if row["seed"] is None and (row["scope"], row["metric"]) == (CONFORMAL, "coverage"):
                ends = None if row["low"] is None else (row["low"], row["high"])
                hosts = sorted(set(cases.host))
                words = in_words(row["estimate"], ends, families.n_calibrated, hosts)
                self.verdicts[entrant.name] = words

    def _temperature_row(
        self, entrant: Entrant, temperature: Temperature, n_windows: int, n_episodes: int
    ) -> None:
        low, high = temperature.interval or (None, None)
        if temperature.at_bound:
            bound = f"the likelihood still rises at {temperature.value:.2f}, where the search ends"
            self._lacks(entrant, "temperature_interval", bound)
        kind = "sandwich" if temperature.interval else "none"
        n = n_windows, n_episodes
        self.rows.append(
            {
                "split": self.origin.split,
                "model": entrant.model,
                "mode": entrant.mode,
                "seed": None,
                "part": OUT_OF_FOLD,
                "scope": SCOPE,
                "key": KEY,
                "metric": "temperature",
                "estimate": temperature.value,
                "low": low,
                "high": high,
                "n_windows": n_windows,
                "n_episodes": n_episodes,
                "n_valid_replicates": 0,
                "signature": self.origin.signature("temperature", kind, entrant, n),
            }
        )

    def _lacks(self, entrant: Entrant, what: str, why: str) -> None:
        self.unmeasured.setdefault(entrant.name, {})[what] = why


@dataclass(frozen=True)
class _Families:
    """A model's diagrams, as predicted and scaled, and the families that are rows of the table.

    Its sets are from `n_calibrated` episodes.
    """

    diagrams: list[Reliability]
    tabled: list[Family]
    n_calibrated: int

    @property
    def all(self) -> list[Family]:
        """In the order of their replicates."""
        return [*self.diagrams, *self.tabled]


def _families(p: np.ndarray, learned: _Learned, cases: _Cases, part: str) -> _Families:
    """Of (R, n_windows, K) probabilities."""
    n = len(cases.host)
    before, after, told = Sums.of(p, cases.truth, cases.unit, n), None, ""
    if learned.temperature:
        again = scaled(p, learned.temperature.value)
        after = Sums.of(again, cases.truth, cases.unit, n)
        told = f"|temperature={learned.temperature.value:.6g}"
    tabled: list[Family] = [Calibration(before, after, told)]
    if learned.least is not None and part == "test":
        sets = prediction_sets(p, learned.least)
        told = f"|alpha={ALPHA}|least={learned.least:.6g}"
        tabled.append(Coverage.of(sets, cases.truth, cases.unit, cases.host, told))
    diagrams = [Reliability(sums) for sums in (before, after) if sums]
    return _Families(diagrams, tabled, learned.n_episodes)


def _out_of_fold(path: Path, entrant: Entrant, windows: pl.DataFrame) -> pl.DataFrame:
    """A model's out-of-fold predictions, which may lack windows but have no others.

    Args:
        path: of the predictions.
        entrant: the model.
        windows: all train and val windows, with a number each (`row`).

    Returns:
        The predictions with the `row` of each, in the order of the rows.

    Raises:
        FormatError: they are another model's, hold a window twice or one that the split's training
            hosts do not have, or disagree with the features about the truth.
    """
    again = "delete it and run the workflow again"
    if Path(path).stem != entrant.name:
        raise FormatError(f"{path}: expected the out-of-fold predictions of {entrant.name}")
    key = ["episode_id", "window"]
    known = windows.select(*key, "row", truth="phase")
    frame = read_out_of_fold(path).join(known, on=key, how="left").sort("row")
    foreign = frame.filter(pl.col("row").is_null())
    if len(foreign):
        raise FormatError(
            f"{path} holds {len(foreign)} windows that are neither train nor val of this split "
            f"(first: {foreign.row(0)[:2]}); {again}"
        )
    if frame["row"].is_duplicated().any():
        raise FormatError(f"{path} holds a window twice; {again}")
    if (frame["phase"] != frame["truth"]).any():
        raise FormatError(f"{path} has another true phase in some windows than features; {again}")
    return frame
