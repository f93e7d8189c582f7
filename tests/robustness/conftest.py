"""A fleet as the data path leaves it: telemetry of two hosts, a split, and the windows of both."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import polars as pl
import pytest

from cis490 import files
from cis490.episodes import telemetry
from cis490.models import FitSettings, create
from cis490.robustness.conditions import Condition, conditions
from cis490.robustness.rebuild import rebuild
from cis490.robustness.repredict import repredict
from cis490.robustness.table import tabulate
from cis490.schema import Schema
from cis490.training.checkpoint import save_model
from cis490.training.data import columns_of, load_split
from cis490.windows.build import build
from tests.robustness.made import episodes_of

SCHEMA = Schema(hz=10, max_gap_s=None, length_s=10.0, stride_s=5.0)
SETTINGS = {"loss": [0.5], "skew_s": [2]}


@dataclass
class Fleet:
    """Files under `root`; batches alder-00000 (trained on) and birch-00000 (no netflow)."""

    root: Path
    conditions: list[Condition]

    def paths(self, kind: str, suffix: str) -> list[Path]:
        return [self.root / "perturbed" / kind / f"{c.name}.{suffix}" for c in self.conditions]

    @property
    def episodes(self) -> Path:
        return self.root / "perturbed/episodes.parquet"

    def rebuild(self, most: int = 200, split: str = "split") -> pl.DataFrame:
        rebuild(
            split_file=self.root / f"{split}.parquet",
            schema_file=self.root / "schema.json",
            telemetry_dirs=sorted((self.root / "telemetry").iterdir()),
            conditions=self.conditions,
            most=most,
            features=self.paths("features", "parquet"),
            tensors=self.paths("tensors", "safetensors"),
            episodes=self.episodes,
        )
        return files.read_parquet(self.episodes)

    def train(self, architecture: str, mode: str, seeds: tuple[int, ...] = (1, 2)) -> None:
        """Fit and save a small model on the trained host's windows."""
        cases = load_split(
            self.root / "split.parquet",
            ["train"],
            schema=SCHEMA,
            mode=mode,
            tabular=architecture == "gbt",
            features=sorted((self.root / "features").iterdir()),
            tensors=sorted((self.root / "tensors").iterdir()),
        )
        models = {
            seed: create(
                architecture,
                5,
                seed=seed,
                settings=FitSettings(epochs=2),
                columns=columns_of(mode, tabular=architecture == "gbt"),
            ).fit(cases.X, cases.y)
            for seed in seeds
        }
        description = {
            "status": "ok" if seeds else "failed",
            "architecture": architecture,
            "mode": mode,
            "schema_sha256": SCHEMA.sha256,
            "fit_sha256": "f",
            "n_windows": {"train": len(cases.y)},
            "settings": {"threads": 1},
            "phase_filter": None,
            "best_seed": seeds[0] if seeds else None,
            "seeds": [{"seed": seed, "status": "ok"} for seed in seeds],
        }
        save_model(self.root / f"models/{architecture}_{mode}", description, models, [])

    def repredict(self, architecture: str, mode: str) -> Path:
        out = self.root / f"robustness/{architecture}_{mode}.parquet"
        repredict(
            model_dir=self.root / f"models/{architecture}_{mode}",
            schema_file=self.root / "schema.json",
            episodes=self.episodes,
            features=self.paths("features", "parquet"),
            tensors=self.paths("tensors", "safetensors"),
            config={"training": {"device": "cpu"}},
            out=out,
        )
        return out

    def tabulate(self, repredicted: list[Path], replicates: int = 200) -> pl.DataFrame:
        out = self.root / "robustness.parquet"
        tabulate(
            split_json=self.root / "split.json",
            episodes=self.episodes,
            repredicted=repredicted,
            replicates=replicates,
            out=out,
        )
        return files.read_parquet(out)


def make_fleet(root: Path) -> Fleet:
    files.write_json(root / "schema.json", SCHEMA.to_dict())
    rows = []
    for host, part, n in (("alder", "train", 3), ("birch", "test", 6)):
        options = [
            {
                "episode_id": f"{host}-{i}",
                "host_id": host,
                "load": 1 + i,
                "netflow": host == "alder",
                **({"profile": "none", "phases": [(0, "clean")]} if i % 3 == 2 else {}),
            }
            for i in range(n)
        ]
        batch = f"{host}-00000"
        telemetry.write(root / "telemetry" / batch, episodes_of(root, *options))
        build(
            root / "telemetry" / batch,
            SCHEMA,
            features=root / f"features/{batch}.parquet",
            tensors=root / f"tensors/{batch}.safetensors",
        )
        profile = ["cpu-saturate", "cpu-saturate", "none"] * (n // 3)
        rows += [(o["episode_id"], host, profile[i], part, batch) for i, o in enumerate(options)]
    columns = ["episode_id", "host_id", "profile", "part", "batch"]
    split = pl.DataFrame(rows, columns, orient="row")
    files.write_parquet(root / "split.parquet", split)
    files.write_json(root / "split.json", {"name": "host", "sha256": "c0ffee" * 10})
    return Fleet(root, conditions(SETTINGS))


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Fleet:
    fleet = make_fleet(tmp_path_factory.mktemp("fleet"))
    fleet.rebuild()
    for mode in ("realistic", "oracle"):
        fleet.train("gbt", mode)
    fleet.train("mlp", "realistic", ())
    return fleet
