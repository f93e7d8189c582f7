"""The logger plugin under the real Snakemake, on a workflow of four jobs."""

import logging
import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

pytest.importorskip("snakemake")

from snakemake_interface_logger_plugins.common import LogEvent
from snakemake_interface_logger_plugins.tests import MockOutputSettings, TestLogHandlerBase

from cis490 import cli
from cis490.runs import journal
from cis490.runs.journal import Event
from snakemake_logger_plugin_cis490 import LogHandler
from tests.conftest import ROOT
from tests.runs.events import T0, benchmark
from tests.runs.terminal import on_terminal, stays

SNAKEFILE = """
rule all:
    input: "results/c.txt"

rule make:
    output: "results/made/{i}.txt"
    log: "results/logs/make/{i}.log"
    benchmark: "results/benchmarks/make/{i}.tsv"
    resources: gpu=1
    shell: "echo 'to the terminal {wildcards.i}' >&2; exec 2> {log}; echo 'why {wildcards.i}' >&2; "
        "sleep $SLEEP; test {wildcards.i} != $FAIL; touch {output}"

rule c:
    input: expand("results/made/{i}.txt", i=[1, 2])
    output: "results/c.txt"
    log: "results/logs/c.log"
    benchmark: "results/benchmarks/c.tsv"
    shell: "touch {output}"

onsuccess: print("a hook says so")
"""
CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f]")


