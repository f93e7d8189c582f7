"""The peak of one job, in a fresh process: what the kernel says, for sampling misses short jobs.

    python -m benchmarks.memory ingest STORE MANIFEST OUT
    python -m benchmarks.memory windows TELEMETRY OUT
    python -m benchmarks.memory load RESULTS SPLIT MODE

Prints JSON.
"""

from __future__ import annotations

import json
import re
import sys
import time
from collections.abc import Callable
from pathlib import Path

# The first load pays for memory that a virtual machine's host may have to find first.
LOADS = 3


def peak_bytes() -> int:
    """The most memory this process ever held (VmHWM)."""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found, "no VmHWM: this needs Linux"
    return int(found[1]) * 1024


def ingest(store: str, manifest: str, out: str) -> dict[str, float]:
    """Decode one batch."""
    from cis490.episodes.ingest import ingest
    from cis490.episodes.tarball import Limits

    content = json.loads(Path(manifest).read_bytes())
    folder = Path(out)
    verdicts = folder / "verdicts.parquet"
    ingest(content, store=store, limits=Limits(), verdicts=verdicts, folder=folder / "telemetry")
    return {}


def windows(telemetry: str, out: str) -> dict[str, float]:
    """Features and tensors of one batch, under the default settings."""
    from cis490.config import resolve
    from cis490.schema import Schema
    from cis490.windows.build import build

    folder = Path(out)
    schema = Schema.from_config(resolve({}))
    build(
        telemetry,
        schema,
        features=folder / "features.parquet",
        tensors=folder / "tensors.safetensors",
    )
    return {}


def load(results: str, split: str, mode: str) -> dict[str, float]:
    """All training and val windows of a split, its files in the page cache beforehand."""
    import polars as pl

    from cis490.schema import Schema
    from cis490.training.data import load_split

    root = Path(results)
    fit = root / f"splits/fit/{split}.parquet"
    batches = sorted(set(pl.read_parquet(fit, columns=["batch"])["batch"]))
    features = [root / f"features/{batch}.parquet" for batch in batches]
    tensors = [root / f"tensors/{batch}.safetensors" for batch in batches]
    buffer = bytearray(1 << 22)
    for path in (*features, *tensors):
        with path.open("rb", buffering=0) as file:
            while file.readinto(buffer):
                pass
    seconds = []
    for _ in range(LOADS):
        start = time.perf_counter()
        cases = load_split(
            fit,
            ["train", "val"],
            schema=Schema.from_dict(json.loads((root / "schema.json").read_bytes())),
            mode=mode,
            tabular=False,
            features=features,
            tensors=tensors,
        )
        seconds.append(time.perf_counter() - start)
        n_windows = len(cases.y)
        del cases  # before the next ones are made
    return {
        "seconds": min(seconds),
        "first_seconds": seconds[0],
        "shard_bytes": sum(path.stat().st_size for path in tensors),
        "n_windows": n_windows,
    }


if __name__ == "__main__":
    jobs: dict[str, Callable[..., dict[str, float]]] = {
        "ingest": ingest,
        "windows": windows,
        "load": load,
    }
    print(json.dumps({**jobs[sys.argv[1]](*sys.argv[2:]), "peak_bytes": peak_bytes()}))
