"""The files of one split, and the questions that a report asks of them. It computes no metric."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final, NamedTuple

import polars as pl

from cis490 import files
from cis490.channels import MODES
from cis490.evaluation.baselines import CLOCK, MODE, TRAINED
from cis490.evaluation.inputs import SHOWN
from cis490.evaluation.tables import COVERAGE, SPREAD
from cis490.files import read_json
from cis490.report.text import FEW_EPISODES
from cis490.seeds import UNSTABLE

# What stages beside the evaluation leave: tables in the columns of metrics.parquet, and others.
TABLES: Final = ("detection", "calibration", "transfer", "probes", "robustness")
STAGES: Final = (*TABLES, "alarms", "reliability", "robustness_picture")


class Detector(NamedTuple):
    """A model or a baseline by name."""

    model: str
    mode: str

    def __str__(self) -> str:
        return self.model if self.mode == MODE else f"{self.model} {self.mode}"


Figure = dict[str, Any]


@dataclass(frozen=True)
class Results:
    """One split's numbers.

    Attributes:
        split: splits/<split>.json.
        metrics: metrics.parquet, and below it the rows of `TABLES`, whose scopes are their own.
        pairwise: pairwise.parquet.
        evals: the eval.json of each of its models.
        training: models/<split>/summary.json.
        files: of the `STAGES` that ran.
        told: of metrics.parquet and each of `TABLES` that was made, what its metadata says.
    """

    split: dict[str, Any]
    metrics: pl.DataFrame
    pairwise: pl.DataFrame
    evals: list[dict[str, Any]]
    training: dict[str, Any]
    files: dict[str, Path]
    told: dict[str, dict[str, Any]]

    @property
    def name(self) -> str:
        """The split's name."""
        return str(self.split["name"])

    @cached_property
    def part(self) -> str | None:
        """The part shown: test, or val if there is no test part; None if nothing was scored."""
        parts = set(self.metrics["part"].unique())
        return next((part for part in SHOWN if part in parts), None)

    @cached_property
    def modes(self) -> list[str]:
        """Modes that were asked for, realistic first."""
        asked = {summary["mode"] for summary in self.evals}
        return [mode for mode in MODES if mode in asked]

    @cached_property
    def architectures(self) -> list[str]:
        """Architectures, by the first mode's macro F1 on the part shown, best first."""

        def rank(name: str) -> tuple[float, str]:
            figure = self.figure(Detector(name, self.modes[0]), "macro_f1")
            return (-figure["estimate"] if figure else 1.0, name)

        asked = {summary["architecture"] for summary in self.evals}
        return sorted(asked.difference(TRAINED), key=rank)

    @cached_property
    def asked(self) -> list[Detector]:
        """Models that were to be trained, as `architectures` orders them; no baseline."""
        known = {Detector(each["architecture"], each["mode"]) for each in self.evals}
        every = [Detector(name, mode) for name in self.architectures for mode in self.modes]
        return [detector for detector in every if detector in known]

    @cached_property
    def detectors(self) -> list[Detector]:
        """Those of `asked` that were scored."""
        return [detector for detector in self.asked if self.figure(detector, "macro_f1")]

    @cached_property
    def baselines(self) -> list[Detector]:
        """Baselines that were scored, the trained ones in each mode, best first."""
        rows = self._rows(self.part, "all", "all", "macro_f1")
        rows = rows.filter((pl.col("mode") == MODE) | pl.col("model").is_in(TRAINED))
        rows = rows.sort("estimate", "model", "mode", descending=[True, False, False])
        return [Detector(*name) for name in rows.select("model", "mode").rows()]

    @cached_property
    def replicates(self) -> int:
        """Replicates of the bootstrap, as the signatures say; 0 if nothing was scored."""
        signatures = self.metrics["signature"].head(1).str.extract(r"\|B=(\d+)\|")
        return int(signatures[0]) if len(signatures) else 0

    @cached_property
    def failed(self) -> list[tuple[Detector, str]]:
        """Models that failed, each with its reason."""
        return [
            (Detector(summary["architecture"], summary["mode"]), str(summary["reason"]))
            for summary in self._summaries()
            if summary["status"] != "ok"
        ]

    @property
    def failed_seeds(self) -> list[tuple[Detector, int, str]]:
        """Seeds that failed of models whose other seeds did not: model, seed and reason."""
        return [
            (Detector(summary["architecture"], summary["mode"]), lost["seed"], lost["reason"])
            for summary in self._summaries()
            if summary["status"] == "ok"
            for lost in summary["failed_seeds"]
        ]

    @property
    def searched(self) -> list[tuple[Detector, dict[str, Any]]]:
        """Models whose settings were searched on val, each with what came of it."""
        return [
            (Detector(summary["architecture"], summary["mode"]), summary["tuning"])
            for summary in self._summaries()
            if summary["tuning"]
        ]

    def _summaries(self) -> list[dict[str, Any]]:
        return sorted(self.evals, key=lambda summary: (summary["architecture"], summary["mode"]))

    def summary(self, detector: Detector) -> dict[str, Any]:
        """The eval.json of a model."""
        return next(
            summary
            for summary in self.evals
            if (summary["architecture"], summary["mode"]) == detector
        )

    def best(self, mode: str) -> Detector | None:
        """The best of a mode by val, never by test; a tie goes to the first name.

        None if none succeeded or there is no val part.
        """
        rows = self._rows("val", "all", "all", "macro_f1").filter(mode=mode)
        rows = rows.filter(~pl.col("model").is_in(TRAINED))
        rows = rows.sort("estimate", "model", descending=[True, False])
        return Detector(rows["model"][0], mode) if len(rows) else None

    @cached_property
    def leader(self) -> Detector | None:
        """The detector that the answer is about: the best by val of the first mode, if any."""
        return self.best(self.modes[0]) if self.modes else None

    @property
    def everyone(self) -> list[Detector]:
        """Detectors and baselines that were scored."""
        return [*self.detectors, *self.baselines]

    @property
    def shown(self) -> list[Detector]:
        """The columns of breakdowns: the best of each mode by val, and their company.

        Of a mode without a best, for there is no val, all detectors.
        """
        shown: list[Detector] = []
        for mode in self.modes:
            best = self.best(mode)
            shown += [best] if best else [each for each in self.detectors if each.mode == mode]
        return [*shown, *self.baselines]

    def figure(
        self,
        detector: Detector | None,
        metric: str,
        scope: str = "all",
        key: str = "all",
        part: str | None = None,
    ) -> Figure | None:
        """A row of metrics.parquet over all seeds, on the part shown unless `part` says another."""
        if detector is None:
            return None
        return self._figures.get((*detector, part or self.part or "", scope, key, metric))

    @cached_property
    def _figures(self) -> dict[tuple[str, ...], Figure]:
        """All rows over all seeds, for a report asks for thousands."""
        named = ("model", "mode", "part", "scope", "key", "metric")
        rows = self.metrics.filter(pl.col("seed").is_null()).iter_rows(named=True)
        return {tuple(row[name] for name in named): row for row in rows}

    def seeds(self, detector: Detector) -> list[Figure]:
        """Macro F1 of each seed alone, on the part shown."""
        rows = self.metrics.filter(
            pl.col("seed").is_not_null(),
            model=detector.model,
            mode=detector.mode,
            part=self.part or "",
            scope="all",
            metric="macro_f1",
        )
        return rows.to_dicts()

    def spread(self, detector: Detector) -> Figure | None:
        """The standard deviation of macro F1 over seeds, on the part shown; None of one seed."""
        return self.figure(detector, SPREAD)

    def trained(self, detector: Detector) -> dict[str, Any]:
        """What summary.json says of a model."""
        return next(
            model
            for model in self.training["models"]
            if (model["architecture"], model["mode"]) == detector
        )

    @property
    def unstable(self) -> list[tuple[Detector, Figure]]:
        """Detectors whose seeds differ much on the part shown, and by how much."""
        found = [(detector, self.spread(detector)) for detector in self.detectors]
        return [(d, figure) for d, figure in found if figure and figure["estimate"] > UNSTABLE]

    def keys(self, scope: str, metric: str) -> list[str]:
        """The keys of a scope that were scored on the part shown, sorted."""
        return sorted(set(self._rows(self.part, scope, None, metric)["key"]))

    def n_of_profile(self, profile: str) -> int:
        """Episodes of a profile on the part shown."""
        rows = self.metrics.filter(scope="profile", key=profile, part=self.part or "")
        return int(rows["n_episodes"][0]) if len(rows) else 0

    def pair(self, a: Detector, b: Detector) -> Figure | None:
        """The comparison of a with b, its difference turned to be a - b."""
        for first, second, sign in ((a, b, 1), (b, a, -1)):
            rows = self.pairwise.filter(
                model_a=first.model, mode_a=first.mode, model_b=second.model, mode_b=second.mode
            ).to_dicts()
            if rows:
                row = rows[0]
                low, high = (row["low"], row["high"])[::sign]
                ends = (None, None) if low is None else (sign * low, sign * high)
                return row | {"diff": sign * row["diff"], "low": ends[0], "high": ends[1]}
        return None

    def against_clock(self, detector: Detector) -> Figure | None:
        """The comparison with window index alone."""
        return self.pair(detector, Detector(CLOCK, MODE))

    def clears_clock(self, detector: Detector) -> bool | None:
        """Whether the paired difference to window index alone has its whole interval above 0.

        None if nothing can be said: too few episodes, or fewer than 2 phases to tell apart.
        """
        pair = self.against_clock(detector)
        if pair is None or pair["low"] is None or self.n_episodes < FEW_EPISODES:
            return None
        return bool(pair["low"] > 0) if len(self.keys("phase", "f1")) > 1 else None

    @cached_property
    def company(self) -> list[Detector]:
        """Detectors and trained baselines that were scored: all that has probabilities."""
        return [*self.detectors, *(each for each in self.baselines if each.mode != MODE)]

    def threshold(self, detector: Detector) -> dict[str, Any]:
        """How a detector's threshold was chosen (`evaluation.alarms.Choice`); empty: not at all."""
        thresholds = self.told.get("detection", {}).get("thresholds", {})
        found: dict[str, Any] = thresholds.get("_".join(detector), {})
        return found

    def limits(self, detector: Detector) -> list[str]:
        """The further limits of false alarms an hour for which it has a threshold."""
        limits = self.threshold(detector).get("limits", {})
        return [limit for limit, choice in limits.items() if choice["rule"]]

    def unmeasured(self, detector: Detector) -> dict[str, str]:
        """What of a detector's calibration could not be measured, and why."""
        reasons = self.told.get("calibration", {}).get("not_measurable", {})
        found: dict[str, str] = reasons.get("_".join(detector), {})
        return found

    @cached_property
    def reliability(self) -> pl.DataFrame | None:
        """reliability.parquet; None if that stage did not run."""
        path = self.files.get("reliability")
        return None if path is None else files.read_parquet(path)

    @property
    def n_simulated(self) -> int:
        """Usable episodes of the store that are clones (`episodes.simulate`)."""
        return int(self.split.get("n_simulated", 0))

    @cached_property
    def n_episodes(self) -> int:
        """Episodes of the part shown."""
        rows = self._rows(self.part, "all", "all", "macro_f1")
        return int(rows["n_episodes"][0]) if len(rows) else 0

    @property
    def trained_phases(self) -> list[str]:
        """Phases that the training windows have."""
        return next((list(summary["phases"]["train"]) for summary in self.evals), [])

    @cached_property
    def windows_by_phase(self) -> dict[str, dict[str, int]]:
        """Windows of each part that has any, by phase."""
        counts: dict[str, dict[str, int]] = next(
            (summary["n_windows_by_phase"] for summary in self.evals), {}
        )
        return {part: counts[part] for part in ("train", "val", "test") if counts.get(part)}

    @property
    def all_seeds(self) -> list[int]:
        """Seeds that any detector was trained with."""
        return sorted({seed for summary in self.evals for seed in summary["n"]["seeds"]})

    def coverage(self, part: str) -> Figure | None:
        """The measured coverage of the headline's interval on a part (`evaluation.coverage`)."""
        rows = self._rows(part, "all", "all", COVERAGE)
        return rows.to_dicts()[0] if len(rows) else None

    def _rows(self, part: str | None, scope: str, key: str | None, metric: str) -> pl.DataFrame:
        rows = self.metrics.filter(
            pl.col("seed").is_null(), part=part or "", scope=scope, metric=metric
        )
        return rows if key is None else rows.filter(key=key)


