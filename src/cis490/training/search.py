"""A small search of an architecture's settings, on val alone and the same on any number of cores.

First each trial trains with one seed, and a median pruner ends those that lag. Then the best few
and the default train with further seeds: a trial that was lucky with the first seed is not so with
the next. A winner must be better than the default by more than the noise, or the default stays.
"""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.study import Study
from optuna.trial import TrialState

from cis490.channels import PHASES
from cis490.evaluation.metrics import K, Sums, confusion, macro_f1
from cis490.files import content_sha256, read_json, write_json
from cis490.hardware import may_use_gpu
from cis490.logs import MILESTONE, logger
from cis490.models.registry import get_class
from cis490.training.data import Cases
from cis490.training.provenance import data_sha256
from cis490.training.settings import settings_of
from cis490.training.spaces import LARGEST, ROUND, Value, space_of
from cis490.training.trial import Crew, Outcome, Source, Trial, crew
from cis490.training.tuned import KIND, VERSION

# Of Optuna's TPE sampler: the first two rounds are drawn blindly, and the trials of a round know of
# each other, so that they differ (constant_liar).
SAMPLER: Final[Mapping[str, Any]] = {
    "seed": 0,
    "n_startup_trials": 2 * ROUND,
    "constant_liar": True,
}
# Of its median pruner. A trial that starts slowly has a quarter of the epochs to catch up.
PRUNER: Final[Mapping[str, Any]] = {"n_startup_trials": ROUND, "n_min_trials": 3}
WARM_UP: Final = 0.25

CONFIRMED: Final = 3  # trials that are compared with the default
CONFIRMING_SEEDS: Final = 3
# Standard errors by which a winner must be better. It is the best of many on the same val episodes,
# so two are too few (docs/training.md).
NOISE: Final = 2.5

_STATES: Final = {
    "complete": TrialState.COMPLETE,
    "pruned": TrialState.PRUNED,
    "failed": TrialState.FAIL,
}

Parameters = Mapping[str, Value]
Plan = Callable[..., Trial]  # of parameters and a seed, and of what else a trial may be told


class Confirmed(NamedTuple):
    """A trial that was trained with further seeds.

    Attributes:
        number: of the trial.
        outcomes: one a seed.
    """

    number: int
    outcomes: list[Outcome]

    @property
    def ok(self) -> bool:
        """Whether no seed failed."""
        return all(outcome.state == "complete" for outcome in self.outcomes)

    @property
    def mean(self) -> float | None:
        """Macro F1 on val over the seeds; None if one failed: they are never averaged away."""
        measured = [f1 for outcome in self.outcomes if (f1 := outcome.val_macro_f1) is not None]
        return statistics.fmean(measured) if self.ok else None


def tune(source: Source, *, config: Mapping[str, Any], out: Path, workers: int) -> None:
    """Search an architecture's settings in one mode and write what was tried and what is best.

    The file is the same whatever the number of workers: trials are asked for in rounds of a
    constant size, told in their order, and compared with those of finished rounds alone.

    Args:
        source: the windows.
        config: resolved settings. What `architectures` says is not searched.
        out: the file to write.
        workers: processes to try in, at most; on a GPU it is one.

    Raises:
        SchemaMismatch, ConfigError, FormatError: as `training.train.train`.
        Cis490Error: a worker died.
    """
    architecture, name = source.architecture, f"{source.architecture} {source.mode}"
    parts = source.load()
    facts = _facts(source, parts)
    shape, val = parts.pop("train").X.shape[1:], parts["val"]  # train is the workers' from here on
    settings, made = settings_of(config, architecture)
    model = get_class(architecture)(len(PHASES), settings=settings, **made)
    default = asdict(settings) | model.options
    taken = config["architectures"].get(architecture, {})
    space = space_of(architecture, default, taken)
    n_trials = config["tuning"]["trials"] if space and len(val.y) else 0
    largest = LARGEST.get(made["preset"])
    if largest is not None:  # the user's own settings are tried whatever their size
        largest = max(largest, model.size_for(shape) or 0)
    first, *further = _other_seeds(config["seeds"], 1 + CONFIRMING_SEEDS)

    def plan(parameters: Parameters, seed: int, **told: Any) -> Trial:
        settings, made = settings_of(config, architecture, parameters)
        return Trial(settings, made, seed, largest, **told)

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    pruner = {**PRUNER, "n_warmup_steps": round(WARM_UP * model.max_epochs)}
    study = optuna.create_study(
        direction="maximize",
        sampler=optuna.samplers.TPESampler(**SAMPLER),
        pruner=optuna.pruners.MedianPruner(**pruner),
    )
    study.enqueue_trial({setting: default[setting] for setting in space})
    if architecture != "gbt" and may_use_gpu(settings.device):
        workers = 1  # trials side by side would take each other's memory
    with crew(source, "/".join(facts["data_sha256"].values()), min(workers, ROUND)) as staff:
        trials = _screen(study, space, n_trials, staff, plan, first, name)
        confirmed = _confirm(trials, staff, plan, further, name)
    compared = _compare(confirmed, val, further)
    chosen = _choose(trials, compared)
    logger.log(MILESTONE, "%s: %s (n=%d windows)", name, chosen["reason"], len(val.y))
    content = {
        "kind": KIND,
        "version": VERSION,
        **facts,
        "objective": "macro F1 on val of the kept weights",
        "sampler": {"name": "TPESampler", **SAMPLER, "round": ROUND},
        "pruner": {"name": "MedianPruner", **pruner},
        "optuna": optuna.__version__,
        "space": space,
        "set_by_user": taken,
        "seed": first,
        "n_trials": len(trials),
        "trials": trials,
        "confirming_seeds": further,
        "confirmed": compared,
        "chosen": chosen,
    }
    write_json(out, content)


