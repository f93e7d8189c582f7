"""A small store through a real SLURM, in runs one after another; tests look at what they left."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from tests.builders import small_fleet
from tests.conftest import ROOT
from tests.slurm.cluster import OURS, Unusable, cluster, said, wait_for
from tests.workflow.conftest import SETTINGS

# What the user of this cluster would write. Its only GPU is in a partition of its own.
PARTITIONS = {
    "partitions": {
        "short": {"max_runtime": "1d", "max_mem_mb": 65536},
        "gpu": {"max_runtime": "2d", "max_mem_mb": 65536, "max_gpu": 1},
    }
}
# What the profile as it is shipped keeps behind a #, and this cluster needs.
WANTED = ("slurm-status-command: squeue", "slurm-partition-config: partitions.yaml")
# Tests have no time to wait, and want to see all logs.
IMPATIENT = (
    *("--slurm-init-seconds-before-status-checks", "6", "--latency-wait", "10"),
    "--slurm-keep-successful-logs",
)
# Trainings take the GPU, which computes nothing, while they learn on the CPU.
WITH_GPU = ("--set-resources", "train:gpu=1", "out_of_fold:gpu=1")
# Not even Python starts in so little; the second attempt gets enough.
TOO_LITTLE = "gather:mem_mb=40*attempt**5"
PATIENCE_S = 1200  # far more than it takes on two idle cores


@dataclass
class Job:
    """A SLURM job as the controller remembers it."""

    number: int
    rule: str
    what: str  # rule and wildcards
    state: str
    mem_mb: int
    minutes: int
    gpus: int
    partition: str
    submitted: str  # times as SLURM writes them, which sort
    started: str
    ended: str
    log: Path


@dataclass
class Outcome:
    """How a run of the workflow ended."""

    code: int
    text: str
    jobs: list[Job]


class Workflow:
    """A working directory with a profile made from the shipped one as docs/cluster.md says."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.said = folder / "said.txt"  # by the latest run
        self._seen: set[int] = set()
        shutil.copytree(ROOT / "profiles/slurm", folder / "mycluster")
        config = folder / "mycluster/config.yaml"
        text = config.read_text()
        for line in WANTED:
            assert f"\n# {line}" in text
            text = text.replace(f"# {line}", line)
        config.write_text(text)
        (folder / "mycluster/partitions.yaml").write_text(yaml.safe_dump(PARTITIONS))

    def settings(self, **changes: object) -> None:
        small = {
            "split": {"train_hosts": ["alder"], "test_hosts": ["birch"]},
            "batch": {"episodes": 512},
            "seeds": [42],
            "evaluation": {"replicates": 100, "folds": 3},
            **changes,
        }
        (self.folder / "mine.yaml").write_text(yaml.safe_dump(SETTINGS | small))

    def start(self, *arguments: str) -> subprocess.Popen[bytes]:
        command = [
            *(sys.executable, "-m", "snakemake", *arguments),
            *("--snakefile", str(ROOT / "Snakefile"), "--configfile", "mine.yaml"),
            *("--profile", "mycluster", *IMPATIENT),
        ]
        with self.said.open("w") as said_here:
            return subprocess.Popen(
                command,
                cwd=self.folder,
                env=os.environ | OURS,
                stdout=said_here,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def finish(self, process: subprocess.Popen[bytes]) -> Outcome:
        try:
            process.wait(PATIENCE_S)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            pytest.fail(f"the run took more than {PATIENCE_S} s:\n{self.said.read_text()}")
        new = [job for job in jobs() if job.number not in self._seen]
        self._seen |= {job.number for job in new}
        return Outcome(process.returncode, self.said.read_text(), new)

    def run(self, *arguments: str) -> Outcome:
        return self.finish(self.start(*arguments))


def jobs() -> list[Job]:
    """All jobs since the cluster was started, in the order of their numbers."""
    lines = said("scontrol", "-o", "show", "job").splitlines()
    found = [_job(line) for line in lines if line.startswith("JobId=")]
    return sorted(found, key=lambda job: job.number)


def _job(line: str) -> Job:
    fields = dict(re.findall(r"(\S+?)=(\S*)", line))
    what = fields["Comment"].removeprefix("rule_")
    days, _, clock = fields["TimeLimit"].rpartition("-")
    hours, minutes, _ = clock.split(":")
    return Job(
        number=int(fields["JobId"]),
        rule=what.partition("_wildcards_")[0],
        what=what,
        state=fields["JobState"],
        mem_mb=_megabytes(fields["MinMemoryNode"]),
        minutes=60 * (24 * int(days or 0) + int(hours)) + int(minutes),
        gpus=int(re.sub(r"\D*", "", fields.get("TresPerJob", "0"))),
        partition=fields["Partition"],
        submitted=fields["SubmitTime"],
        started=fields["StartTime"],
        ended=fields["EndTime"],
        log=Path(fields["StdOut"]),
    )


def _megabytes(text: str) -> int:
    return round(float(text[:-1]) * {"M": 1, "G": 1024}[text[-1]])


@dataclass
class Story:
    """What happened, in this order."""

    workflow: Workflow
    cancelled: Outcome  # up to the trainings, which are all cancelled while one of them runs
    failed: Outcome  # everything: one job is killed for memory at first, and one training fails
    completed: Outcome  # everything, without that training


@pytest.fixture(scope="session")
def slurm(request: pytest.FixtureRequest) -> Iterator[Path]:
    if not request.config.getoption("--slurm"):
        pytest.skip("make test-slurm runs it")
    try:
        with cluster() as folder:
            yield folder
    except Unusable as reason:
        pytest.skip(f"no SLURM here: {reason}")


@pytest.fixture(scope="session")
def story(slurm: Path, tmp_path_factory: pytest.TempPathFactory) -> Story:  # noqa: ARG001
    workflow = Workflow(tmp_path_factory.mktemp("slurm"))
    small_fleet(workflow.folder / "store", hosts=("alder", "birch"))

    workflow.settings(models=["gbt", "mlp", "gru"])
    process = workflow.start("--until", "train", "--retries", "0", *WITH_GPU)
    wait_for(
        lambda: _training() or process.poll() is not None,
        "a training that runs while others wait",
        PATIENCE_S,
    )
    subprocess.run(["scancel", *(str(job.number) for job in jobs() if job.rule == "train")])
    cancelled = workflow.finish(process)

    workflow.settings(models=["gbt", "mlp", "gru"], architectures={"gru": {"nonsense": 1}})
    failed = workflow.run("--retries", "1", *WITH_GPU, TOO_LITTLE)
    workflow.settings()
    return Story(workflow, cancelled, failed, workflow.run(*WITH_GPU))


def _training() -> bool:
    states = [job.state for job in jobs() if job.rule == "train"]
    return len(states) == 3 and "RUNNING" in states
