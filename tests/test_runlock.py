import os
import subprocess
import sys
import time

from cis490 import runlock
from tests.conftest import ROOT


def test_what_a_dead_run_left_is_removed_by_the_next(tmp_path):
    (tmp_path / "locks").mkdir()
    (tmp_path / "locks/0.output.lock").write_text("results/x")
    assert runlock.claim(tmp_path) is not None
    assert not list((tmp_path / "locks").iterdir())


def test_the_locks_of_a_live_run_stay(tmp_path):
    code = "import sys, time; from pathlib import Path; from cis490.runlock import claim;"
    code += "lock = claim(Path(sys.argv[1])); print('held', flush=True); time.sleep(60)"
    live = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)],
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT / "src")},
    )
    try:
        assert live.stdout.readline() == "held\n"
        (tmp_path / "locks").mkdir()
        (tmp_path / "locks/0.output.lock").write_text("results/x")
        start = time.monotonic()
        assert runlock.claim(tmp_path) is None
        assert time.monotonic() - start < 5
        assert list((tmp_path / "locks").iterdir())
    finally:
        live.kill()
        live.wait()
    assert runlock.claim(tmp_path) is not None


def test_a_lock_that_is_never_given_back_is_not_waited_for_for_ever(tmp_path, monkeypatch):
    monkeypatch.setattr(runlock, "_PATIENCE_S", 0.3)
    held = runlock.claim(tmp_path)
    assert held is not None
    assert runlock.claim(tmp_path) is None


def test_a_live_run_is_seen_by_who_does_not_want_its_lock(tmp_path):
    assert not runlock.held(tmp_path)
    run = runlock.claim(tmp_path)
    assert runlock.held(tmp_path)
    run.close()
    assert not runlock.held(tmp_path)
    assert runlock.claim(tmp_path) is not None, "to look leaves nothing taken"


def test_a_lock_of_ones_own_says_who_has_it(tmp_path):
    mine, nobody = runlock.hold(tmp_path / "deep/lock")
    assert nobody is None
    assert runlock.hold(tmp_path / "deep/lock") == (None, str(os.getpid()))
    mine.close()
    again, nobody = runlock.hold(tmp_path / "deep/lock")
    assert again is not None
    assert nobody is None
    assert (tmp_path / "deep/lock").read_text() == str(os.getpid())
