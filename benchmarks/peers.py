"""tsfresh, tsfel and Arrow on the same windows and texts, by an interpreter of their own.

    .venv-bench/bin/python benchmarks/peers.py WORK ROUNDS

WORK is what `benchmarks.steps` left. Prints JSON: CPU ms an episode, least and median of rounds.
One process each. tsfresh gets the quickest of the three forms it takes, tsfel one array an episode;
both are made outside the timing.
"""

import json
import statistics
import sys
import time
import warnings
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.json
import tsfel
import tsfresh
from tsfresh.feature_extraction import MinimalFCParameters


def measure(work: Path, rounds: int) -> dict:
    with np.load(work / "windows.npz") as content:
        episodes = list(content.values())  # (n_windows, n_channels, n_steps) each
    texts = json.loads((work / "texts/columns.json").read_text())
    tables = {
        table: (_arrow_schema(columns), (work / f"texts/{table}.jsonl").read_bytes())
        for table, columns in texts["columns"].items()
    }
    wide = _wide(np.concatenate(episodes))
    cubes = [np.ascontiguousarray(windows.transpose(0, 2, 1)) for windows in episodes]
    settings = tsfel.get_features_by_domain(["statistical", "temporal"])

    def fresh() -> int:
        found = tsfresh.extract_features(
            wide,
            column_id="id",
            default_fc_parameters=MinimalFCParameters(),
            n_jobs=0,
            disable_progressbar=True,
        )
        return int(found.shape[1])

    def fel() -> int:
        for cube in cubes:
            found = tsfel.time_series_features_extractor(
                settings, cube, fs=10, n_jobs=None, verbose=0
            )
        return int(found.shape[1])

    def arrow() -> int:
        # One block a table: a batch's rows parsed by one thread, as the others do it.
        for schema, text in tables.values():
            if text:
                pa.json.read_json(
                    pa.BufferReader(text),
                    pa.json.ReadOptions(use_threads=False, block_size=1 << 24),
                    pa.json.ParseOptions(
                        explicit_schema=schema, unexpected_field_behavior="ignore"
                    ),
                )
        return 0

    n_channels = episodes[0].shape[1]
    works = {
        "tsfresh": (fresh, len(episodes)),
        "tsfel": (fel, len(episodes)),
        "arrow": (arrow, texts["n"]),
    }
    columns = {name: function() for name, (function, _) in works.items()}  # imports, warm-up
    times: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(rounds):
        for name, (function, n) in works.items():
            start = time.process_time()
            function()
            times[name].append((time.process_time() - start) * 1e3 / n)
    return {
        "n_episodes": len(episodes),
        "n_windows": sum(map(len, episodes)),
        "n_channels": n_channels,
        "versions": {name: version(name) for name in ("tsfresh", "tsfel", "pyarrow")},
        "n_statistics": {name: n / n_channels for name, n in columns.items()},
        "least": {name: min(of) for name, of in times.items()},
        "median": {name: statistics.median(of) for name, of in times.items()},
    }


def _wide(windows: np.ndarray) -> pd.DataFrame:
    """A row a step, a column a channel: tsfresh takes a quarter longer on a row a value."""
    n_windows, n_channels, n_steps = windows.shape
    values = windows.transpose(0, 2, 1).reshape(-1, n_channels)
    frame = pd.DataFrame(values, columns=[f"c{i}" for i in range(n_channels)])
    return frame.assign(id=np.repeat(np.arange(n_windows), n_steps))


def _arrow_schema(columns: dict) -> pa.Schema:
    return pa.schema(
        [(name, pa.string() if kind == "text" else pa.int64()) for name, kind in columns.items()]
    )


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    print(json.dumps(measure(Path(sys.argv[1]), int(sys.argv[2]))))
