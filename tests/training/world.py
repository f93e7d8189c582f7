"""Small results of a split: two batches of train, val and test episodes whose phases show."""

from pathlib import Path

import numpy as np
import polars as pl

from cis490 import files
from cis490.channels import CHANNELS, PHASES
from cis490.config import resolve
from cis490.schema import Schema, feature_names
from cis490.training.predict import predict
from cis490.training.train import Places, train
from cis490.windows.codes import encode
from cis490.windows.features import summarise
from cis490.windows.shards import TensorShard, write_tensors

SCHEMA = Schema(hz=2, max_gap_s=None, length_s=10.0, stride_s=5.0)
STEPS, WINDOWS = 128, 11
PARTS = {
    "alder-00000": ["train", "val", "train", "train", "test", "train"],
    "birch-00000": ["test", "train", "val", "excluded"],
}
NETFLOW = [i for i, channel in enumerate(CHANNELS) if channel.source == "netflow"]


class World:
    """Files under `root` as the data path leaves them, and the two jobs on them."""

    def __init__(self, root: Path, *, test_shift: float = 0.0, phases: int = 5) -> None:
        self.root = root
        files.write_json(root / "schema.json", SCHEMA.to_dict())
        rows = []
        for batch, parts in PARTS.items():
            episodes = [f"{batch[:5]}-e{i}" for i in range(len(parts))]
            shard, values, mask = _shard(batch, episodes, parts, test_shift, phases)
            write_tensors(root / f"tensors/{batch}.safetensors", shard, SCHEMA)
            _write_features(root / f"features/{batch}.parquet", shard, values, mask)
            rows += [
                (episode, batch[:5], "io-walk", part, batch)
                for episode, part in zip(episodes, parts, strict=True)
            ]
        columns = ["episode_id", "host_id", "profile", "part", "batch"]
        split = pl.DataFrame(rows, columns, orient="row")
        # As a split has it, and a fit has not: a column of lists.
        known = split.with_columns(background=pl.Series([["idle"], None]).gather([0] * len(split)))
        files.write_parquet(root / "split.parquet", known)
        files.write_parquet(
            root / "fit.parquet", split.filter(pl.col("part").is_in(["train", "val"]))
        )

    @property
    def features(self) -> list[Path]:
        return sorted((self.root / "features").glob("*.parquet"))

    @property
    def tensors(self) -> list[Path]:
        return sorted((self.root / "tensors").glob("*.safetensors"))

    def train(
        self,
        architecture: str,
        mode: str = "realistic",
        *,
        seeds=(42,),
        config=None,
        places=None,
        tuning: Path | None = None,
        **training,
    ) -> Path:
        """Train and return the model's folder."""
        settings = {"epochs": 2, "batch_size": 16, "learning_rate": 0.001, **training}
        out = self.root / "models" / f"{architecture}_{mode}"
        train(
            architecture,
            mode,
            schema_file=self.root / "schema.json",
            fit_file=self.root / "fit.parquet",
            features=self.features,
            tensors=self.tensors,
            config=resolve({"seeds": list(seeds), "training": settings, **(config or {})}),
            code="code",
            out=out,
            places=places or Places(),
            tuning=tuning,
        )
        return out

    def predict(self, folder: Path) -> tuple[pl.DataFrame, dict]:
        """Predict with a model and return what was written."""
        out = self.root / f"predictions/{folder.name}.parquet"
        latency = out.with_name(f"{folder.name}_latency.json")
        predict(
            model_dir=folder,
            schema_file=self.root / "schema.json",
            split_file=self.root / "split.parquet",
            features=self.features,
            tensors=self.tensors,
            config=resolve({}),
            out=out,
            latency_out=latency,
        )
        return pl.read_parquet(out), files.read_json(latency)


def _write_features(path: Path, shard: TensorShard, values: np.ndarray, mask: np.ndarray) -> None:
    """The features of a shard's windows, from the (46, S) values that it encodes."""
    window = np.tile(np.arange(WINDOWS), len(shard.episode_id))
    start = np.repeat(shard.offset[:-1], WINDOWS) + window * SCHEMA.stride
    steps = start[:, None] + np.arange(SCHEMA.length)
    cut = [np.moveaxis(a[:, steps], 0, 1) for a in (values, mask)]
    summary = summarise(*cut, SCHEMA.hz)
    counts = np.stack([(shard.phase[steps] == p).sum(1) for p in range(len(PHASES))], 1)
    phase = len(PHASES) - 1 - counts[:, ::-1].argmax(1)
    frame = pl.DataFrame(
        {
            "episode_id": np.repeat(shard.episode_id, WINDOWS),
            "window": window.astype(np.int32),
            "phase": [PHASES[p] for p in phase],
        }
    ).with_columns(pl.Series(n, summary[:, j]) for j, n in enumerate(feature_names("oracle")))
    # Rows in another order than the readers want, as nothing promises theirs.
    files.write_parquet(path, frame[::-1], {"schema_sha256": SCHEMA.sha256})


def _shard(
    batch, episodes, parts, test_shift, phases
) -> tuple[TensorShard, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(len(batch) + len(parts))
    n_steps = STEPS * len(episodes)
    phase = np.tile(np.minimum(np.arange(STEPS) // 26, phases - 1), len(episodes)).astype(np.int8)
    values = rng.gamma(2, 10, (len(CHANNELS), n_steps)).astype(np.float32)
    values[:12] *= 1 + 4 * phase  # what the host sees tells the phase
    mask = rng.random(values.shape) < 0.95
    if batch.startswith("birch"):
        mask[NETFLOW] = False
    tested = np.repeat([part in ("test", "excluded") for part in parts], STEPS)
    values[:, tested] += test_shift
    grids = (a.reshape(len(CHANNELS), len(episodes), STEPS) for a in (values, mask))
    codes, scale, base = encode(*grids)
    shard = TensorShard(
        episode_id=episodes,
        offset=np.arange(len(episodes) + 1, dtype=np.int64) * STEPS,
        n_windows=np.full(len(episodes), WINDOWS, np.int64),
        codes=codes.reshape(n_steps, len(CHANNELS)),
        scale=scale,
        base=base,
        phase=phase,
    )
    return shard, values, mask
