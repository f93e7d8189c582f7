"""Train one architecture in one mode, over the seeds. What fails by itself is told, not raised."""

from __future__ import annotations

import shutil
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

from cis490 import files
from cis490.channels import PHASES
from cis490.errors import Cis490Error, ConfigError
from cis490.files import read_json
from cis490.logs import MILESTONE, logger
from cis490.models.base import Classifier, FitSettings, InputError, Prepared
from cis490.models.registry import get_class
from cis490.schema import Schema
from cis490.training.checkpoint import save_model
from cis490.training.data import Cases, columns_of, load_fit
from cis490.training.finder import RateCache
from cis490.training.ladder import Ladder, report
from cis490.training.phases import PhaseFilter
from cis490.training.predict import predictions_of
from cis490.training.progress import Progress
from cis490.training.provenance import Timer, data_sha256, provenance
from cis490.training.run import Row, Run
from cis490.training.schedule import macro_f1
from cis490.training.settings import as_told, settings_of
from cis490.training.summary import aggregate
from cis490.training.tuned import read_tuning


@dataclass(frozen=True)
class Places:
    """Where a training keeps what outlives it, beside its model.

    Attributes:
        states: folder for the states of trainings that are killed; None: keep none.
        rates: folder for learning rates that were found; None: keep none.
        tensorboard, profile: folders for event files and for a trace, if asked for.
    """

    states: Path | None = None
    rates: Path | None = None
    tensorboard: Path | None = None
    profile: Path | None = None

    def run(self, data: str, code: str, hours: float, listen: Callable[[Row], None]) -> Run:
        """What surrounds a training that keeps things here.

        Args:
            data, code, listen: as of `Run`.
            hours: how long a learning rate is remembered.
        """
        for folder in (self.tensorboard, self.profile):
            if folder is not None:  # an output, also of a model that has nothing to put there
                folder.mkdir(parents=True, exist_ok=True)
        rates = RateCache(self.rates, hours) if self.rates else None
        return Run(data, code, self.states, rates, listen, self.profile)

    @classmethod
    def under(cls, results: Path, model: str, config: Mapping[str, Any]) -> Places:
        """The workflow's places for a model, `<split>/<architecture>_<mode>`."""
        asked = config["training"]
        return cls(
            states=results / "cache/training" / model,
            rates=rates_under(results),
            tensorboard=results / "tensorboard" / model if asked["tensorboard"] else None,
            profile=results / "profile" / model if asked["profile"] else None,
        )


def rates_under(results: Path) -> Path:
    """The workflow's place for learning rates that were found."""
    return results / "cache/learning_rate"


