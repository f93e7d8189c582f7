"""The bench runs: its rooms on a few episodes, and with --long all of it."""

import json
import os
import subprocess
import sys

import pytest

from benchmarks import intervals
from benchmarks.page import Cpu
from cis490.evaluation.breakdowns import ALL, COMPARED, replicate
from tests.conftest import ROOT

FAULTLESS = [
    word for name in "degraded rejected errored torn".split() for word in (f"--{name}", "0")
]


def ok(*words, folder, **env):
    done = subprocess.run(
        [sys.executable, "-m", *map(str, words)],
        cwd=folder,
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{ROOT}"} | env,
        timeout=600,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_floor_writes_the_same_bytes_and_each_part_is_timed(tmp_path):
    store, work = tmp_path / "store", tmp_path / "work"
    ok("cis490", "simulate", store, "--episodes", 6, *FAULTLESS, folder=tmp_path)
    work.mkdir()
    # That the floor writes what the steps write is asserted within.
    said = ok("benchmarks.steps", store, work, 2, folder=tmp_path, POLARS_MAX_THREADS="1")
    steps = json.loads(said)
    assert (steps["n"], len(steps["rounds"])) == (6, 2)
    assert all(ms > 0 for of_round in steps["rounds"] for ms in of_round.values())
    assert Cpu({"steps": steps, "peers": {}}).ratio("together") > 0.5
    assert (work / "windows.npz").exists()


def test_intervals_are_timed_beside_scikit_learn_that_gives_the_same_figure(monkeypatch):
    monkeypatch.setattr(intervals, "REPLICATES", 50)
    monkeypatch.setattr(intervals, "CASES", {"small": {"test": (20, 2), "val": (9, 1)}})
    said = json.loads(json.dumps(intervals.measure("small", 1)))
    assert (said["episodes"], said["windows"], said["runs"]) == (20, 220, 39)
    assert said["pairs"] == 15 * 14 / 2
    assert said["rows"] > 1_000
    assert min(said["seconds"], said["ours_ms"], said["loop_ms"]) > 0
    scored = intervals._scored(20, 2, seed=4)
    scores = replicate(scored, 1)
    of_loop = [intervals.usual(scored)(run) for run in scored.predicted[:3]]
    at = scores.find(*ALL, COMPARED)
    assert scores.replicates[at, :3, 0] == pytest.approx(of_loop, abs=1e-12)


@pytest.mark.workflow
def test_a_small_bench_writes_its_page(tmp_path, pytestconfig):
    if not pytestconfig.getoption("long"):
        pytest.skip("a minute of Snakemake: --long")
    small = ("--sizes", 60, "--step-episodes", 12, "--rounds", 1)
    out = ok("benchmarks", *small, "--work", tmp_path, "--out", tmp_path / "docs", folder=ROOT)
    assert "peak memory of any job" in out
    text = (tmp_path / "docs/benchmarks.md").read_text()
    assert "| 60 | 6 |" in text
    assert "Not measured: envs/requirements-bench.txt could not be installed." in text
    assert list(tmp_path.iterdir()) == [tmp_path / "docs"]
