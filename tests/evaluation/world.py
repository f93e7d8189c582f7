"""A small made-up fleet, written as the files that an evaluation reads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from cis490.channels import PHASES
from cis490.evaluation.evaluate import evaluate
from cis490.files import write_json, write_parquet
from cis490.training.summary import aggregate

WINDOWS = 11
REASON = "loss became NaN at epoch 3"

SOME = {"cpu-saturate": 3, "io-walk": 3, "none": 2}
SMALL = {"train": {"alder": SOME, "dogwood": SOME}, "val": {"alder": SOME}, "test": {"birch": SOME}}
SKILL = {
    ("cnn", "realistic"): 0.5,
    ("cnn", "oracle"): 0.9,
    ("gbt", "realistic"): 0.8,
    ("gbt", "oracle"): None,
}


@dataclass
class World:
    """Episodes, their windows, and detectors that are right with a chosen probability.

    Attributes:
        folder: where the files go.
        parts: part -> episodes of each host and profile, {"train": {"alder": {"none": 2}}}.
        skill: (architecture, mode) -> probability of a right window, or None for a failed model;
            or (val, test) probabilities.
        seeds: of every model.
        lost: seeds whose training failed.
        tuning: what every model.json says of a search.
        phases: what an episode that is no control goes through.
    """

    folder: Path
    parts: Mapping[str, Mapping[str, Mapping[str, int]]]
    skill: Mapping[tuple[str, str], Any]
    seeds: Sequence[int] = (42,)
    lost: Sequence[int] = ()
    tuning: Mapping[str, Any] | None = None
    phases: Sequence[str] = PHASES
    train_phases: Sequence[str] | None = None
    untested: Sequence[str] = ()
    name: str = "host"
    windows: pl.DataFrame = field(init=False)

    def __post_init__(self) -> None:
        rows = []
        for part, hosts in self.parts.items():
            for host, profiles in hosts.items():
                for profile, n in profiles.items():
                    for i in range(n):
                        rows += self._episode(part, host, profile, i)
        schema = {
            "episode_id": pl.String,
            "host_id": pl.String,
            "profile": pl.String,
            "part": pl.String,
            "window": pl.Int32,
            "phase": pl.String,
            "phase_share": pl.Float32,
        }
        self.windows = pl.DataFrame(rows, schema=schema, orient="row")

    def _episode(self, part: str, host: str, profile: str, i: int) -> list[tuple[Any, ...]]:
        episode = f"{host}-{profile}-{part}-{i:03d}"
        phases = self.phases if part != "train" else self.train_phases or self.phases
        rng = np.random.default_rng([7, *episode.encode()])
        steps = np.sort(rng.integers(len(phases), size=WINDOWS))
        share = rng.uniform(0.5, 1, size=WINDOWS)
        return [
            (episode, host, profile, part, k, "clean" if profile == "none" else phases[step], s)
            for k, (step, s) in enumerate(zip(steps, share, strict=True))
        ]

    def path(self, *names: str) -> Path:
        return self.folder.joinpath(*names)

    @property
    def names(self) -> list[str]:
        return [f"{architecture}_{mode}" for architecture, mode in self.skill]

    def write(self) -> World:
        """Write all files that `evaluate` reads."""
        self.write_split()
        write_parquet(self.path("features", "b.parquet"), self.windows.drop("part"))
        for (architecture, mode), skill in self.skill.items():
            self.write_detector(architecture, mode, skill)
        return self

    def write_split(self) -> None:
        episodes = self.windows.unique("episode_id", maintain_order=True)
        write_parquet(
            self.path("splits", f"{self.name}.parquet"),
            episodes.select("episode_id", "host_id", "profile", "part", *self._known()),
        )
        counts: dict[str, dict[str, int]] = {}
        for profile, part, n in episodes.group_by("profile", "part").len().sort("profile").rows():
            counts.setdefault(profile, {})[part] = n
        hosts = {part: sorted(self.parts.get(part, {})) for part in ("train", "test")}
        write_json(
            self.path("splits", f"{self.name}.json"),
            {
                "name": self.name,
                "recipe": "host",
                "train_hosts": hosts["train"],
                "test_hosts": hosts["test"],
                "counts": counts,
                "untested_profiles": list(self.untested),
                "excluded": {},
                "sha256": "c0ffee" * 10 + "beef",
            },
        )

    @staticmethod
    def _known() -> list[pl.Expr]:
        """Samples a and b take turns; one episode in four has no known background."""
        i = pl.col("episode_id").str.tail(3).cast(pl.Int64)
        control = pl.col("profile") == "none"
        sample = pl.col("profile") + pl.when(i % 2 == 0).then(pl.lit("-a")).otherwise(pl.lit("-b"))
        works = pl.Series([["idle"], ["build", "idle"], [], None], dtype=pl.List(pl.String))
        return [
            pl.when(control).then(pl.lit("none")).otherwise(sample).alias("sample_name"),
            pl.lit("accepted").alias("status"),
            pl.lit(works).gather(i % 4).alias("background"),
        ]

    def write_detector(self, architecture: str, mode: str, skill: Any) -> None:
        name = f"{architecture}_{mode}"
        trained = [seed for seed in self.seeds if skill is not None and seed not in self.lost]
        empty = self.predictions(name, 0, 0.5).clear()
        frame = pl.concat([empty, *(self.predictions(name, seed, skill) for seed in trained)])
        write_parquet(self.path("predictions", self.name, f"{name}.parquet"), frame)
        write_json(
            self.path("predictions", self.name, f"{name}_latency.json"),
            {
                "p50_ms": 1.5,
                "p95_ms": 2.5,
                "batch": 1,
                "threads": 1,
                "bytes_on_disk": 1000,
                "n_parameters": 10,
            },
        )
        write_json(
            self.path("models", self.name, name, "model.json"),
            {
                "architecture": architecture,
                "mode": mode,
                "status": "ok" if trained else "failed",
                "reason": None if trained else REASON,
                "tuning": self.tuning,
                "seeds": [
                    {"seed": seed, "status": "ok", "reason": None}
                    if seed in trained
                    else {"seed": seed, "status": "failed", "reason": REASON}
                    for seed in self.seeds
                ],
                "weights_sha256": "c4ec" * 16,
            },
        )

    def write_summary(self) -> Path:
        """Write summary.json as if val were as easy as the skill says, each seed a little off."""
        models = []
        for (architecture, mode), skill in self.skill.items():
            val = skill[0] if isinstance(skill, tuple) else skill
            seeds = []
            for i, seed in enumerate(self.seeds):
                failed = skill is None or seed in self.lost
                status, f1 = ("failed", None) if failed else ("ok", val - i / 100)
                told = {"chosen": {"learning_rate": 0.003}, "collapses": i}
                reason = REASON if failed else None
                seeds.append(
                    {"seed": seed, "status": status, "reason": reason, "val_macro_f1": f1} | told
                )
            models.append({"architecture": architecture, "mode": mode, **aggregate(seeds)})
        path = self.path("models", self.name, "summary.json")
        write_json(path, {"models": models})
        return path

    def predictions(self, name: str, seed: int, skill: Any) -> pl.DataFrame:
        scored = self.windows.filter(pl.col("part") != "train")
        scored = scored.sort("part", "episode_id", "window")
        rng = np.random.default_rng([seed, *name.encode()])
        val, test = skill if isinstance(skill, tuple) else (skill, skill)
        truth = scored["phase"].replace_strict(PHASES, range(len(PHASES)), return_dtype=pl.Int64)
        p = np.where(scored["part"].to_numpy() == "val", val, test)
        wrong = (truth.to_numpy() + rng.integers(1, len(PHASES), size=len(scored))) % len(PHASES)
        said = np.where(rng.random(len(scored)) < p, truth.to_numpy(), wrong)
        scores = np.full((len(scored), len(PHASES)), 0.1, dtype=np.float32)
        scores[np.arange(len(scored)), said] = 0.6
        return scored.select(
            "episode_id", "window", "part", pl.lit(seed, pl.Int64).alias("seed"), "phase"
        ).with_columns(
            pl.Series(f"p_{phase}", scores[:, k], pl.Float32) for k, phase in enumerate(PHASES)
        )

    def arguments(self) -> dict[str, Any]:
        results = ("predictions", self.name)
        out = ("eval", self.name)
        return {
            "split_file": self.path("splits", f"{self.name}.parquet"),
            "split_json": self.path("splits", f"{self.name}.json"),
            "features": [self.path("features", "b.parquet")],
            "predictions": [self.path(*results, f"{name}.parquet") for name in self.names],
            "latencies": [self.path(*results, f"{name}_latency.json") for name in self.names],
            "models": [self.path("models", self.name, name, "model.json") for name in self.names],
            "metrics": self.path(*out, "metrics.parquet"),
            "pairwise": self.path(*out, "pairwise.parquet"),
            "evals": [self.path(*out, f"{name}_eval.json") for name in self.names],
        }

    def evaluate(self, replicates: int = 200) -> World:
        evaluate(**self.arguments(), replicates=replicates)
        return self

    @property
    def metrics(self) -> pl.DataFrame:
        return pl.read_parquet(self.arguments()["metrics"])

    @property
    def pairwise(self) -> pl.DataFrame:
        return pl.read_parquet(self.arguments()["pairwise"])