def read_results(
    splits: Sequence[Path],
    metrics: Sequence[Path],
    pairwise: Sequence[Path],
    trainings: Sequence[Path],
    evals: Sequence[Path],
    stages: Mapping[str, Sequence[Path]] = {},
) -> list[Results]:
    """Read the files of all splits, one of each a split and one eval.json a model, in any order.

    Args:
        splits, metrics, pairwise, trainings: splits/<split>.json, metrics.parquet,
            pairwise.parquet and summary.json.
        evals: the eval.json of every model of every split.
        stages: what else there may be, each name (`STAGES`) with a file a split; one that is left
            out, or without files, did not run.
    """
    summaries = [read_json(path) for path in evals]
    found = []
    for i, (split_file, scores, pairs, training) in enumerate(
        zip(splits, metrics, pairwise, trainings, strict=True)
    ):
        split = read_json(split_file)
        own = {name: Path(paths[i]) for name, paths in stages.items() if paths}
        tables = [own[name] for name in TABLES if name in own]
        found.append(
            Results(
                split,
                pl.concat([files.read_parquet(path) for path in (scores, *tables)]),
                files.read_parquet(pairs),
                [summary for summary in summaries if summary["split"] == split["name"]],
                read_json(training),
                own,
                {"metrics": _told(scores)}
                | {name: _told(own[name]) for name in TABLES if name in own},
            )
        )
    return found


def _told(table: Path) -> dict[str, Any]:
    """What a table's metadata says; JSON within it is read."""
    metadata = files.read_parquet_metadata(table)
    return {
        key: json.loads(value) if re.match(r"[{\[]|(true|false|null)\s*$", value) else value
        for key, value in metadata.items()
        if not key.startswith("ARROW:")
    }
