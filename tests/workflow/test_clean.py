"""`cis490 clean` on what real runs left."""

import subprocess
import sys

import pytest

from tests.conftest import ROOT

pytestmark = pytest.mark.workflow


CLEAN = [sys.executable, "-c", "from cis490.cli import main; main()", "clean"]


def clean(run, *arguments):
    done = subprocess.run(
        [*CLEAN, "--configfile", "mine.yaml", *arguments],
        cwd=run.folder,
        capture_output=True,
        text=True,
        env={"PYTHONPATH": str(ROOT / "src")},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_what_a_run_left_stays_and_a_run_after_cleaning_has_nothing_to_do(run):
    before = run.tables()
    assert "holds nothing that could go" in clean(run, "--yes")
    assert run.tables() == before
    run.settings(models=["gbt"], batch={"episodes": 100})
    run.ok("results/eval/host/detection.parquet")
    n_before = len(run.tables())
    assert "nothing was removed" in clean(run)
    assert len(run.tables()) == n_before
    assert "freed" in clean(run, "--yes")
    gone = set(before) - set(run.tables())
    assert {
        "models/host/mlp_realistic/weights.safetensors",
        "oof/host/mlp_realistic.parquet",
    } < gone
    assert "features/alder-00001.parquet" in gone
    assert all("mlp_realistic" in path or "-0000" in path for path in gone)
    assert run.jobs("results/eval/host/detection.parquet") == {}