def train(
    architecture: str,
    mode: str,
    *,
    schema_file: Path,
    fit_file: Path,
    features: Sequence[Path],
    tensors: Sequence[Path],
    config: Mapping[str, Any],
    code: str,
    out: Path,
    places: Places = Places(),
    tuning: Path | None = None,
) -> None:
    """Train on a split's training windows and choose on its val windows.

    Writes model.json, weights.safetensors, history.parquet, collapse_report.json and
    training_metadata.json under `out` (`training.checkpoint`). The data are loaded once, and made
    ready once. A seed whose training fails is recorded as failed with its reason, and if all do so
    is the model; only faults of the files, the settings and the machine raise.

    Args:
        architecture: a name in `models.ARCHITECTURES`.
        mode: a name in `channels.MODES`.
        schema_file: schema.json.
        fit_file: splits/fit/<split>.parquet.
        features, tensors: a file for each batch of the train and val episodes.
        config: resolved settings; `seeds`, `training` and `architectures` are used.
        code: hash of the code that decides what is learned (`cis490.code`).
        out: folder of the model.
        places: for what else is kept.
        tuning: what a search chose (`training.search`); None: take the settings as they are.

    Raises:
        SchemaMismatch: a file was made under another schema than schema.json tells.
        ConfigError: no such architecture or mode, no such device here, or no such option.
        FormatError: a file is damaged, or the search was of another model or split.
    """
    kind, seeds = get_class(architecture), list(config["seeds"])
    fit_sha256 = files.content_sha256(fit_file)
    search = None
    if tuning is not None:
        search = read_tuning(tuning, architecture=architecture, mode=mode, fit_sha256=fit_sha256)
    settings, made = settings_of(config, architecture, search and search["chosen"]["parameters"])
    schema = Schema.from_dict(read_json(schema_file))
    columns = columns_of(mode, tabular=kind.tabular)

    def create(seed: int) -> Classifier:
        return kind(len(PHASES), seed=seed, settings=settings, columns=columns, **made)

    first, timer = create(seeds[0]), Timer()  # its options are checked before anything is read
    with timer.phase("load"):
        parts = load_fit(
            fit_file,
            schema=schema,
            mode=mode,
            tabular=kind.tabular,
            features=features,
            tensors=tensors,
        )
    with timer.phase("hash"):
        data = {part: data_sha256(cases) for part, cases in parts.items()}
    progress = Progress(
        f"{architecture} {mode}",
        seeds=seeds,
        epochs=first.max_epochs,
        tensorboard=places.tensorboard,
    )
    hours = config["training"]["rate_cache_hours"]
    run = places.run(f"{data['train']}/{data['val']}", code, hours, progress.epoch)
    with timer.phase("prepare"):
        prepared = prepare(first, parts, run)
    outcomes = []
    for seed in seeds:
        with timer.phase(f"seed {seed}"):
            outcomes.append(train_seed(create(seed), prepared, run, progress))
        run = replace(run, profile=None)  # of the first seed alone
    follows = fit_filter(kind, settings, parts["train"], config)
    description = {
        "architecture": architecture,
        "mode": mode,
        "phases": PHASES,
        "schema_sha256": schema.sha256,
        "fit_sha256": fit_sha256,
        "data_sha256": data,
        "settings": as_told(settings),
        "phase_filter": follows and follows.state(),
        "val_macro_f1_filtered": _on_val(outcomes, parts["val"], follows),
        "tuning": search and {"n_trials": search["n_trials"], **search["chosen"]},
        "n_windows": {part: len(cases.y) for part, cases in parts.items()},
        "n_episodes": {part: cases.rows["episode_id"].n_unique() for part, cases in parts.items()},
        **aggregate([outcome.entry for outcome in outcomes]),
    }
    told = provenance(
        data=data,
        fit_sha256=fit_sha256,
        schema_sha256=schema.sha256,
        code=code,
        settings=as_told(settings, made),
        seeds=seeds,
        device=outcomes[0].entry["chosen"]["device"],
        timer=timer,
    )
    _write(out, description, outcomes, told)
    if places.states:
        shutil.rmtree(places.states, ignore_errors=True)


def _on_val(outcomes: Sequence[Outcome], val: Cases, follows: PhaseFilter | None) -> float | None:
    """Macro F1 on val as it is reported, after the filter, mean over seeds that did not fail.

    None if all failed, or there is no val.
    """
    models = [outcome.model for outcome in outcomes if outcome.model is not None]
    if not models or not len(val.y):
        return None
    columns = [f"p_{phase}" for phase in PHASES]
    said = [predictions_of(model, val, model.seed, follows).select(columns) for model in models]
    return statistics.fmean(
        macro_f1(val.y, frame.to_numpy().argmax(1), len(PHASES)) for frame in said
    )


def fit_filter(
    kind: type[Classifier], settings: FitSettings, train: Cases, config: Mapping[str, Any]
) -> PhaseFilter | None:
    """What follows what in training windows, for a model of this kind, if it is asked for."""
    if kind.weighing is None or not config["training"]["phase_filter"]:
        return None
    weighing = kind.weighing or settings.imbalance
    return PhaseFilter.fit(train.rows, train.y, len(PHASES), weighing=weighing)


