import os
import socket
import subprocess
import sys

import pytest

from cis490 import cli
from tests.runs.events import at, benchmark, planned, started, write

EVENTS = (
    planned({"ingest": 2, "train": 2}),
    started(0, 1, "ingest", "x"),
    at(4, "job_finished", jobid=1),
    started(4, 2, "train", "host/gbt"),
)


def status(folder, capsys):
    cli.main(["status", str(folder / "results")])
    return capsys.readouterr().out


def begun(folder, pid, host=None):
    begin = at(0, "run_started", pid=pid, host=host or socket.gethostname())
    write(folder / "results/run.jsonl", begin, *EVENTS)


def test_a_run_that_goes_on(tmp_path, capsys):
    begun(tmp_path, os.getpid())
    benchmark(tmp_path / "results", "train/host/gbt", 100)
    shown = status(tmp_path, capsys)
    assert "1 of 4 jobs done" in shown
    assert "  ingest 1/2\n" in shown
    assert "running: train host/gbt" in shown


def test_a_run_that_was_killed_is_not_called_running(tmp_path, capsys):
    gone = subprocess.Popen([sys.executable, "-c", "pass"])
    gone.wait()
    begun(tmp_path, gone.pid)
    shown = status(tmp_path, capsys)
    assert shown.startswith("killed: 1 of 4 jobs done")
    assert "running" not in shown


def test_of_a_run_on_another_machine_nobody_can_tell_that_it_died(tmp_path, capsys):
    gone = subprocess.Popen([sys.executable, "-c", "pass"])
    gone.wait()
    begun(tmp_path, gone.pid, host="another")
    assert status(tmp_path, capsys).startswith("running for")


def test_a_run_that_ended(tmp_path, capsys):
    begun(tmp_path, os.getpid())
    end = at(60, "run_finished", outcome="failed")
    write(
        tmp_path / "results/run.jsonl",
        at(9, "job_failed", jobid=2, rule="train", log=["results/logs/train/host/gbt.log"]),
        end,
    )
    shown = status(tmp_path, capsys)
    assert shown.startswith("failed after 1 min 00 s: 1 of 4 jobs done, 1 failed")
    assert "failed: train host/gbt, log: results/logs/train/host/gbt.log" in shown
    assert "running" not in shown


def test_no_run_is_an_error_that_says_how_to_get_one(tmp_path):
    with pytest.raises(SystemExit, match="make run"):
        cli.main(["status", str(tmp_path)])
