"""Predictions of the training hosts, out of fold: each by a model that did not see the episode.

Thresholds, temperatures and conformal sets need scores of windows that a model was not trained on,
of more episodes than val has, and none of test (docs/statistics.md).
"""

from __future__ import annotations

import hashlib
import logging
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import polars as pl

from cis490.channels import PHASES
from cis490.errors import FormatError
from cis490.files import content_sha256, read_json, read_parquet, to_compact_json, write_parquet
from cis490.logs import MILESTONE, logger
from cis490.models.base import Classifier, FitSettings
from cis490.models.registry import get_class
from cis490.models.views import CodedSeries
from cis490.schema import Schema
from cis490.training.checkpoint import read_description
from cis490.training.data import Cases, columns_of, load_split
from cis490.training.phases import PhaseFilter
from cis490.training.predict import PREDICTIONS_SCHEMA, predictions_of
from cis490.training.progress import Progress
from cis490.training.provenance import data_sha256
from cis490.training.run import Run
from cis490.training.settings import as_told, settings_of
from cis490.training.summary import best_by_val
from cis490.training.train import fit_filter, prepare, train_seed

KIND: Final = "cis490.out_of_fold"
VERSION: Final = 1

OUT_OF_FOLD_SCHEMA: Final = pl.Schema({**PREDICTIONS_SCHEMA, "fold": pl.Int32()})

ALL: Final = "`evaluation.out_of_fold: all`"
_SAME: Final = ("architecture", "mode", "fit_sha256")  # of model.json
# What a training finds out before it begins, and the trainings of the folds take from it.
_FOUND: Final = ("learning_rate", "micro_batch")


def out_of_fold(
    architecture: str,
    mode: str,
    *,
    schema_file: Path,
    fit_file: Path,
    model_file: Path,
    features: Sequence[Path],
    tensors: Sequence[Path],
    config: Mapping[str, Any],
    code: str,
    out: Path,
    rivals: Sequence[Path] = (),
) -> None:
    """Predict every train and val window of a split with a model that did not see its episode.

    Episodes are dealt to folds (`assign_folds`), and each fold is predicted by a model of its own
    (`predict_folds`), with the first seed, and with settings, learning rate and micro batch of the
    model that was trained on all of them. The data are loaded once. A fold whose training fails is
    told, and its windows are missing; test episodes are never read.

    Args:
        architecture, mode, schema_file, fit_file, features, tensors, code: as of
            `training.train.train`.
        model_file: model.json of that training.
        config: resolved settings; `seeds`, `training`, `architectures` and `evaluation.folds`.
        out: Parquet; columns `OUT_OF_FOLD_SCHEMA`, sorted by part, episode_id, window. Its metadata
            are kind, version, architecture, mode, seed, n_folds (as asked for), settings, the
            sha256 of fit, data, schema and code, `reason` (why there is no row; else empty), and
            `folds`, JSON: what `predict_folds` tells.
        rivals: model.json of the architectures of which only the best by val is predicted, this one
            among them; the others get no row, and a reason. Nothing: this one is predicted.

    Raises:
        SchemaMismatch: a file was made under another schema than schema.json tells.
        ConfigError: no such architecture or mode, no such device here, or no such option.
        FormatError: a file is damaged, or the model was trained on other episodes.
    """
    n_folds = config["evaluation"]["folds"]
    fit_sha256 = content_sha256(fit_file)
    trained = read_description(model_file)
    if [trained[key] for key in _SAME] != [architecture, mode, fit_sha256]:
        raise FormatError(
            f"{model_file} is no {architecture} {mode} of this split's episodes: train it again"
        )
    learner = Learner.of(trained, config)
    schema = Schema.from_dict(read_json(schema_file))
    best = best_by_val([read_description(path) for path in rivals]) or architecture
    if best == architecture:
        cases = load_split(
            fit_file,
            ("train", "val"),
            schema=schema,
            mode=mode,
            tabular=learner.kind.tabular,
            features=features,
            tensors=tensors,
            jitter=True,
        )
        dealt = assign_folds(read_parquet(fit_file), n_folds)
        fold = cases.rows.join(dealt, on="episode_id", how="left", maintain_order="left")["fold"]
        name, each = f"{architecture} {mode}", folds_of(fold.to_numpy())
        table, folds = predict_folds(learner.create, cases, each, name, learner.follow)
        reason, data = "" if len(table) else _why_nothing(folds), data_sha256(cases)
    else:
        table, folds, data = pl.DataFrame(schema=OUT_OF_FOLD_SCHEMA), [], ""
        reason = f"{best} is better on val ({ALL} predicts every network)"
    metadata = {
        **{"kind": KIND, "version": str(VERSION), "architecture": architecture, "mode": mode},
        **{"seed": str(learner.seed), "n_folds": str(n_folds)},
        "settings": to_compact_json(as_told(learner.settings, learner.made)),
        "fit_sha256": fit_sha256,
        "data_sha256": data,
        "schema_sha256": schema.sha256,
        "code": code,
        "reason": reason,
        "folds": to_compact_json(folds),
    }
    write_parquet(out, table, metadata)


