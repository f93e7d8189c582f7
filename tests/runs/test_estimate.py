import pytest

from cis490.runs.estimate import Earlier, time_left
from tests.runs.events import T0, at, benchmark, planned, started, state_of, write


def earlier(**rules):
    """Earlier times: rule -> seconds of its jobs, named 0, 1, …"""
    return Earlier(
        {rule: {f"{rule}/{i}.tsv": s for i, s in enumerate(times)} for rule, times in rules.items()}
    )


def left(state, before, now=0.0):
    found = time_left(state, before, T0 + now)
    return found and (round(found.seconds, 3), found.at_least)


@pytest.mark.parametrize(("cores", "expected"), [(1, 40), (2, 20), (3, 20), (4, 10), (9, 10)])
def test_jobs_share_the_cores(cores, expected):
    state = state_of(planned({"a": 4}, cores))
    assert left(state, earlier(a=[10] * 4)) == (expected, False)


def test_a_rule_waits_for_all_jobs_of_those_before_it():
    state = state_of(planned({"a": 2, "b": 1, "c": 1}, 4, after={"b": ["a"], "c": ["b"]}))
    assert left(state, earlier(a=[10, 10], b=[5], c=[1])) == (16, False)


def test_threads_and_resources_keep_jobs_apart():
    running = started(0, 1, "a", "0", threads=2, resources={"gpu": 1})
    state = state_of(planned({"a": 3}, 4, room={"gpu": 1}), running)
    assert left(state, earlier(a=[10] * 3)) == (30, False)
    known = Earlier(earlier(b=[10] * 4).seconds, {"b": {"_cores": 2}})
    assert left(state_of(planned({"b": 4}, 4)), known) == (20, False)


def test_a_job_that_needs_more_than_there_is_still_ends():
    running = started(0, 1, "a", "0", threads=8)
    assert left(state_of(planned({"a": 2}, 2), running), earlier(a=[10, 10])) == (20, False)


def test_running_jobs_take_what_is_left_of_their_own_time():
    state = state_of(planned({"a": 1}), started(0, 1, "a", "1"))
    assert left(state, earlier(a=[100, 30]), now=12) == (18, False)


def test_pending_jobs_are_the_ones_that_were_not_started():
    state = state_of(planned({"a": 2}, 1), started(0, 1, "a", "0"))
    assert left(state, earlier(a=[100, 30])) == (130, False)


def test_a_job_that_should_have_ended_takes_a_tenth_more():
    state = state_of(planned({"a": 1}), started(0, 1, "a", "0"))
    assert left(state, earlier(a=[10]), now=50) == (5, False)


def test_forecasts_grow_with_what_jobs_took_this_time():
    state = state_of(
        planned({"a": 2, "b": 1}, 1),
        started(0, 1, "a", "0"),
        at(40, "job_finished", jobid=1),
    )
    assert left(state, earlier(a=[20, 20], b=[100]), now=40) == (240, False)


def test_stages_never_timed_make_a_lower_bound():
    state = state_of(planned({"a": 1, "new": 3}, 1))
    assert left(state, earlier(a=[10])) == (10, True)
    for event in (started(0, 1, "new", "0"), at(4, "job_finished", jobid=1)):
        state.apply(event)
    assert left(state, earlier(a=[10]), now=4) == (18, False)


def test_a_rule_that_only_asks_for_files_takes_no_time_and_makes_no_lower_bound():
    after = {"b": ["a"], "all": ["a", "b"]}
    state = state_of(planned({"a": 1, "b": 1, "all": 1}, 1, after=after))
    assert left(state, earlier(a=[10], b=[5])) == (15, False)


def test_without_any_knowledge_nothing_is_said():
    assert left(state_of(planned({"a": 3})), Earlier()) is None
    assert left(state_of(), Earlier()) is None


def test_many_jobs_are_taken_together():
    state = state_of(planned({"a": 50_001}, 10))
    (seconds, _) = left(state, earlier(a=[1.0]))
    assert seconds == pytest.approx(5000, rel=0.06)


def test_earlier_times_are_those_of_the_results_folder(tmp_path, monkeypatch):
    results = tmp_path / "results"
    benchmark(results, "train/host/gbt_oracle", 12.5)
    benchmark(results, "report", 3)
    benchmark(results, "train/host/damaged", 1).write_text("s\tcpu_time\nnonsense\t1\n")
    write(results / "run.jsonl", started(0, 1, "train", threads=3, resources={"gpu": 1}))
    for folder in (results, "results"):
        monkeypatch.chdir(tmp_path)
        known = Earlier.of(folder)
        assert known.seconds == {
            "report": {"report.tsv": 3},
            "train": {"train/host/gbt_oracle.tsv": 12.5},
        }
        assert known.takes["train"] == {"_cores": 3, "_jobs": 1, "gpu": 1}


def test_nothing_earlier_is_no_error(tmp_path):
    assert Earlier.of(tmp_path / "results") == Earlier()
