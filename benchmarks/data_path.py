"""CPU an episode of ingest and windows, beside their floor and a plain reference, in one run.

    python benchmarks/data_path.py [STORE]

The floor reads, hashes and unzips; the reference decodes with json.loads, line by line. One thread.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("POLARS_MAX_THREADS", "1")
ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "src"))

import polars as pl  # noqa: E402
import zstandard  # noqa: E402

from cis490.config import resolve  # noqa: E402
from cis490.episodes.ingest import ingest  # noqa: E402
from cis490.episodes.plan import read_store  # noqa: E402
from cis490.episodes.tarball import Limits  # noqa: E402
from cis490.schema import Schema  # noqa: E402
from cis490.windows.build import build  # noqa: E402

REPEATS = 5


def cpu_ms(work: Callable[[], object]) -> float:
    """The least CPU time of several runs, in ms."""
    times = []
    for _ in range(REPEATS):
        start = time.process_time()
        work()
        times.append(time.process_time() - start)
    return min(times) * 1e3


def unzip(path: Path) -> bytes:
    packed = path.read_bytes()
    hashlib.sha256(packed).digest()
    return zstandard.ZstdDecompressor().decompressobj().decompress(packed)


def loads(path: Path) -> list[object]:
    with tarfile.open(fileobj=io.BytesIO(unzip(path))) as tar:
        members = [tar.extractfile(info) for info in tar if info.name.endswith(".jsonl")]
        return [json.loads(line) for member in members if member for line in member]


def main() -> None:
    store = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "data/sample/store"
    config = resolve({"store": str(store)})
    manifests, _ = read_store(config)
    schema = Schema.from_config(config)
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder)

        def decode() -> None:
            for m in manifests:
                ingest(
                    m,
                    store=store,
                    limits=Limits(),
                    verdicts=out / f"{m['batch']}.parquet",
                    folder=out / m["batch"],
                )

        def window() -> None:
            for m in manifests:
                name = m["batch"]
                features, tensors = out / f"f-{name}.parquet", out / f"t-{name}.safetensors"
                build(out / name, schema, features=features, tensors=tensors)

        steps = {"ingest": cpu_ms(decode), "windows": cpu_ms(window)}
        usable = {
            episode_id
            for m in manifests
            for episode_id in pl.read_parquet(out / m["batch"] / "episodes.parquet")["episode_id"]
        }
    paths = [
        store / entry["path"]
        for m in manifests
        for entry in m["episodes"]
        if entry["episode_id"] in usable
    ]
    n = len(paths)
    floor = cpu_ms(lambda: [unzip(path) for path in paths]) / n
    reference = cpu_ms(lambda: [loads(path) for path in paths]) / n
    ours = {name: ms / n for name, ms in steps.items()}
    total = sum(ours.values())
    print(f"{n} usable episodes, least of {REPEATS} runs, one thread of {os.cpu_count()} cores")
    for name, ms in [("floor: read, sha256, unzip", floor), *ours.items()]:
        print(f"{name:42} {ms:8.2f} ms an episode")
    print(f"{'ingest + windows':42} {total:8.2f} ms an episode")
    print(f"{'json.loads a line, nothing else':42} {reference:8.2f} ms an episode")
    print(f"{'ingest + windows over the floor':42} {total / floor:8.1f} x")
    print(f"{'ingest + windows over json.loads alone':42} {total / reference:8.2f} x")


if __name__ == "__main__":
    main()