@dataclass(frozen=True)
class Learner:
    """A model as it was trained on all of a split, to be trained again on parts of it.

    Attributes:
        kind: its class.
        mode, seed: of it; the seed is the first.
        settings, made: with what a search chose and what its training found (`_as_trained`).
        config: resolved settings.
    """

    kind: type[Classifier]
    mode: str
    seed: int
    settings: FitSettings
    made: dict[str, Any]
    config: Mapping[str, Any]

    @classmethod
    def of(cls, trained: Mapping[str, Any], config: Mapping[str, Any]) -> Learner:
        """From its model.json."""
        seed = config["seeds"][0]
        settings, made = _as_trained(trained, config, seed)
        kind = get_class(trained["architecture"])
        return cls(kind, trained["mode"], seed, settings, made, config)

    def create(self) -> Classifier:
        """An untrained model."""
        columns = columns_of(self.mode, tabular=self.kind.tabular)
        return self.kind(
            len(PHASES), seed=self.seed, settings=self.settings, columns=columns, **self.made
        )

    def follow(self, train: Cases) -> PhaseFilter | None:
        """The filter of training cases, if any is asked for."""
        return fit_filter(self.kind, self.settings, train, self.config)


def assign_folds(episodes: pl.DataFrame, n_folds: int) -> pl.DataFrame:
    """Deal episodes to folds, evenly within each host and profile.

    There, in the order given, each block of `n_folds` episodes goes to all folds, one each, in an
    order drawn by hash: an episode's fold depends on those before it alone, so a new arrival moves
    none, and programs that take turns do not each end up in a fold of their own.

    Args:
        episodes: episode_id, host_id and profile, in order of first appearance in the index.
        n_folds: how many.

    Returns:
        episode_id; fold (int32) in 0 .. n_folds - 1, of which few episodes may leave some empty.
    """
    before: Counter[str] = Counter()
    folds = []
    for host_id, profile in episodes.select("host_id", "profile").iter_rows():
        group = f"{host_id}/{profile}"
        block, place = divmod(before[group], n_folds)
        folds.append(_shuffled(n_folds, f"{group}/{block}")[place])
        before[group] += 1
    return episodes.select("episode_id", pl.Series("fold", folds, pl.Int32))


def _shuffled(n: int, name: str) -> list[int]:
    """0 .. n - 1 in an order that a name decides."""
    return sorted(range(n), key=lambda i: hashlib.sha256(f"{name}/{i}".encode()).digest())


@dataclass(frozen=True)
class Fold:
    """Which cases are learned from, tell when to stop, and are predicted: (n_cases,) bool each."""

    number: int
    train: np.ndarray
    val: np.ndarray
    held_out: np.ndarray


def folds_of(fold: np.ndarray) -> Iterator[Fold]:
    """Each fold held out once, with the next one as val and the rest to learn from.

    Of two folds the other one is learned from, and there is no val; one fold gives none.

    Args:
        fold: (n_cases,) the fold of each case; numbers that none has are passed over.
    """
    numbers = np.unique(fold)
    for number, following in zip(numbers, np.roll(numbers, -1), strict=True):
        if number == following:
            return
        held_out, val = fold == number, (fold == following) & (len(numbers) > 2)
        yield Fold(int(number), ~held_out & ~val, val, held_out)


