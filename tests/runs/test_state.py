from cis490.runs.state import State, name_of
from tests.runs.events import T0, at, planned, started, state_of


def test_jobs_go_from_planned_to_running_to_done_or_failed():
    state = state_of(planned({"a": 3, "b": 1}))
    assert state.counts() == {"a": (0, 0, 0, 3), "b": (0, 0, 0, 1)}
    for event in (
        started(1, 1, "a", "x"),
        started(1, 2, "a", "y"),
        started(1, 3, "a", "z"),
        at(4, "job_finished", jobid=1, peak_bytes=5),
        at(5, "job_failed", jobid=2, rule="a", log=["elsewhere.log"]),
    ):
        state.apply(event)
    assert state.counts()["a"] == (1, 1, 1, 3)
    assert [str(job) for job in state.done] == ["a x"]
    assert state.done[0].ended == T0 + 4
    assert state.done[0].usage["peak_bytes"] == 5
    assert state.failed[2].log == ("elsewhere.log",)


def test_a_job_that_is_tried_again_has_not_failed():
    state = state_of(
        planned({"a": 1}),
        started(1, 1, "a"),
        at(2, "job_failed", jobid=1, rule="a"),
        started(3, 1, "a"),
    )
    assert state.counts()["a"] == (0, 1, 0, 1)
    state.apply(at(4, "job_finished", jobid=1))
    assert state.counts()["a"] == (1, 0, 0, 1)


def test_a_failure_counts_once_and_also_if_its_start_was_never_told():
    state = state_of(planned({"a": 2}))
    failure = at(2, "job_failed", jobid=1, rule="a", log=["a.log"])
    assert state.apply(failure) is not None
    assert state.apply(failure) is None
    assert state.counts()["a"] == (0, 0, 1, 2)


def test_an_end_without_a_start_and_an_unknown_kind_change_nothing():
    state = state_of(planned({"a": 1}))
    assert state.apply(at(1, "job_finished", jobid=7)) is None
    assert state.apply(at(1, "something_new", whatever=1)) is None
    assert state.counts() == {"a": (0, 0, 0, 1)}


def test_stages_stand_in_the_order_of_the_plan():
    assert list(state_of(planned({"z": 1, "a": 1, "m": 1})).counts()) == ["z", "a", "m"]


def test_a_rule_that_only_asks_for_files_is_no_stage():
    state = state_of(
        planned({"a": 1, "b": 1, "all": 1}, after={"b": ["a"], "all": ["a", "b"]}),
    )
    assert list(state.counts()) == ["a", "b"]
    state.apply(at(1, "job_started", jobid=0, rule="all", final=True))
    assert list(state.counts()) == ["a", "b"]


def test_a_stage_that_waits_for_many_shows_itself_when_it_begins():
    state = state_of(planned({"a": 1, "b": 1, "page": 1}, after={"page": ["a", "b"]}))
    state.apply(started(1, 1, "page"))
    assert list(state.counts()) == ["a", "b", "page"]


def test_a_job_is_named_by_its_benchmark_else_by_its_wildcards():
    assert name_of("train", "results/benchmarks/train/host/gbt_oracle.tsv", {}) == "host/gbt_oracle"
    assert name_of("report", "results/benchmarks/report.tsv", {}) == ""
    assert name_of("ingest", "x/ingest/alder-00000.v1.tsv", {}) == "alder-00000.v1"
    assert name_of("ingest", None, {"batch": "alder-0", "k": "2"}) == "alder-0/2"


def test_the_end_of_a_run_is_known():
    state = state_of(planned({"a": 1}), at(9, "run_finished", outcome="failed", cpu_seconds=3.5))
    assert (state.outcome, state.ended, state.cpu_seconds) == ("failed", T0 + 9, 3.5)
    assert State().outcome is None