def _facts(source: Source, parts: Mapping[str, Cases]) -> dict[str, Any]:
    """What the figures of a search rest on."""
    return {
        "architecture": source.architecture,
        "mode": source.mode,
        "fit_sha256": content_sha256(source.fit_file),
        "schema_sha256": read_json(source.schema_file)["sha256"],
        "data_sha256": {part: data_sha256(cases) for part, cases in parts.items()},
        "n_windows": {part: len(cases.y) for part, cases in parts.items()},
        "n_episodes": {part: cases.rows["episode_id"].n_unique() for part, cases in parts.items()},
    }


def _other_seeds(seeds: Sequence[int], n: int) -> list[int]:
    """The smallest seeds that the models are not trained with, whose figures so stay unchosen."""
    free = (seed for seed in itertools.count() if seed not in seeds)
    return list(itertools.islice(free, n))


def _screen(
    study: Study,
    space: Mapping[str, list[Value]],
    n_trials: int,
    staff: Crew,
    plan: Plan,
    seed: int,
    name: str,
) -> list[dict[str, Any]]:
    """Try `n_trials` settings with one seed; what was tried before is not tried again."""
    choices: dict[str, BaseDistribution] = {
        setting: CategoricalDistribution(values) for setting, values in space.items()
    }
    rows: list[dict[str, Any]] = []
    known: dict[tuple[Value, ...], tuple[int, Outcome]] = {}
    while len(rows) < n_trials:
        asked = [study.ask(choices) for _ in range(min(ROUND, n_trials - len(rows)))]
        rivals = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
        new: dict[tuple[Value, ...], optuna.Trial] = {}
        for trial in asked:
            if (key := _key(trial.params)) not in known:
                new.setdefault(key, trial)
        told = {"pruner": study.pruner, "rivals": rivals}
        outcomes = staff.run([plan(trial.params, seed, **told) for trial in new.values()])
        for (key, trial), outcome in zip(new.items(), outcomes, strict=True):
            known[key] = trial.number, outcome
        for trial in asked:
            number, outcome = known[_key(trial.params)]
            for epoch, f1 in enumerate(outcome.curve):
                trial.report(f1, epoch)
            study.tell(trial, outcome.val_macro_f1, state=_STATES[outcome.state])
            rows.append(
                {
                    "number": trial.number,
                    "parameters": trial.params,
                    "same_as": None if number == trial.number else number,
                    **_told(outcome),
                }
            )
            logger.info(
                "%s trial %d, the last is %d: %s", name, trial.number, n_trials - 1, _said(outcome)
            )
    return rows


def _key(parameters: Parameters) -> tuple[Value, ...]:
    return tuple(parameters[setting] for setting in sorted(parameters))


def _confirm(
    trials: Sequence[Mapping[str, Any]],
    staff: Crew,
    plan: Plan,
    seeds: Sequence[int],
    name: str,
) -> list[Confirmed]:
    """Train the default and the best others with further seeds."""
    fit = [row for row in trials[1:] if row["state"] == "complete" and row["same_as"] is None]
    best = sorted(fit, key=lambda row: -row["val_macro_f1"])[:CONFIRMED]
    if not best:
        return []
    candidates = [trials[0], *best]
    unpruned = {"pruner": optuna.pruners.NopPruner()}
    tasks = [plan(row["parameters"], seed, **unpruned) for row in candidates for seed in seeds]
    outcomes = staff.run(tasks)
    found = []
    for i, row in enumerate(candidates):
        own = outcomes[i * len(seeds) : (i + 1) * len(seeds)]
        found.append(Confirmed(row["number"], own))
        said = "; ".join(map(_said, own))
        logger.info("%s trial %d again: %s", name, row["number"], said)
    return found