def predict_folds(
    create: Callable[[], Classifier],
    cases: Cases,
    folds: Iterable[Fold],
    name: str,
    follow: Callable[[Cases], PhaseFilter | None] = lambda _: None,
) -> tuple[pl.DataFrame, list[dict[str, Any]]]:
    """Predict each fold with a model that learned from the others; it is measured on them alone.

    Args:
        create: an untrained model, the same each time.
        cases: all that are learned from and predicted.
        folds: of them all, or of some; no episode is on two sides of one.
        name: of the model, for messages.
        follow: the filter of a fold's training cases, if any.

    Returns:
        Predictions (`OUT_OF_FOLD_SCHEMA`, sorted by part, episode_id, window) of all folds whose
        training did not fail. Of each fold: its number as `fold`; n_windows and n_episodes of
        train, val and held_out; what model.json tells of a seed: status, reason, epochs, chosen,
        and others, val_macro_f1 being that on the fold that told when to stop.
    """
    frames, entries = [pl.DataFrame(schema=OUT_OF_FOLD_SCHEMA)], []
    folds = list(folds)
    for place, each in enumerate(folds, start=1):
        parts = {
            "train": _cut(cases, each.train, moving=True),
            "val": _cut(cases, each.val),
            "held_out": _cut(cases, each.held_out),
        }
        place_of = f"{name}, fold {place} of {len(folds)}"
        entry, frame = _predict_fold(create(), parts, place_of, follow(parts["train"]))
        entries.append({"fold": each.number, **_size(parts), **entry})
        frames.append(frame.with_columns(fold=pl.lit(each.number, pl.Int32)))
    table = pl.concat(frames).sort("part", "episode_id", "window")
    said = "%s: predicted %d of %d windows out of fold (%d folds)"
    logger.log(MILESTONE, said, name, len(table), len(cases.y), len(folds))
    return table, entries


def _predict_fold(
    model: Classifier, parts: Mapping[str, Cases], name: str, follows: PhaseFilter | None
) -> tuple[dict[str, Any], pl.DataFrame]:
    """Train on `train` and `val`, predict `held_out`: the seed's entry, and rows if it is ok."""
    progress = Progress(name, seeds=[model.seed], epochs=model.max_epochs)
    run = Run(listen=progress.epoch)  # nothing is kept: a fold that is killed begins anew
    outcome = train_seed(model, prepare(model, parts, run), run, progress, level=logging.INFO)
    if outcome.model is None:
        return outcome.entry, pl.DataFrame(schema=PREDICTIONS_SCHEMA)
    held_out = parts["held_out"]
    return outcome.entry, predictions_of(outcome.model, held_out, model.seed, follows)


def _cut(cases: Cases, mask: np.ndarray, *, moving: bool = False) -> Cases:
    """The cases that `mask` (n_cases,) picks; `moving`: windows may move, if those of `cases` may.

    Windows stay views of the one series, in which all episodes but theirs read as not measured.
    """
    rows, y, X = cases.rows.filter(pl.Series(mask)), cases.y[mask], cases.X
    if isinstance(X, np.ndarray):
        return Cases(rows, X[mask], y)
    assert isinstance(X.series, CodedSeries)
    assert X.low is not None
    assert X.high is not None
    start, low, high = X.start[mask], X.low[mask], X.high[mask]
    others = np.ones((len(X.series.base), 1), bool)
    others[X.series.episode(start)] = False
    series = replace(X.series, base=np.where(others, np.float32(np.nan), X.series.base))
    jitter = X.jitter if moving else 0
    return Cases(rows, replace(X, series=series, start=start, low=low, high=high, jitter=jitter), y)


def _size(parts: Mapping[str, Cases]) -> dict[str, dict[str, int]]:
    return {
        "n_windows": {part: len(cases.y) for part, cases in parts.items()},
        "n_episodes": {part: cases.rows["episode_id"].n_unique() for part, cases in parts.items()},
    }


def _as_trained(
    trained: Mapping[str, Any], config: Mapping[str, Any], seed: int
) -> tuple[FitSettings, dict[str, Any]]:
    """Settings of a model, with what a search chose and what its training found for a seed.

    Args:
        trained: its model.json.
        config: resolved settings.
        seed: one of those it was trained with.

    Returns:
        The settings, and what the architecture is made with.
    """
    tuned = trained["tuning"] and trained["tuning"]["parameters"]
    settings, made = settings_of(config, trained["architecture"], tuned)
    for entry in trained["seeds"]:
        if entry["seed"] == seed:
            found = {name: entry["chosen"][name] for name in _FOUND if name in entry["chosen"]}
            settings = replace(settings, **found)
    return settings, made


def _why_nothing(folds: Sequence[Mapping[str, Any]]) -> str:
    """Why no fold was predicted."""
    if not folds:
        return "the training hosts' episodes make fewer than 2 folds"
    return f"every training failed, the first because: {folds[0]['reason']}"
