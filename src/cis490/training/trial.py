"""One trial of a search: a training in a worker process, watched by the search's pruner."""

from __future__ import annotations

import logging
import multiprocessing
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import optuna
from optuna.pruners import BasePruner
from optuna.trial import FrozenTrial

from cis490.channels import PHASES
from cis490.errors import Cis490Error, ConfigError
from cis490.files import read_json
from cis490.models.base import Columns, FitSettings
from cis490.models.registry import get_class
from cis490.schema import Schema
from cis490.training.data import Cases, columns_of, load_fit
from cis490.training.finder import RateCache
from cis490.training.run import Row, Run
from cis490.training.train import reason_of


class Pruned(Exception):
    """A trial that is not worth its end."""


@dataclass(frozen=True)
class Source:
    """The windows that a model is trained and judged on; test is never read.

    Attributes:
        schema_file, fit_file, features, tensors: as of `training.train.train`.
        rates: folder for learning rates that were found; None: keep none.
        rate_hours: how long they are valid.
        code: hash of the code that decides what is learned.
    """

    architecture: str
    mode: str
    schema_file: Path
    fit_file: Path
    features: Sequence[Path]
    tensors: Sequence[Path]
    rates: Path | None
    rate_hours: float
    code: str

    def load(self) -> dict[str, Cases]:
        """The windows of train and val."""
        return load_fit(
            self.fit_file,
            schema=Schema.from_dict(read_json(self.schema_file)),
            mode=self.mode,
            tabular=get_class(self.architecture).tabular,
            features=self.features,
            tensors=self.tensors,
        )


@dataclass(frozen=True)
class Trial:
    """What to try.

    Attributes:
        settings, made: as `training.settings.settings_of` gives them.
        seed: of the training.
        largest: the most weights and biases that are tried; None: any number.
        pruner: says after each epoch whether to go on.
        rivals: the finished trials that it compares with.
    """

    settings: FitSettings
    made: Mapping[str, Any]
    seed: int
    largest: int | None
    pruner: BasePruner
    rivals: Sequence[FrozenTrial] = ()


class Outcome(NamedTuple):
    """What became of a trial.

    Attributes:
        state: complete, pruned or failed; with the `reason` of the latter two.
        curve: macro F1 on val after each epoch.
        val_macro_f1: of the kept weights, if complete.
        predicted: (n_val,) int64 labels, if complete.
    """

    state: str
    reason: str | None
    curve: list[float]
    val_macro_f1: float | None = None
    predicted: np.ndarray | None = None


class Crew:
    """Worker processes, each with the data loaded once. Use it through `crew`."""

    def __init__(self, pool: ProcessPoolExecutor) -> None:
        self._pool = pool

    def run(self, trials: Sequence[Trial]) -> list[Outcome]:
        """Outcomes in the order of `trials`.

        Raises:
            ConfigError: a setting cannot be used here.
            Cis490Error: a worker died.
        """
        try:
            return list(self._pool.map(_run, trials))
        except BrokenProcessPool:
            raise Cis490Error(
                "a trial's process was killed, most likely for want of memory: give the search "
                "fewer cores (each trial holds the training windows)"
            ) from None


@contextmanager
def crew(source: Source, data: str, workers: int) -> Iterator[Crew]:
    """Start workers, and end them at the end.

    They are spawned: a fork of a process that has run torch's or XGBoost's threads may hang.

    Args:
        data: hash of what `source` loads.
    """
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, context, _start, (source, data)) as pool:
        yield Crew(pool)


class _Loaded(NamedTuple):
    """What a worker keeps from trial to trial."""

    source: Source
    parts: dict[str, Cases]
    columns: Columns
    run: partial[Run]


_loaded: list[_Loaded] = []  # one, in a worker


def _start(source: Source, data: str) -> None:
    logging.getLogger("cis490").addHandler(logging.NullHandler())  # the search tells what matters
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    columns = columns_of(source.mode, tabular=get_class(source.architecture).tabular)
    rates = RateCache(source.rates, source.rate_hours) if source.rates else None
    run = partial(Run, data=data, code=source.code, rates=rates)
    _loaded.append(_Loaded(source, source.load(), columns, run))


def _run(trial: Trial) -> Outcome:
    watch = _Watch(trial)
    try:
        return _train(trial, watch)
    except Pruned as pruned:
        return Outcome("pruned", str(pruned), watch.curve)
    except (MemoryError, OSError, ConfigError):
        raise  # the machine's fault or the settings', not the trial's
    except Exception as error:
        return Outcome("failed", reason_of(error), watch.curve)


def _train(trial: Trial, watch: _Watch) -> Outcome:
    (loaded,) = _loaded
    train, val = loaded.parts["train"], loaded.parts["val"]
    model = get_class(loaded.source.architecture)(
        len(PHASES),
        seed=trial.seed,
        settings=trial.settings,
        columns=loaded.columns,
        **trial.made,
    )
    size = model.size_for(train.X.shape[1:]) or 0
    if trial.largest is not None and size > trial.largest:
        raise Pruned(f"{size:,} weights and biases; at most {trial.largest:,} are tried")
    run = loaded.run(listen=watch)
    model.fit_prepared(model.prepare(train.X, train.y, X_val=val.X, y_val=val.y, run=run), run)
    f1 = model.best["val_macro_f1"]
    if f1 is None:
        return Outcome("failed", "val has no window that could judge it", watch.curve)
    return Outcome("complete", None, watch.curve, f1, model.predict_proba(val.X).argmax(1))


class _Watch:
    """Shows each epoch to the pruner, in a study that holds the rivals alone."""

    def __init__(self, trial: Trial) -> None:
        study = optuna.create_study(direction="maximize", pruner=trial.pruner)
        study.add_trials(trial.rivals)
        self._trial = study.ask()
        self.curve: list[float] = []

    def __call__(self, row: Row) -> None:
        f1 = row["val_macro_f1"]
        if f1 is None:  # a collapse: its epoch was not judged
            return
        self._trial.report(f1, len(self.curve))
        self.curve.append(f1)
        if self._trial.should_prune():
            raise Pruned(f"the finished trials' median was better at epoch {len(self.curve)}")
