import os

import pytest

from cis490 import cli
from cis490.errors import Cis490Error, ConfigError
from cis490.runs import pictures
from cis490.runs.benchmarks import read, read_all
from cis490.runs.times import Times, tables
from tests.runs.events import HEADER, T0, at, benchmark, planned, started, state_of, write

DAMAGED = {
    "empty": "",
    "header": HEADER + "\n",
    "short": HEADER + "\n1.0\t0:00:01\n",
    "words": HEADER + "\n" + "\t".join(["x"] * 10) + "\n",
    "negative": HEADER + "\n-1" + "\t1" * 9 + "\n",
    "nan": HEADER + "\nnan" + "\t1" * 9 + "\n",
    "other": "a\tb\n1\t2\n",
}


@pytest.mark.parametrize("name", DAMAGED)
def test_a_damaged_benchmark_is_named_and_left_out(tmp_path, name):
    benchmark(tmp_path, "train/host/good", 2, cpu=1, rss=100)
    bad = benchmark(tmp_path, "train/host/bad", 1)
    bad.write_text(DAMAGED[name])
    good, damaged = read_all(tmp_path)
    assert [one.name for one in good] == ["host/good"]
    assert damaged == [bad]
    assert f"damaged: {bad}" in "\n".join(tables(Times.of(tmp_path)))


def test_bytes_that_are_no_text_are_damage(tmp_path):
    path = benchmark(tmp_path, "a", 1)
    path.write_bytes(b"\xff\xfe\x00s")
    assert read(path, "a") is None
    assert read(tmp_path / "gone.tsv", "a") is None


def test_of_a_job_that_ran_several_times_the_longest_counts(tmp_path):
    path = benchmark(tmp_path, "a", 1)
    path.write_text(path.read_text() + "9.0" + "\t0:00:09" + "\t7" * 8 + "\n")
    assert read(path, "a").seconds == 9
    assert read(path, "a").peak_bytes == 7 * 2**20


@pytest.mark.parametrize("nothing", ["NA", "-", ""])
def test_what_was_not_measured_is_unknown_and_not_zero(tmp_path, nothing):
    one = read(benchmark(tmp_path, "a", 1, cpu=nothing, rss=nothing), "a")
    assert (one.cpu_seconds, one.peak_bytes) == (None, None)
    assert "| a    |    1 |     1.0 |  100% |      - |        1.0 |                - |" in tables(
        Times.of(tmp_path)
    )


def test_rules_stand_by_the_time_that_they_took(tmp_path):
    for name, seconds, cpu, rss in (
        ("train/host/x", 30, 20, 300),
        ("train/host/y", 50, 45, 200),
        ("ingest/alder-0", 10, "NA", "NA"),
        ("report", 3, 2, 10),
    ):
        benchmark(tmp_path, name, seconds, cpu=cpu, rss=rss)
    rules = Times.of(tmp_path).rules()
    assert [(r.name, r.n, r.seconds, r.slowest, r.cpu_seconds) for r in rules] == [
        ("train", 2, 80, 50, 65),
        ("ingest", 1, 10, 10, None),
        ("report", 1, 3, 3, 2),
    ]
    assert rules[0].peak_bytes == 300 * 2**20


def test_cores_kept_busy_are_processor_time_over_the_time_in_which_any_ran(tmp_path):
    # Two side by side, a gap, one alone: 10 s and 10 s in which any ran.
    for name, end, cpu in (("a/x", 10, 8), ("a/y", 10, 6), ("a/z", 500, 1)):
        path = benchmark(tmp_path, name, 10, cpu=cpu)
        os.utime(path, (T0 + end, T0 + end))
    total, cpu, ran = Times.of(tmp_path).busy()
    assert (total, cpu, ran) == (30, 15, 20)
    assert "at least 0.75 cores were kept busy" in tables(Times.of(tmp_path))[0]


