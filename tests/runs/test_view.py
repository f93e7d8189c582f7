"""Whatever fails in a view, the run goes on."""

import errno
import os

import pytest

from cis490.logs import WATCHED
from cis490.runs import journal
from cis490.runs import view as module
from cis490.runs.view import View
from tests.runs.events import T0, benchmark


class FakeScreen:
    """A live view that notes what it is given, or fails."""

    def __init__(self, *_, **__):
        self.said, self.shown, self.closed = [], 0, False

    def say(self, text):
        self.said.append(text)

    def show(self, *_):
        self.shown += 1

    def close(self):
        self.closed = True


class FakeCapture:
    terminal = 2

    def __init__(self):
        self.held = ""

    def take(self):
        held, self.held = self.held, ""
        return held

    def close(self):
        return self.take()


@pytest.fixture
def live(monkeypatch):
    pytest.importorskip("rich")
    monkeypatch.setattr("cis490.runs.screen.Screen", FakeScreen)
    monkeypatch.setattr("cis490.runs.capture.Capture", FakeCapture)
    monkeypatch.delenv(WATCHED, raising=False)


def begin(folder, **options):
    view = View(folder, **{"speaks": True, **options})
    view.event({"event": "run_started"}, T0)
    view.event({"event": "planned", "jobs": {"a": 2}, "room": {"_cores": 2}}, T0)
    return view


def job(view, number, name, kind="job_finished", **more):
    log, timed = f"results/logs/a/{name}.log", f"results/benchmarks/a/{name}.tsv"
    start = {"event": "job_started", "jobid": number, "rule": "a", "log": [log], "benchmark": timed}
    view.event(start, T0 + 1)
    view.event({"event": kind, "jobid": number, "rule": "a", **more}, T0 + 4)


def test_a_run_in_plain_lines(tmp_path, capsys):
    view = begin(tmp_path)
    benchmark(tmp_path / "results", "a/x", 2.5, cpu=2, rss=100)
    job(view, 1, "x")
    log = tmp_path / "results/logs/a/y.log"
    log.parent.mkdir(parents=True)
    log.write_text("first\nsecond\n2026-11-27 17:00:00,123 ERROR error: no host\n")
    job(view, 2, "y", "job_failed", log=["results/logs/a/y.log"])
    view.close()
    view.close()
    out = capsys.readouterr()
    assert out.out == ""
    lines = out.err.splitlines()
    assert lines[0] == "2 jobs: a 2"
    assert lines[1].endswith("1/2 a x: 3.0 s, 100 MiB")
    assert lines[2:7] == [
        "failed: a y, after 3.0 s",
        "  log: results/logs/a/y.log",
        "    first",
        "    second",
        "    error: no host",
    ]
    assert lines[7].startswith("failed after ")
    assert lines[8:] == ["  failed: a y, log: results/logs/a/y.log"]


def test_the_journal_has_what_jobs_used_and_how_the_run_ended(tmp_path):
    view = begin(tmp_path, speaks=False)
    benchmark(tmp_path / "results", "a/x", 2.5, cpu=2, rss=100)
    job(view, 1, "x")
    job(view, 2, "without_a_benchmark")
    view.close()
    events = journal.read(tmp_path / "results/run.jsonl")
    assert [event["event"] for event in events] == [
        *("run_started", "planned"),
        *("job_started", "job_finished") * 2,
        "run_finished",
    ]
    used = {name: events[3][name] for name in ("cpu_seconds", "peak_bytes", "benchmark_seconds")}
    assert used == {"cpu_seconds": 2, "peak_bytes": 100 * 2**20, "benchmark_seconds": 2.5}
    assert "benchmark_seconds" not in events[5]
    assert events[-1]["outcome"] == "finished"
    assert events[-1]["cpu_seconds"] >= 0


@pytest.mark.parametrize(
    ("kinds", "outcome"),
    [
        (["job_finished", "job_finished"], "finished"),
        (["job_finished"], "stopped"),
        (["job_finished", "job_failed"], "failed"),
    ],
)
def test_how_a_run_ended(tmp_path, kinds, outcome):
    view = begin(tmp_path)
    for number, kind in enumerate(kinds):
        job(view, number, str(number), kind)
    view.close()
    assert journal.read(tmp_path / "results/run.jsonl")[-1]["outcome"] == outcome


