"""The real workflow with the logger plugin, as `make run` has it."""

from collections import Counter

import pytest

from cis490 import cli
from cis490.runs import journal
from tests.workflow.conftest import Run

pytestmark = pytest.mark.workflow

WATCHED = ("--forcerun", "report", "--logger", "cis490")


def test_a_watched_run_says_what_it_does_and_where_time_went(run: Run, capsys):
    shown = run.ok(*WATCHED)
    assert "2 jobs: report 1" in shown
    assert "1/2 report: " in shown
    assert "Report: results/report/index.html" in shown
    assert "2 of 2 jobs done in " in shown
    assert "Building DAG" not in shown
    assert "\x1b" not in shown
    events = journal.read(run.results / "run.jsonl")
    assert Counter(event.get("rule") for event in events if event["event"] == "job_started") == {
        "report": 1,
        "all": 1,
    }
    assert "Nothing to be done" in run.ok("--logger", "cis490")

    cli.main(["times", str(run.results)])
    table = capsys.readouterr().out
    for rule in ("ingest", "windows", "train", "out_of_fold", "evaluate", "report", "page"):
        assert f"\n| {rule} " in table
    assert "| train       |    2 |" in table
    assert "Last run, " in table
    assert "Not read" not in table


def test_a_job_that_fails_tells_why_and_where_its_log_is(run: Run):
    (run.results / "eval/host/metrics.parquet").write_bytes(b"damaged")
    done = run.snakemake(*WATCHED)
    assert done.returncode == 1
    told = done.stderr[done.stderr.index("failed: report, after ") :]
    assert "  log: results/logs/report.log\n" in told
    assert "metrics.parquet cannot be read" in told
    assert "remove it and run the workflow again" in told
    assert journal.read(run.results / "run.jsonl")[-1]["outcome"] == "failed"
