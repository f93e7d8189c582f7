"""A small fleet with all that the page reads: what every stage leaves, made with its own code."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from cis490.channels import PHASES
from cis490.evaluation.calibrate import calibrate
from cis490.evaluation.detection import detect
from cis490.files import read_json, to_json, write_json, write_parquet
from cis490.report.comparison import write_comparison
from cis490.report.curves import write_curves
from cis490.report.page import write_page
from cis490.training.checkpoint import HISTORY_SCHEMA
from cis490.transfer.predict import TRANSFER_SCHEMA
from cis490.transfer.table import tabulate
from tests.evaluation.world import World

WINDOW = {"length_s": 10.0, "stride_s": 5.0}
START_NS = 10**18
STAGES = ("transfer", "detection", "alarms", "calibration", "reliability")


class Fleet(World):
    """Detectors whose logit of the true phase is higher by 5 times their skill."""

    def predictions(self, name: str, seed: int, skill: Any) -> pl.DataFrame:
        scored = self.windows.filter(pl.col("part") != "train")
        return self._told(scored, [seed, *name.encode()], seed, skill)

    def _told(self, chosen: pl.DataFrame, stream: list[int], seed: int, skill: Any) -> pl.DataFrame:
        rows = chosen.sort("part", "episode_id", "window")
        truth = rows["phase"].replace_strict(PHASES, range(len(PHASES)), return_dtype=pl.Int64)
        val, test = skill if isinstance(skill, tuple) else (skill, skill)
        of_part = np.where(rows["part"].to_numpy() == "test", test, val)
        z = np.random.default_rng(stream).normal(size=(len(rows), len(PHASES)))
        z[np.arange(len(rows)), truth.to_numpy()] += 5 * of_part
        p = np.exp(z - z.max(1, keepdims=True))
        p = p / p.sum(1, keepdims=True)
        columns = [pl.Series(f"p_{phase}", p[:, k], pl.Float32) for k, phase in enumerate(PHASES)]
        named = pl.lit(seed, pl.Int64).alias("seed")
        return rows.select("episode_id", "window", "part", named, "phase").with_columns(columns)

    def make(self) -> Fleet:
        """Write all files and run all stages, as a workflow would."""
        self.write().evaluate(100)
        self._write_training()
        self._write_out_of_fold()
        self._write_telemetry()
        write_json(self.path("schema.json"), {"window": WINDOW})
        write_parquet(self.path("validation.parquet"), self.verdicts())
        both = {
            name: self.arguments()[name]
            for name in ("split_file", "split_json", "features", "models", "predictions")
        }
        both["out_of_fold"] = [self.path("oof", self.name, f"{n}.parquet") for n in self.names]
        detect(
            **both,
            episodes=[self.path("telemetry", "episodes.parquet")],
            labels=[self.path("telemetry", "labels.parquet")],
            detection=self.table("detection"),
            alarms=self.table("alarms"),
            window=WINDOW,
            replicates=100,
            false_alarms_per_hour=1,
            hysteresis=0.5,
        )
        calibrate(
            **both,
            calibration=self.table("calibration"),
            reliability=self.table("reliability"),
            replicates=100,
        )
        self._write_transfer()
        return self

    def _write_transfer(self) -> None:
        """In-host as skilled as on val, cross-host as on test."""
        known = self.windows.unique("episode_id").select("episode_id", "host_id", "profile")
        paths = []
        for (architecture, mode), skill in self.skill.items():
            if skill is None:
                continue
            both = skill if isinstance(skill, tuple) else (skill, 0.8 * skill)
            entry = {"fold": 0, "status": "ok", "reason": None, "n_episodes": {"train": 20}}
            for i, (side, of) in enumerate(zip(("in_host", "cross_host"), both, strict=True)):
                frame = (
                    self._told(self.windows, [i, *architecture.encode(), *mode.encode()], 42, of)
                    .with_columns(
                        side=pl.lit(side, TRANSFER_SCHEMA["side"]), fold=pl.lit(0, pl.Int32)
                    )
                    .join(known, on="episode_id")
                )
                told = {
                    **{"architecture": architecture, "mode": mode, "side": side, "seed": "42"},
                    **{"episodes_sha256": "s", "n_drawn": "30", "n_usable": "30"},
                    "folds": to_json([entry]),
                }
                name = f"{architecture}_{mode}.parquet"
                paths.append(self.path("transfer", self.name, side, name))
                write_parquet(paths[-1], frame.select(list(TRANSFER_SCHEMA)), told)
        split = self.path("splits", f"{self.name}.json")
        tabulate(split_json=split, predictions=paths, replicates=100, out=self.table("transfer"))

    def table(self, stage: str) -> Path:
        return self.path("eval", self.name, f"{stage}.parquet")

    def verdicts(self) -> pl.DataFrame:
        """All accepted, but for birch, which lacks netflow."""
        episodes = self.windows.unique("episode_id", maintain_order=True)
        lacking = pl.col("host_id") == "birch"
        reasons = pl.when(lacking).then(pl.lit(["no_netflow"])).otherwise(pl.lit([]))
        return episodes.select(
            "episode_id",
            "host_id",
            "profile",
            status=pl.when(lacking).then(pl.lit("degraded")).otherwise(pl.lit("accepted")),
            reasons=reasons.cast(pl.List(pl.String)),
            started_wall_ns=pl.int_range(pl.len()).over("host_id") * 90 * 10**9,
            duration_s=pl.lit(60.0),
        )

    def _write_training(self) -> None:
        """A summary, a history of two epochs a seed that did not fail, metadata, one's curves."""
        self.write_summary()
        folders = [self.path("models", self.name, name) for name in self.names]
        for folder in folders:
            model = read_json(folder / "model.json")
            for seed in model["seeds"]:
                seed["best_epoch"] = 2
            good = [seed["seed"] for seed in model["seeds"] if seed["status"] == "ok"]
            rows = [
                {"seed": seed, "attempt": 1, "epoch": epoch, "val_macro_f1": 0.5}
                | {"train_loss": 1 / epoch, "val_loss": 1 / epoch}
                for seed in good
                for epoch in (1, 2)
            ]
            write_parquet(folder / "history.parquet", pl.DataFrame(rows, schema=HISTORY_SCHEMA))
            write_json(folder / "model.json", model)
            memory = {"process_bytes": 300 * 2**20, "gpu_bytes": None}
            write_json(folder / "training_metadata.json", {"peak_memory": memory})
        first = folders[0]
        write_curves([first / "model.json"], [first / "history.parquet"], self.curves)

    @property
    def curves(self) -> Path:
        return self.path("report", f"curves_{self.name}.svg")

    def _write_out_of_fold(self) -> None:
        known = self.windows.filter(pl.col("part").is_in(["train", "val"]))
        for (architecture, mode), skill in self.skill.items():
            name = f"{architecture}_{mode}"
            told = self._told(known, [99, *name.encode()], 42, skill or 0.5)
            folds = told.with_columns(fold=(pl.col("episode_id").rle_id() % 3).cast(pl.Int32))
            frame = folds if skill is not None else folds.clear()
            write_parquet(self.path("oof", self.name, f"{name}.parquet"), frame)

    def _write_telemetry(self) -> None:
        """Phases begin three seconds after the first window that has them."""
        names = self.windows["episode_id"].unique(maintain_order=True).to_list()
        begun = pl.DataFrame({"episode_id": names, "started_wall_ns": [START_NS] * len(names)})
        write_parquet(self.path("telemetry", "episodes.parquet"), begun)
        firsts = self.windows.group_by("episode_id", "phase", maintain_order=True).agg(
            pl.col("window").min()
        )
        seconds = pl.when(pl.col("window") == 0).then(0).otherwise(5 * pl.col("window") + 3)
        labels = firsts.select(
            episode=pl.col("episode_id").replace_strict(names, range(len(names))).cast(pl.UInt32),
            t_wall_ns=START_NS + seconds.cast(pl.Int64) * 10**9,
            phase="phase",
        )
        write_parquet(self.path("telemetry", "labels.parquet"), labels.sort("episode", "t_wall_ns"))


def render(*fleets: Fleet, stages: Sequence[str] = STAGES) -> Path:
    """Write page and text twin into the first fleet's folder and return the page's path."""
    folder = fleets[0].folder
    files = [fleet.arguments() for fleet in fleets]
    common: dict[str, Any] = {
        "validation": folder / "validation.parquet",
        "splits": [each["split_json"] for each in files],
        "metrics": [each["metrics"] for each in files],
        "pairwise": [each["pairwise"] for each in files],
        "trainings": [fleet.path("models", fleet.name, "summary.json") for fleet in fleets],
        "evals": [name for each in files for name in each["evals"]],
        "curves": [fleet.curves for fleet in fleets],
        "stages": {stage: [fleet.table(stage) for fleet in fleets] for stage in stages},
    }
    out = folder / "report"
    write_comparison(**common, out=out / "comparison_v2.md")
    write_page(
        **common,
        schema=folder / "schema.json",
        metadata=[
            fleet.path("models", fleet.name, name, "training_metadata.json")
            for fleet in fleets
            for name in fleet.names
        ],
        predictions=[path for each in files for path in each["predictions"]],
        out=out / "index.html",
        pictures=out / "pictures",
        summary=out / "production_summary.json",
    )
    return out / "index.html"