def test_a_run_that_ends_before_its_plan_has_failed_if_there_was_an_error(tmp_path, capsys):
    view = View(tmp_path, speaks=True)
    view.event({"event": "run_started"}, T0)
    view.event({"event": "error", "message": "Missing input files"}, T0)
    view.close()
    assert journal.read(tmp_path / "results/run.jsonl")[-1]["outcome"] == "failed"
    assert capsys.readouterr().err == ""


def test_a_journal_that_cannot_be_written_is_left_out_with_one_line(tmp_path, capsys):
    (tmp_path / "results").write_text("a file where the folder ought to be")
    view = begin(tmp_path)
    job(view, 1, "x")
    job(view, 2, "y")
    view.close()
    err = capsys.readouterr().err
    assert err.count("the run goes on without its journal") == 1
    assert "2 of 2 jobs done" in err


def test_a_disk_that_fills_up_costs_the_journal_alone(tmp_path, monkeypatch, capsys):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    view = begin(tmp_path)
    with monkeypatch.context() as patched:
        patched.setattr("cis490.runs.journal.os.write", full)
        job(view, 1, "x")
    view.close()
    err = capsys.readouterr().err
    assert err.count("without its journal (OSError: [Errno 28] No space left") == 1
    assert "1/2 a x" in err


@pytest.mark.usefixtures("live")
def test_a_live_view_shows_what_jobs_write_and_takes_itself_away(tmp_path):
    view = begin(tmp_path, live=True)
    screen, capture = view._screen, view._capture
    assert os.environ[WATCHED]
    capture.held = "a job says so\n"
    view._look()
    assert screen.said == ["a job says so"]
    assert screen.shown
    job(view, 1, "x")
    assert screen.said == ["a job says so"]  # a bar tells of jobs that end well
    job(view, 2, "y", "job_failed")
    assert screen.said[1].startswith("failed: a y")
    view.close()
    assert screen.closed
    assert WATCHED not in os.environ


@pytest.mark.usefixtures("live")
@pytest.mark.parametrize("method", ["show", "say", "close"])
def test_a_view_that_fails_leaves_plain_lines(tmp_path, monkeypatch, capsys, method):
    def fail(*_):
        raise ZeroDivisionError("of the view")

    view = begin(tmp_path, live=True)
    screen = view._screen
    monkeypatch.setattr(screen, method, fail)
    view._capture.held = "a job says so\n"
    view._look()
    view.say("Snakemake says so")
    job(view, 1, "x")
    job(view, 2, "y")
    view.close()
    err = capsys.readouterr().err
    assert "the run goes on without its live view (ZeroDivisionError: of the view)" in err
    assert err.count("without") == 1
    assert WATCHED not in os.environ
    assert "2 of 2 jobs done" in err
    if method != "close":
        assert "2/2 a y" in err
        assert ("a job says so" in err) != ("a job says so" in screen.said)
        assert "Snakemake says so" in err


def test_without_rich_there_are_plain_lines(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(__import__("sys").modules, "rich.console", None)
    monkeypatch.delitem(__import__("sys").modules, "cis490.runs.screen", raising=False)
    monkeypatch.setattr("cis490.runs.capture.Capture", FakeCapture)
    view = begin(tmp_path, live=True)
    job(view, 1, "x")
    view.close()
    err = capsys.readouterr().err
    assert "without its live view" in err
    assert "1/2 a x" in err


def test_an_estimate_that_fails_is_left_out(tmp_path, monkeypatch, capsys):
    def fail(*_):
        raise ValueError("of the estimate")

    view = begin(tmp_path)
    monkeypatch.setattr(module, "time_left", fail)
    view._look()
    view._look()
    job(view, 1, "x")
    view.close()
    assert capsys.readouterr().err.count("without its time left (ValueError: of the") == 1


def test_long_silence_is_broken_without_a_terminal(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(module, "_SILENCE_S", -1)
    view = begin(tmp_path)
    log = "results/logs/a/x.log"
    view.event({"event": "job_started", "jobid": 1, "rule": "a", "log": [log]}, T0 + 1)
    view._look()
    view.close()
    assert "\nrunning: a (" in capsys.readouterr().err


def test_a_closed_stderr_is_no_fault(tmp_path, monkeypatch):
    closed = (tmp_path / "gone").open("w")
    closed.close()
    monkeypatch.setattr("sys.stderr", closed)
    view = begin(tmp_path)
    job(view, 1, "x")
    view.close()
    assert journal.read(tmp_path / "results/run.jsonl")[-1]["event"] == "run_finished"
