"""What a store of some size costs through Snakemake: from nothing, with nothing to do, and +100."""

from __future__ import annotations

import json
import re
import shutil
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from benchmarks.run import ROOT, Failed, Ran, python

HOSTS: Final = 6  # those of the sample store, which the default split names
ARRIVE: Final = 100
SPLIT: Final = "host"
MODES: Final = ("oracle", "realistic")
_IDLE_RUNS: Final = 3


def measure(n: int, work: Path, *, one_core: bool, say: Callable[[str], None]) -> dict[str, Any]:
    """Figures of a simulated store of n episodes.

    Args:
        n: how many.
        work: an empty folder; emptied again.
        one_core: whether to run everything once more on one core.
        say: told what is under way.
    """
    store, folder = work / "store", work / "run"
    folder.mkdir(parents=True)
    say(f"{n:,} episodes: simulate")
    words = ("--episodes", str(n), "--hosts", str(HOSTS))
    made = python("-m", "cis490", "simulate", store, *words, folder=work)
    (folder / "settings.yaml").write_text(f"store: {json.dumps(str(store))}\n")

    say(f"{n:,} episodes: from nothing to all features and tensors, 2 cores")
    all_data = snakemake(folder, "data")
    results = folder / "results"
    found: dict[str, Any] = {
        "episodes": n,
        "hosts": HOSTS,
        "simulate_s": made.wall_s,
        "data_s": all_data.wall_s,
        "data_cpu_s": all_data.cpu_s,
        "snakemake_peak": all_data.own_peak,
        "bytes": {kind: _bytes(results / kind) for kind in ("telemetry", "features", "tensors")},
        "batches": len(list((results / "plan/batches").iterdir())),
    }
    if one_core:
        say(f"{n:,} episodes: the same on 1 core")
        alone = work / "alone"
        alone.mkdir()
        shutil.copy(folder / "settings.yaml", alone)
        found["one_core_s"] = snakemake(alone, "data", cores=1).wall_s
        shutil.rmtree(alone)

    say(f"{n:,} episodes: splits, peaks of single jobs, loading")
    split = snakemake(
        folder,
        *("results/validation.parquet", f"results/splits/{SPLIT}.parquet"),
        *(f"results/windows/{SPLIT}/{reach}.json" for reach in ("fit", "known", "all")),
    )
    found |= _peaks(store, results, work)
    found["any_peak"] = max(all_data.any_peak, split.any_peak, *found["job_peak"].values())

    say(f"{n:,} episodes: nothing to do")
    found |= _idle(folder)

    say(f"{n:,} episodes: {ARRIVE} more arrive")
    python("-m", "cis490", "simulate", store, "--append", str(ARRIVE), folder=work)
    dry = snakemake(folder, "-n")
    more = snakemake(folder, "data")
    found |= {
        "arrive": ARRIVE,
        "dry_s": dry.wall_s,
        "dry_jobs": jobs(dry.output),
        "arrive_s": more.wall_s,
    }
    found["any_peak"] = max(found["any_peak"], more.any_peak)
    shutil.rmtree(work)
    return found


def snakemake(folder: Path, *words: str, cores: int = 2) -> Ran:
    """Run the real Snakefile in `folder`, where its settings lie."""
    return python(
        *("-m", "snakemake", *words),
        *("--snakefile", ROOT / "Snakefile", "--directory", folder),
        *("--configfile", folder / "settings.yaml", "--cores", str(cores)),
        folder=folder,
    )


def jobs(output: str) -> dict[str, int]:
    """Jobs of each rule that `snakemake -n` announces."""
    if "Nothing to be done" in output:
        return {}
    table = output[output.index("Job stats:") :].split("\n\n")[0]
    rows = re.findall(r"^(\w+) +(\d+)$", table, re.M)
    return {rule: int(number) for rule, number in rows if rule not in ("total", "all")}


def _bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _peaks(store: Path, results: Path, work: Path) -> dict[str, Any]:
    """Peaks of ingest and windows on the batch with most bytes, and of loading a split."""
    manifests = [json.loads(p.read_bytes()) for p in (results / "plan/batches").iterdir()]
    largest = max(
        manifests, key=lambda m: sum(entry["size_bytes"] or 0 for entry in m["episodes"])
    )["batch"]
    manifest, out = results / f"plan/batches/{largest}.json", work / "peak"
    telemetry = results / f"telemetry/{largest}"
    one_thread = {"POLARS_MAX_THREADS": "1"}  # as in the workflow

    def fresh(*words: str | Path, env: dict[str, str] | None = None) -> dict[str, float]:
        said = python("-m", "benchmarks.memory", *words, folder=work, env=env).output
        return dict(json.loads(said.splitlines()[0]))

    peak = {
        "ingest": fresh("ingest", store, manifest, out, env=one_thread)["peak_bytes"],
        "windows": fresh("windows", telemetry, out, env=one_thread)["peak_bytes"],
    }
    loads: dict[str, Any] = {}
    for mode in MODES:
        try:
            loads[mode] = fresh("load", results, SPLIT, mode)
        except Failed as failed:  # a split that does not fit into memory is a result, too
            loads[mode] = {"problem": str(failed)[:300]}
    return {"job_peak": peak, "loads": loads}


def _idle(folder: Path) -> dict[str, Any]:
    """Wall time of a whole `snakemake` with nothing to do, and of one with nothing to plan.

    Training is not affordable here: empty files stand in for all that is not there, and
    `--touch` makes them count as made.
    """
    summary = snakemake(folder, "--summary").output
    rows = [line.split("\t") for line in summary.splitlines() if line.count("\t") >= 5]
    for name in (row[0] for row in rows if row[0] != "output_file"):
        path = folder / name
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
    snakemake(folder, "--touch")
    if left := jobs(snakemake(folder, "-n").output):
        raise Failed(f"after --touch there is still something to do: {left}")
    empty = folder / "empty.smk"
    empty.touch()
    walls, floors = [], []
    for _ in range(_IDLE_RUNS):
        walls.append(snakemake(folder))
        floors.append(python("-m", "snakemake", "-s", empty, "--cores", "2", folder=folder))
    return {
        "floor_s": statistics.median(ran.wall_s for ran in floors),
        "idle_s": statistics.median(ran.wall_s for ran in walls),
        "idle_peak": max(ran.own_peak for ran in walls),
    }