class Run:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "Snakefile").write_text(SNAKEFILE)

    def command(self, *arguments: str) -> list[str]:
        command = [sys.executable, "-m", "snakemake", "--resources", "gpu=2", "--cores", "2"]
        return [*command, *arguments, "--logger", "cis490"]

    def env(self, **env: str) -> dict[str, str]:
        path = {"PYTHONPATH": str(ROOT / "src"), "HOME": str(self.folder / "home")}
        return {**os.environ, **path, "FAIL": "none", "SLEEP": "0.1", **env}

    def start(self, *arguments: str, **env: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            self.command(*arguments),
            cwd=self.folder,
            env=self.env(**env),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def __call__(self, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
        process = self.start(*arguments, **env)
        out, err = process.communicate(timeout=90)
        return subprocess.CompletedProcess(process.args, process.returncode, out, err)

    @property
    def path(self) -> Path:
        return self.folder / "results/run.jsonl"

    def events(self) -> list[Event]:
        return journal.read(self.path)


def wait_for(run: Run, kind: str) -> None:
    deadline = time.monotonic() + 60
    while not any(event["event"] == kind for event in run.events()):
        assert time.monotonic() < deadline
        time.sleep(0.1)


@pytest.fixture
def run(tmp_path):
    return Run(tmp_path)


def test_a_run_leaves_its_events_and_says_it_in_short_lines(run):
    done = run()
    assert done.returncode == 0, done.stderr
    events = run.events()
    assert Counter(event["event"] for event in events) == {
        **{"run_started": 1, "planned": 1, "run_finished": 1},
        **{"job_started": 4, "job_finished": 4},
    }
    assert len({event["run"] for event in events}) == 1
    assert len(run.path.read_text().splitlines()) == len(events)
    plan = events[1]
    assert plan["jobs"] == {"make": 2, "c": 1, "all": 1}
    assert list(plan["jobs"]) == ["make", "c", "all"]
    assert plan["after"] == {"c": ["make"], "all": ["c"]}
    assert plan["room"] == {"_cores": 2, "gpu": 2}
    made = next(event for event in events if event.get("wildcards") == {"i": "1"})
    assert made | {"time": "", "run": "", "jobid": 0, "reason": ""} == {
        **{"time": "", "run": "", "event": "job_started", "jobid": 0, "rule": "make"},
        **{"wildcards": {"i": "1"}, "threads": 1, "resources": {"gpu": 1}, "reason": ""},
        **{"log": ["results/logs/make/1.log"], "benchmark": "results/benchmarks/make/1.tsv"},
    }
    end = next(
        event
        for event in events
        if event["event"] == "job_finished" and event["jobid"] == made["jobid"]
    )
    assert end["benchmark_seconds"] > 0
    assert events[-1]["outcome"] == "finished"
    assert events[-1]["cpu_seconds"] > 0

    assert not CONTROL.search(done.stdout + done.stderr)
    lines = done.stderr.splitlines()
    assert "4 jobs: make 2, c 1" in lines
    assert any(re.fullmatch(r"\d\d:\d\d:\d\d 3/4 c: 0\.\d s(, \d+ MiB)?", line) for line in lines)
    assert "to the terminal 1" in lines
    assert lines[-1].startswith("4 of 4 jobs done in ")
    assert "a hook says so" in done.stdout + done.stderr
    assert len(lines) < 12


def test_snakemakes_own_log_has_everything(run):
    run(FAIL="2")
    (log,) = (run.folder / ".snakemake/log").glob("*.log")
    text = log.read_text()
    assert "Error in rule make" in text
    assert "Job stats:" in text
    assert "results/logs/make/2.log" in text


def test_a_job_that_fails_is_told_with_its_log_and_how_that_ends(run):
    done = run("--keep-going", FAIL="2")
    assert done.returncode == 1
    (failed,) = (event for event in run.events() if event["event"] == "job_failed")
    assert (failed["rule"], failed["log"]) == ("make", ["results/logs/make/2.log"])
    assert run.events()[-1]["outcome"] == "failed"
    assert run.events()[-1]["failed"] == 1
    told = done.stderr[done.stderr.index("failed: make 2, after ") :].splitlines()
    assert told[1:3] == ["  log: results/logs/make/2.log", "    why 2"]
    assert "non-zero exit status" in done.stderr
    assert "  failed: make 2, log: results/logs/make/2.log" in told
    assert "1 of 4 jobs done, 1 failed" in done.stderr


def test_a_job_that_is_tried_again_has_not_failed(run):
    snakefile = run.folder / "Snakefile"
    text = snakefile.read_text().replace("    resources: gpu=1\n", "    retries: 1\n")
    text = text.replace("test {wildcards.i} != $FAIL", "test -e tried || {{ touch tried; false; }}")
    snakefile.write_text(text)
    done = run("--cores", "1")
    assert done.returncode == 0
    kinds = Counter(event["event"] for event in run.events())
    assert (kinds["job_failed"], kinds["job_started"], kinds["job_finished"]) == (1, 5, 4)
    assert run.events()[-1]["outcome"] == "finished"
    assert "Trying to restart job" in done.stderr


def test_a_stage_that_is_all_there_is_to_do_is_shown(run):
    assert run().returncode == 0
    done = run("results/c.txt", "--forcerun", "c")
    assert "1 job: c 1" in done.stderr


def test_nothing_to_be_done_is_said_and_leaves_the_journal_alone(run):
    assert run().returncode == 0
    before = run.path.read_bytes()
    done = run()
    assert "Nothing to be done" in done.stderr
    assert run.path.read_bytes() == before


def test_an_error_before_any_job_is_said_and_written_down(run):
    (run.folder / "Snakefile").write_text("rule all:\n    input: 'not/there.txt'\n")
    done = run()
    assert done.returncode == 1
    assert "MissingInputException" in done.stderr
    assert "not/there.txt" in done.stderr
    assert [event["event"] for event in run.events()] == ["run_started", "error", "run_finished"]
    assert run.events()[-1]["outcome"] == "failed"


def test_a_snakefile_that_cannot_be_read_is_said(run):
    (run.folder / "Snakefile").write_text("rule all:\n    input 'no colon'\n")
    done = run()
    assert done.returncode == 1
    assert "SyntaxError" in done.stderr


def test_a_dry_run_is_as_always_and_leaves_nothing(run):
    done = run("-n")
    assert done.returncode == 0
    assert "Job stats:" in done.stdout
    assert "This was a dry-run" in done.stdout
    assert not run.path.exists()


@pytest.mark.parametrize(
    ("option", "said"), [("--verbose", "Job stats:"), ("--printshellcmds", "exec 2> results/logs")]
)
def test_who_asks_for_more_gets_snakemakes_own_words_and_the_journal(run, option, said):
    done = run(option)
    assert said in done.stderr + done.stdout
    assert "4 of 4 steps (100%) done" in done.stderr
    assert "4 of 4 jobs done in" not in done.stderr
    assert run.events()[-1]["outcome"] == "finished"


def test_quiet_is_quiet_and_still_tells_failures(run):
    assert sorted(run("--quiet", "all").stderr.split("\n")) == [
        *("", "to the terminal 1", "to the terminal 2"),
    ]
    (run.folder / "results/c.txt").unlink()
    (run.folder / "results/made/2.txt").unlink()
    done = run("--quiet", "progress", FAIL="2")
    assert "jobs done" not in done.stderr
    assert "Error in rule make" in done.stderr
    assert "results/logs/make/2.log" in done.stderr


def test_an_interrupted_run_ends_in_order(run):
    process = run.start(SLEEP="60")
    wait_for(run, "job_started")
    time.sleep(0.5)
    os.killpg(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode != 0
    end = run.events()[-1]
    assert end["event"] == "run_finished"
    assert end["outcome"] in ("stopped", "failed")  # what a killed job says may come first
    assert "0 of 4 jobs done" in err


def test_sigterm_stops_a_run_when_its_jobs_have_ended(run):
    process = run.start(SLEEP="3")
    wait_for(run, "job_started")
    process.terminate()
    _, err = process.communicate(timeout=60)
    assert run.events()[-1]["outcome"] == "stopped"
    assert err.count("Will exit after finishing") == 1
    assert "stopped after " in err


def test_a_job_that_leaves_no_file_has_failed(run):
    snakefile = run.folder / "Snakefile"
    snakefile.write_text(snakefile.read_text().replace("$FAIL; touch {output}", "$FAIL"))
    done = run("--keep-going", "--latency-wait", "0")
    assert done.returncode == 1
    assert "MissingOutputException" in done.stderr
    assert run.events()[-1]["failed"] == 2
    assert "  failed: make 2, log: results/logs/make/2.log" in done.stderr
    assert "not ended" not in done.stderr


def test_a_run_that_was_killed_is_called_so_and_the_next_one_goes_on(run, capsys):
    process = run.start(SLEEP="60")
    wait_for(run, "job_started")
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate(timeout=60)
    cli.main(["status", str(run.folder / "results")])
    assert capsys.readouterr().out.startswith("killed: 0 of 4 jobs done")
    with run.path.open("a") as file:
        file.write('{"time":"2027-')
    assert run("--nolock", "--rerun-incomplete").returncode == 0
    assert run.events()[-1]["outcome"] == "finished"
    cli.main(["status", str(run.folder / "results")])
    assert capsys.readouterr().out.startswith("4 of 4 jobs done")
    bad = [line for line in run.path.read_text().splitlines() if not line.endswith("}")]
    assert bad == ['{"time":"2027-']


def test_a_results_folder_that_cannot_be_written_to_stops_nothing(run):
    done = run("results/made/1.txt")
    run.path.unlink()
    run.path.mkdir()
    done = run()
    assert done.returncode == 0
    assert done.stderr.count("the run goes on without its journal") == 1
    assert "3 of 3 jobs done" in done.stderr


def test_on_a_terminal_stages_are_bars_and_little_stays(run):
    benchmark(run.folder / "results", "make/1", 130)
    code, out = on_terminal(run.command(), run.folder, run.env(SLEEP="3.5"))
    assert code == 0, out
    assert re.search(r"make +\S*━+\S* +0/2", re.sub(r"\x1b\[[\d;]*m", "", out))
    assert "make 1" in out
    assert "min left" in out
    assert "\x1b[?25h" in out[out.rindex("\x1b[?25l") :]  # the cursor is back
    left = stays(out)
    assert "━" not in left
    assert "to the terminal 1" in left
    assert "a hook says so" in left
    assert left.rstrip().splitlines()[-1].startswith("4 of 4 jobs done in ")
    assert run.events()[-1]["outcome"] == "finished"


def test_on_a_terminal_a_failure_stays_with_its_log(run):
    code, out = on_terminal(run.command(), run.folder, run.env(SLEEP="1.5", FAIL="1"))
    assert code == 1
    left = stays(out)
    assert "failed: make 1, after 1." in left
    assert "  log: results/logs/make/1.log" in left
    assert "  failed: make 1, log: results/logs/make/1.log" in left


def test_interrupted_on_a_terminal_the_terminal_is_given_back(run):
    sent = []

    def interrupt(pid, out):
        if not sent and "make 1" in out:
            sent.append(os.killpg(pid, signal.SIGINT))

    code, out = on_terminal(run.command(), run.folder, run.env(SLEEP="60"), meanwhile=interrupt)
    assert code != 0
    assert "\x1b[?25h" in out[out.rindex("\x1b[?25l") :]
    assert "0 of 4 jobs done" in stays(out)


def test_without_the_plugin_the_repositorys_own_profile_asks_for_none():
    for profile in (ROOT / "profiles/default").glob("*.yaml"):
        assert not re.search(r"^\s*logger\s*:", profile.read_text(), re.M), profile


def test_a_call_that_does_not_ask_for_it_imports_nothing_of_it():
    code = (
        "import sys, snakemake.cli as c; c.get_argument_parser();"
        "assert 'snakemake_logger_plugin_cis490' in sys.modules;"
        "print([m for m in sys.modules if m.startswith(('cis490', 'rich'))])"
    )
    env = os.environ | {"PYTHONPATH": str(ROOT / "src")}
    done = subprocess.run(
        [sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


def record(event, level=logging.INFO, **extra):
    made = logging.LogRecord("snakemake", level, "x.py", 1, "a message", (), None)
    made.event = event
    made.created = T0
    vars(made).update(extra)
    return made


class Settings(MockOutputSettings):
    def __init__(self, **changes):
        super().__init__()
        self.printshellcmds = self.show_failed_logs = False
        vars(self).update(changes)


@pytest.fixture
def handler(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    made = LogHandler(Settings(), None)
    made.setFormatter(logging.Formatter("%(message)s"))
    yield made
    made.close()


def test_stages_come_in_the_order_of_the_data_however_they_are_given(handler, tmp_path):
    chain = [("ingest", "windows"), ("windows", "train"), ("ingest", "train"), ("train", "all")]
    chain += [("train", "ingest"), ("train", "train")]  # rules may wait for each other's jobs
    links = [{"sourcerule": before, "targetrule": rule} for before, rule in chain[:4]]
    for given in (links, [*links, {"sourcerule": "train", "targetrule": "train"}]):
        handler.emit(record(LogEvent.RULEGRAPH, rulegraph={"links": given}))
        stats = {"all": 1, "ingest": 9, "train": 2, "windows": 9, "total": 21}
        handler.emit(record(LogEvent.RUN_INFO, stats=stats))
        jobs = journal.read(tmp_path / "results/run.jsonl")[-1]["jobs"]
        assert list(jobs) == ["ingest", "windows", "train", "all"]
    circle = [{"sourcerule": before, "targetrule": rule} for before, rule in chain]
    handler.emit(record(LogEvent.RULEGRAPH, rulegraph={"links": circle}))
    handler.emit(record(LogEvent.RUN_INFO, stats=stats))
    assert len(journal.read(tmp_path / "results/run.jsonl")[-1]["jobs"]) == 4


@pytest.mark.parametrize("event", list(LogEvent))
def test_a_record_of_another_shape_never_raises_and_errors_are_still_told(handler, capsys, event):
    handler.emit(record(event))
    handler.emit(record(None, logging.ERROR, msg="something went wrong"))
    assert "something went wrong" in capsys.readouterr().err


def test_a_fault_is_told_once_and_then_snakemake_speaks(handler, capsys):
    for _ in range(2):
        handler.emit(record(LogEvent.JOB_INFO))
        handler.emit(record(LogEvent.JOB_ERROR, logging.ERROR, msg="Error in rule x"))
    err = capsys.readouterr().err
    assert err.count("no more is shown of this run (KeyError") == 1
    assert err.count("Error in rule x") == 2


def test_on_a_cluster_jobs_have_no_processes_here(handler, tmp_path, capsys):
    handler.emit(record(LogEvent.RESOURCES_INFO, nodes=20))
    handler.emit(record(LogEvent.RUN_INFO, stats={"a": 1, "total": 1}))
    handler.emit(record(LogEvent.JOB_INFO, jobid=1, rule_name="a", output=["x"], log=["a.log"]))
    error = {"jobid": 1, "rule_name": "a", "log": ["a.log", "slurm/1.log"], "aux": {"slurm": 7}}
    handler.emit(record(LogEvent.JOB_ERROR, logging.ERROR, rule_msg="out of memory", **error))
    handler.close()
    events = journal.read(tmp_path / "results/run.jsonl")
    assert events[1]["remote"]
    assert events[1]["room"] == {"_jobs": 20}
    assert events[3]["aux"] == {"slurm": "7"}
    assert events[3]["message"] == "out of memory"
    assert "cpu_seconds" not in events[-1]
    assert "  log: slurm/1.log" in capsys.readouterr().err


class TestConformance(TestLogHandlerBase):
    """What the interface asks of every plugin."""

    __test__ = True

    @pytest.fixture(autouse=True)
    def elsewhere(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)

    def get_log_handler_cls(self):
        return LogHandler

    def get_log_handler_settings(self):
        return None