class Outcome(NamedTuple):
    """What became of a seed: its entry in model.json, its rows of the history, its model."""

    entry: dict[str, Any]
    rows: list[dict[str, Any]]
    events: list[dict[str, Any]]
    model: Classifier | None

    @property
    def climbed(self) -> tuple[Ladder, str | None]:
        """The seed's ladder, and why it failed if it did."""
        ladder = Ladder(self.entry["seed"])
        ladder.restore({"events": self.events})
        return ladder, self.entry["reason"]


def prepare(model: Classifier, parts: Mapping[str, Cases], run: Run) -> Prepared | Cis490Error:
    """The data, train and val, made ready for every seed, or why they cannot be."""
    train, val = parts["train"], parts["val"]
    if len(only := set(train.y.tolist())) == 1:
        return InputError(
            f"every training window is {PHASES[only.pop()]}: there is nothing to tell apart"
        )
    try:
        return model.prepare(train.X, train.y, X_val=val.X, y_val=val.y, run=run)
    except InputError as error:
        return error


def train_seed(
    model: Classifier,
    prepared: Prepared | Cis490Error,
    run: Run,
    progress: Progress,
    *,
    level: int = MILESTONE,
) -> Outcome:
    """Fit one seed on prepared data.

    Args:
        model: untrained.
        prepared: what `prepare` gave.
        run: what surrounds the training.
        progress: of the model.
        level: at which a success is logged; a failure is a milestone always.

    Raises:
        MemoryError, OSError, ConfigError: the machine or the settings are at fault.
    """
    name, seed = progress.name, model.seed
    try:
        if isinstance(prepared, Cis490Error):
            raise prepared
        with progress.watching(seed, prepared.n_cases):
            model.fit_prepared(prepared, run)
    except (MemoryError, OSError, ConfigError):
        raise  # the machine's fault or the settings', not the training's: the job must fail
    except Exception as error:
        reason = reason_of(error)
        logger.info("%s seed %d failed", name, seed, exc_info=True)
        logger.log(MILESTONE, "%s seed %d: failed: %s", name, seed, reason)
        entry = {"seed": seed, "status": "failed", "reason": reason}
        entry |= {"collapses": len(model.events), "chosen": model.chosen}
        return Outcome(entry, _rows(model), model.events, None)
    best = model.best
    entry = {
        "seed": seed,
        "status": "ok",
        "reason": None,
        "epochs": len(model.history),
        "best_epoch": best["epoch"],
        "val_loss": best["val_loss"],
        "val_macro_f1": best["val_macro_f1"],
        "n_parameters": model.n_parameters,
        "collapses": len(model.events),
        "chosen": model.chosen,
    }
    f1 = "no val" if best["val_macro_f1"] is None else f"val macro F1 {best['val_macro_f1']:.2f}"
    done = "%s seed %d: %s after %d epochs (n=%d windows)"
    logger.log(level, done, name, seed, f1, len(model.history), prepared.n_cases)
    return Outcome(entry, _rows(model), model.events, model)


def _write(
    out: Path,
    description: Mapping[str, Any],
    outcomes: Sequence[Outcome],
    metadata: Mapping[str, Any],
) -> None:
    """All files of a model."""
    models = {o.entry["seed"]: o.model for o in outcomes if o.model is not None}
    save_model(out, description, models, [row for outcome in outcomes for row in outcome.rows])
    climbed = {outcome.entry["seed"]: outcome.climbed for outcome in outcomes}
    files.write_json(out / "collapse_report.json", report(climbed))
    files.write_json(out / "training_metadata.json", metadata)


def reason_of(error: Exception) -> str:
    """Why a training failed, in one line."""
    reason = " ".join(str(error).split()) or "no message"
    return reason if isinstance(error, Cis490Error) else f"{type(error).__name__}: {reason}"


def _rows(model: Classifier) -> list[dict[str, Any]]:
    return [{"seed": model.seed, **row} for row in model.history]
