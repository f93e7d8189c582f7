"""Reading a split takes its own memory and a file's, and nothing of it is made twice or wider."""

import json
import os
import subprocess
import sys

import numpy as np
import polars as pl
import pytest

from cis490 import files
from cis490.channels import CHANNELS
from cis490.schema import feature_names
from cis490.windows.shards import TensorShard, write_tensors
from tests.conftest import ROOT
from tests.training.world import SCHEMA

BATCHES, EPISODES, STEPS, WINDOWS = 12, 40, 1500, 100
CODE = """
import json, sys
from pathlib import Path
import numpy as np, torch
from cis490.models.preprocess import Standardiser
from cis490.schema import Schema
from cis490.training.batches import Batches
from cis490.training.data import load_split

def peak():
    # Not getrusage: its maximum begins with what the forking parent had.
    status = dict(line.split(":", 1) for line in open("/proc/self/status"))
    return int(status["VmHWM"].split()[0]) * 1024

def load(part):
    files = {kind: sorted(root.glob(f"{kind}/*")) for kind in ("features", "tensors")}
    split = root / "split.parquet"
    return load_split(split, [part], schema=schema, mode="oracle", tabular=tabular, **files)

def standardise(cases):
    X = cases.X
    series = Standardiser.fit(X.series, np.zeros(46, bool)).transform(X.series)
    return sum(x.sum() for x, _ in Batches(X, series, cases.y, torch.device("cpu")).in_order())

root, tabular, schema = Path(sys.argv[1]), sys.argv[2] == "features", Schema(2, None, 10.0, 5.0)
small = load("val")  # what a file takes, and libraries once
if not tabular:
    standardise(small)
before = peak()
cases = load("train")
loaded = peak() - before
if not tabular:
    standardise(cases)
print(json.dumps({"loaded": loaded, "standardised": peak() - before}))
"""


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    """Twelve batches of train and one of val; train's grids are 67 MB, its features 53 MB."""
    root = tmp_path_factory.mktemp("large")
    rng = np.random.default_rng(0)
    codes = rng.integers(-32768, 32768, (EPISODES * STEPS, len(CHANNELS)), np.int16)
    values = rng.random((EPISODES * WINDOWS, 276), np.float32)
    rows = []
    for batch in range(BATCHES + 1):
        name, n = f"alder-{batch:05}", EPISODES
        ids = [f"{name}-{i}" for i in range(n)]
        shard = TensorShard(
            episode_id=ids,
            offset=np.arange(n + 1) * STEPS,
            n_windows=np.full(n, WINDOWS),
            codes=codes[: n * STEPS],
            scale=np.full((n, 46), 1e-4, np.float32),
            base=np.zeros((n, 46), np.float32),
            phase=np.zeros(n * STEPS, np.int8),
        )
        write_tensors(root / f"tensors/{name}.safetensors", shard, SCHEMA)
        frame = pl.DataFrame(
            {
                "episode_id": np.repeat(ids, WINDOWS),
                "window": np.tile(np.arange(WINDOWS, dtype=np.int32), n),
                "phase": ["clean"] * n * WINDOWS,
            }
        ).hstack(pl.DataFrame(values[: n * WINDOWS], feature_names("oracle")))
        files.write_parquet(
            root / f"features/{name}.parquet", frame, {"schema_sha256": SCHEMA.sha256}
        )
        rows += [(i, "train" if batch < BATCHES else "val", name) for i in ids]
    split = pl.DataFrame(rows, ["episode_id", "part", "batch"], orient="row")
    files.write_parquet(root / "split.parquet", split)
    return root


@pytest.mark.parametrize(
    ("what", "held", "most"),
    [
        ("tensors", BATCHES * EPISODES * STEPS * (2 * 46 + 1), 1.4),
        # Polars' allocator keeps some files' worth of what it decoded.
        ("features", BATCHES * EPISODES * WINDOWS * 4 * 276, 1.8),
    ],
)
def test_a_split_takes_its_own_bytes_and_less_than_one_copy_more(large, what, held, most):
    done = subprocess.run(
        [sys.executable, "-c", CODE, str(large), what],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ
        | {"PYTHONPATH": str(ROOT / "src"), "POLARS_MAX_THREADS": "1"},  # as jobs have it
    )
    took = json.loads(done.stdout)
    assert held * 0.9 < took["loaded"] < held * most
    assert took["standardised"] < held * most