def _compare(
    confirmed: Sequence[Confirmed], val: Cases, seeds: Sequence[int]
) -> list[dict[str, Any]]:
    """A row of the file for each confirmed trial: its seeds, and how it compares with trial 0."""
    counts = {each.number: _counts(each, val) for each in confirmed if each.ok}
    rows = []
    for each in confirmed:
        compared: tuple[float | None, float | None] = None, None
        if each.number and {0, each.number} <= counts.keys():
            compared = difference(counts[each.number], counts[0])
        told = zip(seeds, each.outcomes, strict=True)
        rows.append(
            {
                "trial": each.number,
                "seeds": [{"seed": seed, **_told(outcome)} for seed, outcome in told],
                "mean": each.mean,
                "difference": compared[0],
                "standard_error": compared[1],
            }
        )
    return rows


def _choose(
    trials: Sequence[Mapping[str, Any]], compared: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    """The trial to take: its parameters that are not the default's, its figures, and why it."""
    able = [row for row in compared if row["trial"] and row["mean"] is not None]
    best = max(able, key=lambda row: row["mean"], default=None)
    if best is None:
        why = "no other trial came to its end" if trials else "there was nothing to try"
        return _chosen(trials, None, f"the default stays: {why}")
    if compared[0]["mean"] is None:
        return _chosen(trials, best, "the default failed with another seed")
    error = best["standard_error"]
    measured = f"{best['difference']:+.3f} macro F1 on val, standard error " + (
        "unknown" if error is None else f"{error:.3f}"
    )
    if error is None or best["difference"] <= NOISE * error:
        return _chosen(trials, None, f"the default stays: the best other differs by {measured}")
    return _chosen(trials, best, f"it differs from the default by {measured}")


def _chosen(
    trials: Sequence[Mapping[str, Any]], row: Mapping[str, Any] | None, reason: str
) -> dict[str, Any]:
    number = row["trial"] if row else 0
    parameters = {}
    if number:
        default = trials[0]["parameters"]
        told = trials[number]["parameters"].items()
        parameters = {name: value for name, value in told if value != default[name]}
    return {"trial": number, "parameters": parameters, "reason": reason}


def difference(ours: np.ndarray, theirs: np.ndarray) -> tuple[float, float | None]:
    """How much better one setting is than another, and how sure that is.

    The variance is the jackknife's over episodes (Efron and Stein 1981) plus that of the mean over
    seeds: another val part and another seed would both move the figure.

    Args:
        ours, theirs: (n_seeds, n_episodes, K, K) counts, of the same seeds and episodes.

    Returns:
        The difference of mean macro F1, and its standard error; None of fewer than two episodes or
        seeds.
    """
    n_seeds, n_episodes = ours.shape[:2]
    by_seed = _f1(ours.sum(1)) - _f1(theirs.sum(1))
    if min(n_seeds, n_episodes) < 2:
        return float(by_seed.mean()), None
    without = [_f1(counts.sum(1, keepdims=True) - counts).mean(0) for counts in (ours, theirs)]
    of_episodes = (n_episodes - 1) * np.var(without[0] - without[1])
    return float(by_seed.mean()), math.sqrt(of_episodes + by_seed.var(ddof=1) / n_seeds)


def _f1(counts: np.ndarray) -> np.ndarray:
    return macro_f1(Sums.of(counts), range(K))


def _counts(confirmed: Confirmed, val: Cases) -> np.ndarray:
    """(n_seeds, n_episodes, K, K) windows of val by truth and prediction."""
    episode = val.rows["episode_id"].rank("dense").to_numpy().astype(np.int64) - 1
    n = int(episode.max()) + 1
    tables = []
    for outcome in confirmed.outcomes:
        assert outcome.predicted is not None  # asked only of those that are complete
        tables.append(confusion(val.y, outcome.predicted, episode, n))
    return np.stack(tables)


def _told(outcome: Outcome) -> dict[str, Any]:
    return {
        "state": outcome.state,
        "reason": outcome.reason,
        "epochs": len(outcome.curve),
        "val_macro_f1": outcome.val_macro_f1,
    }


def _said(outcome: Outcome) -> str:
    if outcome.val_macro_f1 is None:
        return f"{outcome.state}: {outcome.reason}"
    return f"val macro F1 {outcome.val_macro_f1:.3f}"
