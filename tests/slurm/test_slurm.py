"""The workflow on a real SLURM, through profiles/slurm: what docs/cluster.md promises.

`make test-slurm` runs it; elsewhere it is skipped.
"""

import itertools
import os
import re
import signal
import subprocess
import sys

import pytest

from tests.conftest import ROOT
from tests.slurm.cluster import OURS, wait_for
from tests.slurm.conftest import PATIENCE_S, jobs

GUIDE = (ROOT / "docs/cluster.md").read_text()


@pytest.fixture
def outcomes(story):
    return [story.cancelled, story.failed, story.completed]


def test_runs_end_as_they_should(story):
    assert story.cancelled.code == 1, story.cancelled.text
    assert story.failed.code == 1, story.failed.text
    assert story.completed.code == 0, story.completed.text
    assert (story.workflow.folder / "results/report/index.html").exists()
    assert "Nothing to be done" in story.workflow.run("-n").text


def test_every_job_goes_through_sbatch_and_nothing_runs_beside_snakemake(outcomes):
    for outcome in outcomes:
        begun = re.findall(r"^(local)?rule (\w+):$", outcome.text, re.M)
        assert {rule for local, rule in begun if local} <= {"all"}
        ran = sorted(rule for local, rule in begun if not local)
        assert ran == sorted(job.rule for job in outcome.jobs)
        assert len(ran) == outcome.text.count("has been submitted with SLURM jobid")
    rules = {job.rule for outcome in outcomes for job in outcome.jobs}
    assert rules >= {"ingest", "windows", "train", "out_of_fold", "predict", "report", "page"}


def test_jobs_with_one_gpu_never_overlap_though_they_wait_together(outcomes):
    ran = [job for outcome in outcomes for job in outcome.jobs if job.started != "Unknown"]
    with_gpu = sorted((job for job in ran if job.gpus), key=lambda job: job.started)
    assert {job.rule for job in with_gpu} == {"train", "out_of_fold"}
    pairs = list(itertools.pairwise(with_gpu))
    assert all(first.ended <= second.started for first, second in pairs)
    # Both could have run at once, and jobs without a GPU did.
    assert any(second.submitted < first.ended for first, second in pairs)
    others = [job for job in ran if not job.gpus]
    assert any(
        a.started < b.ended and b.started < a.ended for a, b in itertools.combinations(others, 2)
    )


def test_jobs_go_to_the_partition_that_has_what_they_need(outcomes):
    sent = [job for outcome in outcomes for job in outcome.jobs]
    assert {(bool(job.gpus), job.partition) for job in sent} == {(True, "gpu"), (False, "short")}


def test_a_job_killed_for_memory_is_retried_with_more(story):
    first, again = [job for job in story.failed.jobs if job.rule == "gather"]
    assert (first.state, first.mem_mb) == ("FAILED", 40)
    assert (again.state, again.mem_mb) == ("COMPLETED", 40 * 2**5)
    assert "exceeded memory limit" in first.log.read_text()
    assert str(first.log) in story.failed.text  # who looks for a reason is told where it is


def test_a_failing_training_is_reported_with_its_log_and_leaves_the_others_standing(story):
    trainings = {job.what: job.state for job in story.failed.jobs if job.rule == "train"}
    assert trainings == {
        "train_wildcards_host_gru_realistic": "FAILED",
        "train_wildcards_host_mlp_realistic": "COMPLETED",
        "train_wildcards_host_gbt_realistic": "COMPLETED",
    }
    log = "results/logs/train/host/gru_realistic.log"
    reason = "error: GRU has no option nonsense"
    assert log in story.failed.text
    assert reason in (story.workflow.folder / log).read_text()
    predicted = {job.what for job in story.failed.jobs if job.rule == "predict"}
    assert predicted == {f"predict_wildcards_host_{name}_realistic" for name in ("gbt", "mlp")}


def test_a_job_that_failed_asks_for_twice_of_what_its_rule_gives(story):
    first, second = [job for job in story.failed.jobs if "train_wildcards_host_gru" in job.what]
    assert 3000 < first.mem_mb < 3100
    assert 120 < first.minutes < 180
    assert (second.mem_mb, second.minutes) == (2 * first.mem_mb, 2 * first.minutes)


def test_what_was_cancelled_is_run_again_and_what_was_done_is_not(story):
    states = {job.state for job in story.cancelled.jobs if job.rule == "train"}
    assert states == {"CANCELLED"}
    assert "CANCELLED" in story.cancelled.text
    done = {job.what for job in story.cancelled.jobs if job.state == "COMPLETED"}
    assert done
    assert not done & {job.what for job in story.failed.jobs}


def test_logs_are_where_the_guide_says(story, outcomes):
    for job in (job for outcome in outcomes for job in outcome.jobs):
        rule, _, wildcards = job.what.partition("_wildcards_")
        folder = story.workflow.folder / ".snakemake/slurm_logs" / f"rule_{rule}" / wildcards
        assert job.log == folder / f"{job.number}.log"
        assert job.log.exists() or job.started == "Unknown" or job.state == "CANCELLED"
    for place in (
        ".snakemake/slurm_logs/rule_<rule>/<wildcards>/<job>.log",
        "results/logs/<rule>/<wildcards>.log",
    ):
        assert place in GUIDE


def test_the_view_follows_jobs_of_the_cluster(story):
    workflow = story.workflow
    some = ("--until", "summarise", "curves")
    outcome = workflow.run("--logger", "cis490", "--forcerun", "summarise", "curves", *some)
    assert outcome.code == 0, outcome.text
    assert sorted(job.rule for job in outcome.jobs) == ["curves", "summarise"]
    for job in outcome.jobs:  # each with its time, which only its own end tells
        assert re.search(rf"/2 {job.rule}\b.*: [0-9.]+ s", outcome.text), outcome.text
    command = [sys.executable, "-m", "cis490", "status", str(workflow.folder / "results")]
    told = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert "2 of 2 jobs done" in told


@pytest.mark.usefixtures("slurm")
def test_ctrl_c_cancels_the_jobs_in_the_queue(tmp_path):
    (tmp_path / "Snakefile").write_text('rule slow:\n    output: "slow"\n    shell: "sleep 600"\n')
    command = [sys.executable, "-m", "snakemake", "slow", "--executor", "slurm", "--jobs", "1"]
    command += ["--slurm-status-command", "squeue", "--default-resources", "mem_mb=1000"]
    process = subprocess.Popen(command, cwd=tmp_path, env=os.environ | OURS)

    def state():
        return [job.state for job in jobs() if job.rule == "slow"]

    wait_for(lambda: state() == ["RUNNING"], "a job", PATIENCE_S)
    process.send_signal(signal.SIGINT)
    assert process.wait(PATIENCE_S) != 0
    wait_for(lambda: state() == ["CANCELLED"], "the end of the job", 60)
