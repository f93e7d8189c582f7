import json

import pytest

from cis490.runs import journal
from cis490.runs.journal import Journal
from tests.runs.events import T0, at, write


def test_each_line_is_an_object_with_its_time_run_and_kind_first(tmp_path):
    write(tmp_path / "run.jsonl", at(0.25, "run_started"), at(1, "planned", jobs={"a": 2}))
    lines = (tmp_path / "run.jsonl").read_text().splitlines()
    assert [list(json.loads(line))[:3] for line in lines] == [["time", "run", "event"]] * 2
    assert journal.seconds(json.loads(lines[0])["time"]) == T0 + 0.25
    assert json.loads(lines[1])["jobs"] == {"a": 2}


@pytest.mark.parametrize("torn", ['{"time":"2027-01-15T08:00:', "{", '{"time":"\xff'])
def test_after_a_torn_line_readers_go_on_and_the_next_run_has_lines_of_its_own(tmp_path, torn):
    path = tmp_path / "run.jsonl"
    write(path, at(0, "run_started"))
    with path.open("ab") as file:
        file.write(torn.encode("latin-1"))
    assert [event["event"] for event in journal.read(path)] == ["run_started"]
    write(path, at(5, "run_started", run="r2"), at(6, "planned", run="r2"))
    assert [(e["run"], e["event"]) for e in journal.read(path)] == [
        ("r1", "run_started"),
        ("r2", "run_started"),
        ("r2", "planned"),
    ]


def test_lines_that_are_no_events_are_left_out(tmp_path):
    path = tmp_path / "run.jsonl"
    good = json.dumps(at(0, "run_started"))
    bad = ["", "null", "[1]", "7", '"x"', "{}", '{"time": 3, "run": "r", "event": "e"}', "\0\0\0"]
    bad.append('{"time": "yesterday", "run": "r", "event": "e"}')
    bad.append('{"time": "2027-01-15T08:00:00Z", "run": 1, "event": null}')
    path.write_text("\n".join([*bad, good, *bad]))
    assert journal.read(path) == [at(0, "run_started")]


def test_no_journal_is_an_empty_one(tmp_path):
    assert journal.read(tmp_path / "run.jsonl") == []
    assert journal.last_run([]) == []


def test_the_end_of_a_long_journal_is_read_alone(tmp_path):
    path = tmp_path / "run.jsonl"
    write(path, *(at(i, "job_finished", jobid=i) for i in range(2000)))
    events = journal.read(path, last_bytes=1000)
    assert 5 < len(events) < 20
    assert events[-1]["jobid"] == 1999


def test_the_last_run_is_the_one_that_began_last():
    events = [at(0, "run_started"), at(9, "run_started", run="r2"), at(10, "run_finished")]
    assert journal.last_run(events) == [events[1]]


def test_a_journal_that_cannot_be_written_says_so(tmp_path):
    (tmp_path / "results").write_text("a file")
    with pytest.raises(OSError, match="results"):
        Journal(tmp_path / "results/run.jsonl").append(at(0, "run_started"))
