"""Measure everything once and write docs/benchmarks.md: `python -m benchmarks`.

make bench                  1,000, 10,000 and 76,660 episodes: about 15 minutes, 10 GB of disk
make bench SIZES="1000"     a quick look
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import yaml

from benchmarks import page, sizes
from benchmarks.run import ROOT, Failed, python, run

_ONE_THREAD = dict.fromkeys(
    ("POLARS_MAX_THREADS", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS"), "1"
)
_FAULTS = ("degraded", "rejected", "errored", "torn")
_ONE_CORE_AT = 10_000


def main() -> None:
    """Run the rooms one after another, in processes of their own."""
    options = _parser().parse_args()
    started = time.monotonic()

    def say(text: str) -> None:
        print(f"[{time.monotonic() - started:5.0f} s] {text}", flush=True)

    if options.work:
        options.work.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="bench-", dir=options.work) as folder:
        work = Path(folder).resolve()
        try:
            figures: dict[str, Any] = {
                "machine": _machine(),
                "commit": _commit(),
                **_steps(work, options.rounds, options.step_episodes, options.peers, say),
                "training": _training(work, options.rounds, say),
                "intervals": _intervals(work, options.rounds, say),
            }
        except Failed as failed:
            sys.exit(f"error: {failed}")
        figures |= _sizes(work, sorted(set(options.sizes)), say)
    if not figures["sizes"]:
        sys.exit(f"error: {'; '.join(figures['problems'])}")
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1) + "\n")
    options.out.mkdir(parents=True, exist_ok=True)
    page.draw(figures, options.out / "benchmarks.png")
    (options.out / "benchmarks.md").write_text(page.render(figures, "benchmarks.png"))
    say(f"{options.out / 'benchmarks.md'} is written")
    for bar in page.bars(figures):
        print(bar.row())
    if figures["problems"]:
        sys.exit("error: not all was measured, see above")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    add = parser.add_argument
    add("--sizes", type=int, nargs="+", default=[1_000, 10_000, page.FLEET], metavar="N")
    add("--work", type=Path, help="where to put what is removed at the end (default: the temp dir)")
    add("--out", type=Path, default=ROOT / "docs", help="folder of the page (default: docs)")
    add("--json", type=Path, help="also keep the figures here")
    add("--peers", type=Path, help="interpreter that has tsfresh, tsfel and pyarrow")
    add("--rounds", type=int, default=5, help="of the CPU figures (default: 5)")
    # Three hosts: with four batches' worth of clones each has a full one.
    batch = yaml.safe_load((ROOT / "config.yaml").read_text())["batch"]["episodes"]
    text = "clones to time the steps on (default: enough for full batches)"
    add("--step-episodes", type=int, default=4 * batch, help=text)
    return parser


def _steps(
    work: Path, rounds: int, n: int, interpreter: Path | None, say: Callable[[str], None]
) -> dict[str, dict[str, Any]]:
    """CPU of the steps, their floor, the plain reference and the peers."""
    store, folder = work / "steps-store", work / "steps"
    folder.mkdir()
    say("CPU of the steps, their floor and the plain reference")
    faultless = [word for fault in _FAULTS for word in (f"--{fault}", "0")]
    words = ("--episodes", str(n), "--hosts", "3", *faultless)
    python("-m", "cis490", "simulate", store, *words, folder=work)
    done = python(
        *("-m", "benchmarks.steps", store, folder, str(rounds)), folder=work, env=_ONE_THREAD
    )
    steps = json.loads(done.output.splitlines()[0])
    say("tsfresh, tsfel and Arrow")
    peers: dict[str, Any]
    if interpreter is None or not interpreter.exists():
        peers = {"problem": "envs/requirements-bench.txt could not be installed"}
    else:
        try:
            script = ROOT / "benchmarks/peers.py"
            # Not made absolute by resolve(): a virtual environment is known by the link's place.
            command = [*map(str, (interpreter.absolute(), script, folder, max(1, rounds // 2)))]
            said = run(command, folder=work, env=_ONE_THREAD).output
            peers = json.loads(said.splitlines()[0])
        except Failed as failed:
            peers = {"problem": str(failed)}
    return {"steps": steps, "peers": peers}


def _training(work: Path, rounds: int, say: Callable[[str], None]) -> dict[str, Any]:
    """Windows a second of our training loop and of the usual one."""
    say("training, beside a Dataset and a DataLoader")
    done = python("-m", "benchmarks.training", str(rounds), folder=work, env=_ONE_THREAD)
    found: dict[str, Any] = json.loads(done.output.splitlines()[-1])
    return found


def _intervals(work: Path, rounds: int, say: Callable[[str], None]) -> dict[str, Any]:
    """Seconds and memory of every figure with its interval, and a replicate beside scikit-learn."""
    found: dict[str, Any] = {}
    for case, n in (("sample", rounds), ("fleet", 1)):
        say(f"intervals of every figure, {case}")
        words = ("-m", "benchmarks.intervals", case, str(n))
        done = python(*words, folder=work, env=_ONE_THREAD)  # as the workflow runs it
        found[case] = json.loads(done.output.splitlines()[0])
    return found


def _sizes(work: Path, wanted: list[int], say: Callable[[str], None]) -> dict[str, Any]:
    """Each size's figures; a size that fails costs the page that size alone."""
    alone = max((n for n in wanted if n <= _ONE_CORE_AT), default=wanted[0])
    found, problems = [], []
    for n in wanted:
        try:
            found.append(sizes.measure(n, work / str(n), one_core=n == alone, say=say))
        except Failed as failed:
            problems.append(f"{n:,} episodes: {failed}")
            say(problems[-1])
            shutil.rmtree(work / str(n))
    return {"sizes": found, "problems": problems}


def _machine() -> dict[str, Any]:
    names = [
        line.partition(":")[2].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if line.startswith("model name")
    ]
    return {
        "name": names[0] if names else platform.machine(),
        "cores": os.cpu_count(),
        "memory_gib": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / page.GIB,
        "system": f"{platform.system()} {platform.release().split('-')[0]}",
        "python": platform.python_version(),
        **{name: version(name) for name in ("polars", "numpy", "torch")},
    }


def _commit() -> str:
    done = subprocess.run(
        ["git", "describe", "--always", "--dirty"], cwd=ROOT, capture_output=True, text=True
    )
    return done.stdout.strip() or "unknown"


if __name__ == "__main__":
    main()
