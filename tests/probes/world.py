"""Made-up windows whose features tell what a test wants them to, alone or as files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from cis490 import files
from cis490.channels import CHANNELS, PHASES
from cis490.config import resolve
from cis490.evaluation.tables import Provenance
from cis490.probes.booster import Booster
from cis490.probes.data import Windows, columns_at
from cis490.probes.probe import Inputs, probe
from cis490.schema import STATISTICS, Schema, feature_names
from cis490.training.predict import predict
from cis490.training.train import train

ORIGIN = Provenance("host", "c0ffee" * 10 + "beef", 200)
SCHEMA = Schema(hz=10, max_gap_s=None, length_s=10.0, stride_s=5.0)
# Few and quick trees: what a probe finds in a made-up world needs no more.
GBT = {"rounds": 12, "rounds_blind": 8, "eta": 0.3, "colsample_bytree": 1.0}
CONFIG = {
    "seeds": [42],
    "modes": ["realistic"],
    "evaluation": {"replicates": 200},
    "architectures": {"gbt": GBT},
    "training": {"epochs": 2, "learning_rate": 0.001, "scale_jitter": 0},
}
BOOSTER = Booster.of(resolve(CONFIG))
SECOND = 1_000_000_000
WALL = 1_795_319_373_000_000_000
TWO_HOSTS = {"alder": {"io-walk": 4, "none": 2}, "dogwood": {"io-walk": 4, "none": 2}}
PARTS = {
    "train": TWO_HOSTS,
    "val": {"alder": {"io-walk": 2, "none": 1}, "dogwood": {"io-walk": 1}},
    "test": {"birch": {"io-walk": 4, "none": 2}},
}

Fleet = Mapping[str, Mapping[str, int]]


def channel(key: str) -> int:
    """Position in CHANNELS of `<source>.<name>`."""
    return [each.key for each in CHANNELS].index(key)


def windows_of(part: str, hosts: Fleet, n: int = 11, seed: int = 0) -> Windows:
    """Episodes of `n` windows that go through the phases (controls stay clean), and noise."""
    rng = np.random.default_rng([seed, *part.encode()])
    rows = []
    for host, profiles in hosts.items():
        for profile, episodes in profiles.items():
            for i in range(episodes):
                steps = np.sort(rng.integers(len(PHASES), size=n))
                phases = np.zeros(n, int) if profile == "none" else steps
                name = f"{host}-{profile}-{part}-{i:03d}"
                rows += [(part, name, k, host, profile, int(p)) for k, p in enumerate(phases)]
    names = ["part", "episode_id", "window", "host_id", "profile", "phase"]
    schema = dict.fromkeys(names, pl.String) | {"window": pl.Int32, "phase": pl.Int64}
    frame = pl.DataFrame(rows, schema=schema, orient="row").sort("part", "episode_id", "window")
    X = rng.normal(size=(len(frame), len(feature_names("oracle")))).astype(np.float32)
    X[:, STATISTICS.index("missing") :: len(STATISTICS)] = 0
    return Windows(frame, X)


def tell(windows: Windows, key: str, values: np.ndarray, scale: float = 10.0) -> Windows:
    """Let the mean of a channel tell `values`, (n_windows,)."""
    assert windows.X is not None
    windows.X[:, columns_at([channel(key)])[0]] += scale * values
    return windows


def hide(windows: Windows, key: str, chosen: np.ndarray) -> Windows:
    """Take a channel away from the chosen windows."""
    assert windows.X is not None
    columns = columns_at([channel(key)])
    absent = [1.0 if name == "missing" else np.nan for name in STATISTICS]
    windows.X[np.ix_(np.flatnonzero(chosen), columns)] = absent
    return windows


class World:
    """All files that probes read, with gbt really trained. Each part's windows tell the phase.

    Args:
        root: where they go.
        parts: part -> host -> profile -> episodes.
        models: what is trained, `(architecture, mode)`.
    """

    def __init__(
        self,
        root: Path,
        parts: Mapping[str, Fleet] = PARTS,
        models: tuple[tuple[str, str], ...] = (("gbt", "realistic"),),
    ) -> None:
        self.root, self.models = root, models
        self.windows = {part: windows_of(part, hosts) for part, hosts in parts.items()}
        for windows in self.windows.values():
            tell(windows, "proc.wchar", windows.y, scale=3)
        files.write_json(root / "schema.json", SCHEMA.to_dict())
        frames = [windows.frame for windows in self.windows.values()]
        self._write_features(pl.concat(frames))
        self._write_split(pl.concat([windows.episodes for windows in self.windows.values()]))
        self._write_telemetry(pl.concat(frames))

    def _write_features(self, frame: pl.DataFrame) -> None:
        X = np.concatenate([windows.X for windows in self.windows.values()])
        columns = [pl.Series(name, X[:, j]) for j, name in enumerate(feature_names("oracle"))]
        named = frame.select(
            *("episode_id", "host_id", "profile", "window"),
            pl.Series("phase", PHASES).gather(frame["phase"]).alias("phase"),
            pl.lit(1.0, pl.Float32).alias("phase_share"),
        )
        self.features = [self.root / "features/b-00000.parquet"]
        metadata = {"schema_sha256": SCHEMA.sha256}
        files.write_parquet(self.features[0], named.with_columns(columns), metadata)

    def _write_split(self, episodes: pl.DataFrame) -> None:
        told = episodes.with_columns(
            sample_name=pl.lit("s"),
            status=pl.lit("accepted"),
            background=pl.lit(pl.Series([["idle"]])).first(),
            batch=pl.lit("b-00000"),
            sha256=pl.col("episode_id"),
            started_wall_ns=pl.lit(WALL),
            reason=pl.lit(None, pl.String),
        )
        files.write_parquet(self.root / "split.parquet", told)
        fit = told.filter(pl.col("part").is_in(["train", "val"]))
        files.write_parquet(self.root / "fit.parquet", fit.drop("background"))
        files.write_parquet(self.root / "verdicts/b-00000.parquet", told.drop("part"))
        files.write_json(self.root / "split.json", {"name": "host", "sha256": ORIGIN.split_sha256})

    def _write_telemetry(self, frame: pl.DataFrame) -> None:
        ids = frame["episode_id"].unique(maintain_order=True)
        folder = self.root / "telemetry"
        known = pl.DataFrame({"episode_id": ids}).with_columns(
            started_wall_ns=pl.lit(WALL),
            ended_wall_ns=pl.lit(WALL + 60 * SECOND),
            meta=pl.lit("{}"),
        )
        files.write_parquet(folder / "episodes.parquet", known)
        numbered = {name: i for i, name in enumerate(ids)}
        changed = frame.filter(
            (pl.col("phase") != pl.col("phase").shift().over("episode_id")).fill_null(value=True)
        )
        labels = [
            (numbered[name], WALL + 5 * SECOND * window, PHASES[phase])
            for name, window, phase in changed.select("episode_id", "window", "phase").rows()
        ]
        schema = {"episode": pl.UInt32, "t_wall_ns": pl.Int64, "phase": pl.String}
        table = pl.DataFrame(labels, schema=schema, orient="row")
        files.write_parquet(folder / "labels.parquet", table)
        rows = [row for i in range(len(ids)) for row in job_of(i)]
        files.write_parquet(folder / "exec.parquet", exec_table(rows))

    def inputs(self) -> Inputs:
        names = [f"{architecture}_{mode}" for architecture, mode in self.models]
        return Inputs(
            schema_file=self.root / "schema.json",
            split_file=self.root / "split.parquet",
            split_json=self.root / "split.json",
            verdicts=[self.root / "verdicts/b-00000.parquet"],
            features=self.features,
            tensors=[],
            episodes=[self.root / "telemetry/episodes.parquet"],
            labels=[self.root / "telemetry/labels.parquet"],
            execs=[self.root / "telemetry/exec.parquet"],
            models=[self.root / f"models/{name}/model.json" for name in names],
            predictions=[self.root / f"predictions/{name}.parquet" for name in names],
        )

    def train(self) -> World:
        for architecture, mode in self.models:
            folder = self.root / f"models/{architecture}_{mode}"
            common: dict[str, Any] = {
                "schema_file": self.root / "schema.json",
                "features": self.features,
                "tensors": [],
                "config": resolve(CONFIG),
            }
            fit = self.root / "fit.parquet"
            train(architecture, mode, fit_file=fit, code="code", out=folder, **common)
            predict(
                model_dir=folder,
                split_file=self.root / "split.parquet",
                out=self.root / f"predictions/{folder.name}.parquet",
                latency_out=self.root / f"predictions/{folder.name}_latency.json",
                **common,
            )
        return self

    def probe(self, **config: Any) -> tuple[pl.DataFrame, dict[str, str]]:
        """Run all probes; the table and its metadata."""
        out = self.root / "probes/probes.parquet"
        hosts = sorted(set(self.windows["train"].frame["host_id"]))
        settings = {"recipe": "host", "train_hosts": hosts, "test_hosts": [], "val_fraction": 0.2}
        probe(self.inputs(), fit_settings=settings, config=resolve(CONFIG | config), out=out)
        return pl.read_parquet(out), pl.read_parquet_metadata(out)


def job_of(episode: int, starts_s: float = 24.0) -> list[tuple[Any, ...]]:
    """An episode in which one job runs from the start, and a second one starts."""
    looks = [(2.0, "snapshot", 11, 10), (2.0, "snapshot", 12, 1), (2.0, "snapshot", 13, 11)]
    looks += [(starts_s - 2, "start", 14, 11), (starts_s, "start", 15, 10)]
    return [(episode, WALL + int(t * SECOND), *what, "sh") for t, *what in looks]


def exec_table(rows: list[tuple[Any, ...]]) -> pl.DataFrame:
    """exec.parquet of (episode, t_wall_ns, event, pid, ppid, cmdline)."""
    schema = {
        "episode": pl.UInt32,
        "t_wall_ns": pl.Int64,
        "event": pl.String,
        "pid": pl.Int64,
        "ppid": pl.Int64,
        "cmdline": pl.String,
    }
    return pl.DataFrame(rows, schema=schema, orient="row")
