"""All probes of one split, from files to file."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np
import polars as pl

from cis490.errors import Cis490Error
from cis490.evaluation.alarms import alarm_score
from cis490.evaluation.baselines import TRAINED
from cis490.evaluation.inputs import (
    SHOWN,
    Probabilities,
    read_episodes,
    read_probabilities,
    read_windows,
)
from cis490.evaluation.tables import Provenance, metrics_frame
from cis490.files import read_json, scratch, to_json, write_parquet
from cis490.logs import logger
from cis490.models.registry import get_class
from cis490.probes.background import read_changes, score_by_presence, score_changes
from cis490.probes.booster import NAME, Booster
from cis490.probes.data import MOST, NotMeasurable, Windows, draw, joined, load, restricted
from cis490.probes.exchanged import exchanged_training, exchanged_truth, leaks, mean_macro_f1
from cis490.probes.guest import Predicted, worth
from cis490.probes.hosts import tell_hosts
from cis490.probes.perturbed import Store, changed_by_test
from cis490.probes.single import each_channel, over_clock
from cis490.probes.sources import leave_one_out, permutation_importance
from cis490.probes.tables import Name
from cis490.probes.window_split import split_by_window
from cis490.schema import Schema
from cis490.training.checkpoint import load_model
from cis490.training.data import columns_of, load_split

PARTS: Final = ("train", "val", "test")
Rows = list[dict[str, Any]]


@dataclass(frozen=True)
class Inputs:
    """The files that probes read.

    Attributes:
        schema_file, split_file, split_json: schema.json, splits/<split>.parquet and .json.
        verdicts: verdict files of the batches that may give training episodes.
        features: a file for each batch of train, val and test episodes.
        tensors: of those of train and val.
        episodes, labels, execs: telemetry of the batches of all parts, in the same order.
        models, predictions: one each a model, in the same order: model.json and its predictions.
    """

    schema_file: Path
    split_file: Path
    split_json: Path
    verdicts: Sequence[Path]
    features: Sequence[Path]
    tensors: Sequence[Path]
    episodes: Sequence[Path]
    labels: Sequence[Path]
    execs: Sequence[Path]
    models: Sequence[Path]
    predictions: Sequence[Path]


def probe(
    inputs: Inputs,
    *,
    fit_settings: Mapping[str, Any],
    config: Mapping[str, Any],
    out: Path,
) -> None:
    """Write probes.parquet, in the columns of metrics.parquet (docs/statistics.md, Probes).

    Its metadata has `not_measurable` (by probe, why), `over_clock` (channels), `leak` (whether
    training on exchanged labels found something), `changed` (artefacts of training that changed
    with the test rows), `best` (the realistic detector that is probed) and the part shown.

    Args:
        inputs: what to read.
        fit_settings: of the split, as `splits.write_fit` takes them.
        config: resolved settings; seeds, modes, training, architectures and evaluation are used.
        out: the table to write.

    Raises:
        Cis490Error: the lists differ in length, or files do not fit each other.
    """
    if len(inputs.models) != len(inputs.predictions):
        raise Cis490Error("probes: models and predictions must be as many")
    split = read_json(inputs.split_json)
    origin = Provenance(split["name"], split["sha256"], config["evaluation"]["replicates"])
    with scratch(out.parent) as folder:
        probes = _Probes(inputs, config, origin, folder)
        probes.run(fit_settings)
    rows = probes.rows
    about = {
        "split_sha256": split["sha256"],
        "part": str(probes.shown),
        "best": "" if probes.best is None else f"{probes.best.architecture}_{probes.best.mode}",
        "not_measurable": to_json(probes.unmeasured),
        "over_clock": to_json(over_clock(rows)),
        "changed": to_json(probes.changed),
        "leak": to_json(leaks(rows)),
        "most_windows": to_json(MOST),
    }
    write_parquet(out, metrics_frame(rows), about)


@dataclass
class _Probes:
    """What was read, and what was found so far."""

    inputs: Inputs
    config: Mapping[str, Any]
    origin: Provenance
    folder: Path
    rows: Rows = field(default_factory=list)
    unmeasured: dict[str, str] = field(default_factory=dict)
    changed: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.schema = Schema.from_dict(read_json(self.inputs.schema_file))
        windows = read_windows(self.inputs.split_file, self.inputs.features)
        self.shown = next((part for part in SHOWN if part in set(windows["part"])), None)
        self.scored = windows.filter(pl.col("part") != "train")
        self.whole = Windows(self.scored.filter(part=self.shown or ""))
        self.drawn = {
            part: load(
                draw(windows.filter(part=part), MOST[part]),
                self.inputs.split_file,
                schema=self.schema,
                features=self.inputs.features,
                folder=self.folder,
            )
            for part in PARTS
        }
        self.trained = [
            read_probabilities(*files, self.scored)
            for files in zip(self.inputs.models, self.inputs.predictions, strict=True)
        ]
        self.best = self._best_by_val("realistic")

    def ask(self, what: str, probe: Callable[[], Rows]) -> None:
        """Run one probe, or note why it cannot be."""
        try:
            found = probe()
        except NotMeasurable as reason:
            logger.info("%s: not measurable: %s", what, reason)
            self.unmeasured[what] = str(reason)
            return
        logger.info("%s: %d figures", what, len(found))
        self.rows += found

    def run(self, fit_settings: Mapping[str, Any]) -> None:
        """Every probe, one after another."""
        train, val, test = (self.drawn[part] for part in ("train", "val", "test"))
        origin, booster = self.origin, self._booster("realistic")
        quick, everything = booster.at_one_scale(), joined(*self.drawn.values())
        self.ask("host", partial(tell_hosts, everything, quick, origin))
        self.ask("split_by_window", partial(split_by_window, joined(train, val), quick, origin))
        store = Store(self.inputs.verdicts, fit_settings, self.inputs.features, self.schema)
        self.ask("test_perturbed", partial(self._perturbed, store, len(test), booster))
        for mode in self.config["modes"]:
            own = self._booster(mode)
            self.ask(f"without, {mode}", partial(leave_one_out, train, val, mode, own, origin))
            self.ask(f"importance of {NAME}, {mode}", partial(self._importance, NAME, mode))
            self.ask(f"importance of a network, {mode}", partial(self._importance, None, mode))
        if self.shown is None:
            self.unmeasured["all others"] = "there is no window of test or val"
            return
        shown, part = self.drawn[self.shown], self.shown
        parts = train, val, shown, part
        self.ask("exchanged", self._exchanged)
        self.ask("exchanged_training", partial(exchanged_training, *parts, booster, origin))
        self.ask("channel", partial(each_channel, *parts, quick, origin))
        self.ask("background", self._background)
        self.ask("guest", self._guest)

    def _booster(self, mode: str) -> Booster:
        """With what a search chose for gbt in that mode, if there was one."""
        for path in self.inputs.models:
            model = read_json(path)
            if (model["architecture"], model["mode"]) == (NAME, mode):
                return Booster.of(self.config, (model.get("tuning") or {}).get("parameters"))
        return Booster.of(self.config)

    def _perturbed(self, store: Store, n_windows: int, booster: Booster) -> Rows:
        episodes = pl.concat([part.episodes for part in self.drawn.values()])
        rows, self.changed = changed_by_test(
            store, episodes, n_windows, booster, self.folder, self.origin
        )
        return rows

    def _importance(self, architecture: str | None, mode: str) -> Rows:
        """Of the first seed of an architecture, or of the best network by val."""
        val = self.drawn["val"]
        if not len(val):
            raise NotMeasurable("there is no val to judge by")
        names = {model.architecture for model in self.trained} - {NAME}
        best = self._best_by_val(mode, {architecture} if architecture else names)
        if best is None:
            raise NotMeasurable(f"no such detector was trained in mode {mode}")
        folder = self._folder_of(best)
        models = load_model(folder, self.schema)
        seed = next(seed for seed in self.config["seeds"] if seed in models)
        tabular = get_class(best.architecture).tabular
        small = restricted(
            self.inputs.split_file, val.frame["episode_id"], self.folder / "v.parquet"
        )
        cases = load_split(
            small,
            ["val"],
            schema=self.schema,
            mode=mode,
            tabular=tabular,
            features=self.inputs.features,
            tensors=self.inputs.tensors,
        )
        X = cases.X if isinstance(cases.X, np.ndarray) else cases.X.to_array()
        groups = columns_of(mode, tabular=tabular).groups
        members = {source: list(own) for source, own in groups.items() if own}
        name = Name("val", "permuted", best.architecture, mode, (seed,), best.checkpoint)
        predict = models[seed].predict_proba
        return permutation_importance(val, X, members, predict, name, self.origin)

    def _exchanged(self) -> Rows:
        best = self._probed()
        name = Name(str(self.shown), "exchanged", best.architecture, best.mode, best.seeds)
        name = name._replace(checkpoint=best.checkpoint)
        predicted = self._scores(best).argmax(2)
        return exchanged_truth(self.whole, name, predicted, self.origin)

    def _background(self) -> Rows:
        best, inputs = self._probed(), self.inputs
        name = Name(str(self.shown), "", best.architecture, best.mode, best.seeds, best.checkpoint)
        score = alarm_score(self._scores(best))
        changes = read_changes(inputs.episodes, inputs.labels, inputs.execs)
        changes = changes.join(self.whole.episodes, on="episode_id", how="semi")
        try:
            return score_changes(self.whole, score, changes, self.schema, name, self.origin)
        except NotMeasurable as reason:
            self.unmeasured["background_starts and background_stops"] = str(reason)
        works = read_episodes(inputs.split_file)
        return score_by_presence(self.whole, score, works, name, self.origin)

    def _guest(self) -> Rows:
        models = [
            Predicted(
                *(each.architecture, each.mode, each.seeds, each.checkpoint),
                self._scores(each).argmax(2),
            )
            for each in self.trained
        ]
        return worth(self.whole, models, str(self.shown), self.origin)

    def _probed(self) -> Probabilities:
        if self.best is None:
            raise NotMeasurable("no realistic detector has a figure on val, and val chooses")
        return self.best

    def _best_by_val(self, mode: str, among: set[str] | None = None) -> Probabilities | None:
        """The detector with the highest macro F1 on val, the mean over seeds; company is none."""
        on_val = (self.scored["part"] == "val").to_numpy()
        if not on_val.any():
            return None
        truth = self.scored["phase"].to_numpy()[on_val]
        found = [
            (-mean_macro_f1(each.scores[:, on_val].argmax(2), [truth])[0], each.architecture, each)
            for each in self.trained
            if each.mode == mode and each.seeds and each.architecture not in TRAINED
            if among is None or each.architecture in among
        ]
        return min(found, key=lambda item: item[:2])[2] if found else None

    def _scores(self, model: Probabilities) -> np.ndarray:
        """(R, n_windows, K) of the part shown."""
        return model.scores[:, (self.scored["part"] == str(self.shown)).to_numpy()]

    def _folder_of(self, model: Probabilities) -> Path:
        """The folder that holds its weights."""
        names = {"architecture": model.architecture, "mode": model.mode}
        return next(
            Path(path).parent
            for path in self.inputs.models
            if names.items() <= read_json(path).items()
        )
