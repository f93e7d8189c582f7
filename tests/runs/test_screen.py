from pathlib import Path

import pytest

from cis490.runs.estimate import Left
from cis490.runs.processes import Usage
from cis490.runs.screen import view
from tests.runs.events import T0, at, planned, started, state_of

rich_console = pytest.importorskip("rich.console")


def drawn(state, *, width=80, height=24, usage=None, left=None, now=30.0, folder=Path("nowhere")):
    console = rich_console.Console(width=width, height=height, force_terminal=False)
    with console.capture() as got:
        console.print(view(state, usage or {}, left, T0 + now, folder, width, height))
    return got.get().rstrip("\n").split("\n")


def test_stages_running_jobs_failures_and_the_time_left():
    state = state_of(
        planned({"ingest": 2, "train": 3}),
        started(0, 1, "ingest", "alder-0"),
        at(5, "job_finished", jobid=1),
        started(5, 2, "train", "host/gbt"),
        started(5, 3, "train", "host/mlp"),
        at(9, "job_failed", jobid=3, rule="train", log=["results/logs/train/host/mlp.log"]),
    )
    lines = drawn(state, usage={2: Usage(300 * 2**20)}, left=Left(200, False))
    assert lines[0].startswith("ingest")
    assert lines[0].split()[-1] == "1/2"
    assert "1 running, 1 failed" in lines[1]
    assert lines[2:] == [
        "train host/gbt  25 s, 300 MiB",
        "failed: train host/mlp  results/logs/train/host/mlp.log",
        "1 of 5 jobs · 30 s so far · about 3 min left",
    ]


def test_a_running_job_shows_the_last_line_of_its_log(tmp_path):
    log = tmp_path / "results/logs/train/host/gbt.log"
    log.parent.mkdir(parents=True)
    log.write_text("2026-11-27 17:00:00,123 INFO epoch 3: \x1b[31mmacro F1 0.5\x1b[0m\r\n\n")
    state = state_of(planned({"train": 1}), started(5, 2, "train", "host/gbt"))
    assert drawn(state, folder=tmp_path)[1] == ("train host/gbt  25 s  epoch 3: macro F1 0.5")


@pytest.mark.parametrize("height", [6, 10, 16, 24, 40])
@pytest.mark.parametrize("width", [30, 80])
@pytest.mark.parametrize("n_running", [0, 2, 40])
@pytest.mark.parametrize("n_failed", [0, 1, 30])
def test_a_view_never_outgrows_its_terminal(height, width, n_running, n_failed):
    rules = {f"rule_number_{i}": 10 for i in range(23)}
    events, number = [planned(rules)], 0
    for rule in list(rules)[:9]:
        for i in range(10):
            number += 1
            events += [started(0, number, rule, str(i)), at(1, "job_finished", jobid=number)]
    for i in range(n_running + n_failed):
        number += 1
        events.append(started(2, number, "rule_number_9", f"with/a/long/name/of/a/job/{i}"))
        if i >= n_running:
            events.append(at(3, "job_failed", jobid=number, rule="rule_number_9"))
    lines = drawn(state_of(*events), width=width, height=height)
    assert len(lines) < max(height, 8)
    assert max(len(line) for line in lines) <= width
    assert lines[-1].startswith("90 of 230 jobs")
    assert any("running" in line or "rule_number_9 with" in line for line in lines) or not n_running
    assert any("failed" in line or "failures" in line for line in lines) == bool(n_failed)


def test_where_there_is_room_each_stage_has_its_bar():
    lines = drawn(state_of(planned({f"rule{i}": 1 for i in range(10)})), height=24)
    assert [line.split()[0] for line in lines[:10]] == [f"rule{i}" for i in range(10)]


def test_a_lower_bound_is_called_one():
    state = state_of(planned({"a": 1}))
    assert drawn(state, left=Left(3600, True))[-1].endswith("at least 1 h 00 min left")
    assert drawn(state, left=Left(3, False))[-1].endswith("under a minute left")
