"""What a job of ours costs beside its interpreter, its imports and its work.

    python -m benchmarks.jobs

Runs the rule `fit`, whose work takes milliseconds, for few and for many splits, one job at a time,
and the same imports and work without Snakemake: ours alone, and with what Snakemake imports at the
top of each script. What a job costs in the run beyond that is what Snakemake and our rules add:
planning, scheduling, starting the script, log, benchmark and notes.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Final

import yaml

from benchmarks.run import ROOT, Ran, run
from cis490.config import resolve, splits
from cis490.episodes.plan import training_settings

FEW: Final = 4
MANY: Final = 44
ROUNDS: Final = 3
BAR: Final = 0.15
_PREAMBLE: Final = """\
from snakemake.logging import logger
from snakemake.iocontainers import Snakemake
"""
_WORK: Final = """\
from cis490.logs import job
with job("results/logs/bare.log"):
    from cis490.splits import write_fit
    write_fit({verdicts!r}, {split!r}, "results/bare.parquet")
"""


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--store", type=Path, default=ROOT / "data/sample/store")
    store = parser.parse_args().store
    with tempfile.TemporaryDirectory() as work:
        folder = Path(work)
        extra = [{"name": f"s{i}"} for i in range(MANY)]
        (folder / "mine.yaml").write_text(
            yaml.safe_dump({"store": str(store.resolve()), "extra_splits": extra})
        )
        targets = [f"results/splits/fit/s{i}.parquet" for i in range(MANY)]
        _snakemake(folder, targets[:1])  # decode, once
        few, many, bare, script = [], [], [], []
        for _ in range(ROUNDS):
            few.append(_snakemake(folder, targets[:FEW]))
            many.append(_snakemake(folder, targets))
            for _ in range(5):
                bare.append(_bare(folder, ""))
                script.append(_bare(folder, _PREAMBLE))
    print("seconds                                         wall    CPU")
    for what, of in (
        ("a job in a run", lambda f: (f(many) - f(few)) / (MANY - FEW)),
        ("its interpreter, our imports and its work", lambda f: f(bare)),
        ("the same, and what Snakemake imports there", lambda f: f(script)),
        (f"what a run adds (bar: {BAR})", lambda f: (f(many) - f(few)) / (MANY - FEW) - f(script)),
    ):
        print(f"{what:<45} {of(_wall):6.3f} {of(_cpu):6.3f}")


def _wall(costs: list[Ran]) -> float:
    return statistics.median(cost.wall_s for cost in costs)


def _cpu(costs: list[Ran]) -> float:
    return statistics.median(cost.cpu_s for cost in costs)


def _snakemake(folder: Path, targets: list[str]) -> Ran:
    for target in targets:
        (folder / target).unlink(missing_ok=True)
    words = ["-m", "snakemake", *targets, "--snakefile", str(ROOT / "Snakefile")]
    settings = ["--configfile", "mine.yaml", "--cores", "1"]
    return run([sys.executable, *words, *settings], folder=folder)


def _bare(folder: Path, preamble: str) -> Ran:
    config = resolve(yaml.safe_load((folder / "mine.yaml").read_text()))
    split = training_settings(splits(config)[1])
    verdicts = [f"results/verdicts/{host}-00000.parquet" for host in split["train_hosts"]]
    (folder / "bare.py").write_text(preamble + _WORK.format(verdicts=verdicts, split=split))
    one_thread = {"POLARS_MAX_THREADS": "1"}
    return run([sys.executable, "bare.py"], folder=folder, env=one_thread)


if __name__ == "__main__":
    main()