def test_the_journal_knows_more_of_the_same_job_and_nothing_of_another(tmp_path):
    results = tmp_path / "results"
    benchmark(results, "a/x", 10, cpu=3, rss=50)
    benchmark(results, "a/y", 10, cpu=3, rss=50)
    ended = {"cpu_seconds": 9.5, "peak_bytes": 80 * 2**20}
    write(
        results / "run.jsonl",
        at(0, "run_started"),
        planned({"a": 2}),
        started(0, 1, "a", "x"),
        started(0, 2, "a", "y"),
        at(10, "job_finished", jobid=1, benchmark_seconds=10.0, **ended),
        at(20, "job_finished", jobid=2, benchmark_seconds=19.0, **ended),  # was run again since
    )
    moved = results.rename(tmp_path / "benchmarks")  # under another name, and an unlucky one
    x, y = Times.of(moved).timed
    assert (x.cpu_seconds, x.peak_bytes, x.ended) == (9.5, 80 * 2**20, T0 + 10)
    assert (y.cpu_seconds, y.peak_bytes) == (3, 50 * 2**20)


def test_the_last_run_is_told_with_its_failures(tmp_path, capsys):
    results = tmp_path / "results"
    benchmark(results, "a/x", 10)
    write(
        results / "run.jsonl",
        at(0, "run_started"),
        planned({"a": 2}),
        started(0, 1, "a", "x"),
        at(5, "job_failed", jobid=1, rule="a", log=["results/logs/a/x.log"]),
        at(10, "run_finished", outcome="failed", cpu_seconds=15),
    )
    cli.main(["times", str(results)])
    shown = capsys.readouterr().out
    assert "failed after 10 s: 0 of 2 jobs done, 1 failed, 1.5 of 2 cores kept busy" in shown
    assert "failed: a x, log: results/logs/a/x.log" in shown


@pytest.mark.parametrize("suffix", [".svg", ".png", ".pdf"])
def test_pictures_are_written_in_the_format_of_their_name(tmp_path, suffix, monkeypatch):
    monkeypatch.chdir(tmp_path)
    benchmark(tmp_path / "results", "a/x", 10, cpu=4, rss=100)
    benchmark(tmp_path / "results", "b", 1)
    write(
        tmp_path / "results/run.jsonl",
        at(0, "run_started"),
        planned({"a": 1, "b": 1}),
        started(0, 1, "a", "x"),
        at(10, "job_finished", jobid=1),
        started(0, 2, "b"),
        at(9, "job_failed", jobid=2, rule="b"),
    )
    cli.main(["times", "--picture", f"p{suffix}", "--timeline", f"t{suffix}"])
    magic = {".svg": b"<?xml", ".png": b"\x89PNG", ".pdf": b"%PDF"}[suffix]
    for name in ("p", "t"):
        assert (tmp_path / f"{name}{suffix}").read_bytes().startswith(magic)
    if suffix == ".svg":
        assert "a (1)" in (tmp_path / "p.svg").read_text()
        assert "failed" in (tmp_path / "t.svg").read_text()


def test_a_picture_of_no_known_format_is_refused(tmp_path):
    benchmark(tmp_path, "a", 1)
    with pytest.raises(ConfigError, match=r"\.svg, \.png, \.pdf"):
        pictures.write(pictures.costs(Times.of(tmp_path)), tmp_path / "p.gif")


def test_without_a_journal_the_timeline_says_why_it_is_empty(tmp_path):
    for state in (None, state_of(planned({"a": 1}))):
        picture = pictures.timeline(state)
        assert picture.figure is None
        assert "no journal" in picture.caption
    pictures.write(picture, tmp_path / "t.svg")
    assert "no journal" in (tmp_path / "t.svg").read_text()


def test_results_without_benchmarks_are_an_error_that_says_what_to_do(tmp_path):
    with pytest.raises(Cis490Error, match="run the workflow first"):
        Times.of(tmp_path)
    with pytest.raises(SystemExit, match=r"error: .*benchmarks holds no benchmark"):
        cli.main(["times", str(tmp_path / "nowhere")])
