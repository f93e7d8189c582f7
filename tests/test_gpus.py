"""Cards are faked by a `nvidia-smi` of our own; who gets which is decided by real processes."""

import os
import signal
import subprocess
import sys
import uuid
from collections import Counter

import pytest

from cis490 import gpus
from tests.conftest import ROOT

# Takes a card as a job of the workflow does, says which, and keeps it until its input is closed.
JOB = """
import signal, sys, types
signal.alarm(120)  # so that a test fails and does not hang
from cis490.logs import job
slots, log, wanted = int(sys.argv[1]), sys.argv[2], int(sys.argv[3])
snakemake = types.SimpleNamespace(
    resources={"gpu": wanted, "mem_mb": 1}, config={"training": {"gpu_slots": slots}}
)
with job(log):
    import os
    assert "torch" not in sys.modules
    print(os.environ.get("CUDA_VISIBLE_DEVICES"), flush=True)
    sys.stdin.read()
"""


class Machine:
    """A machine with some cards; what runs on it is killed at the end."""

    def __init__(self, folder, n_cards):
        self.folder, self.jobs = folder, []
        self.cards = [f"GPU-{uuid.uuid4()}" for _ in range(n_cards)]
        self.lists("".join(f"GPU {i}: H (UUID: {c})\n" for i, c in enumerate(self.cards)))

    def lists(self, text):
        smi = self.folder / "nvidia-smi"
        smi.write_text(f"#!/bin/sh\ncat <<'END'\n{text}END\n")
        smi.chmod(0o755)

    def start(self, slots=1, wanted=1, **environment):
        plain = {k: v for k, v in os.environ.items() if k != "CUDA_VISIBLE_DEVICES"}
        job = subprocess.Popen(
            [
                sys.executable,
                "-c",
                JOB,
                str(slots),
                self.folder / f"{len(self.jobs)}.log",
                str(wanted),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=plain
            | {"PATH": f"{self.folder}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT / "src")}
            | environment,
        )
        self.jobs.append(job)
        return job

    @staticmethod
    def card(job):
        return job.stdout.readline().strip()

    @staticmethod
    def waits(job):
        return "waits for a GPU" in job.stderr.readline()


@pytest.fixture
def machine(tmp_path):
    machines = []

    def make(n_cards):
        machines.append(Machine(tmp_path, n_cards))
        return machines[-1]

    yield make
    for job in (job for machine in machines for job in machine.jobs):
        job.kill()
        job.wait()
        for pipe in (job.stdin, job.stdout, job.stderr):
            pipe.close()


def test_jobs_that_start_at_once_get_a_card_each_and_the_next_waits_for_one(machine):
    box = machine(3)
    jobs = [box.start() for _ in range(3)]
    got = [box.card(job) for job in jobs]
    assert sorted(got) == sorted(box.cards)
    late = box.start()
    assert box.waits(late)
    jobs[1].stdin.close()  # ends as a job does that is done
    assert box.card(late) == got[1]
    assert jobs[1].wait() == 0


def test_the_card_of_a_killed_job_is_free(machine):
    box = machine(1)
    first = box.start()
    assert box.card(first) == box.cards[0]
    second = box.start()
    assert box.waits(second)
    first.send_signal(signal.SIGKILL)
    assert box.card(second) == box.cards[0]


def test_no_more_jobs_than_slots_share_a_card_and_they_spread_before_they_share(machine):
    box = machine(2)
    first = [box.start(slots=2) for _ in range(2)]
    assert sorted(map(box.card, first)) == sorted(box.cards)
    more = [box.start(slots=2) for _ in range(2)]
    assert sorted(map(box.card, more)) == sorted(box.cards)
    late = box.start(slots=2)
    assert box.waits(late)
    first[0].kill()
    assert box.card(late) in box.cards


def test_of_jobs_that_start_at_once_never_more_than_slots_have_one_card(machine):
    box = machine(2)
    jobs = [box.start(slots=3) for _ in range(6)]
    assert Counter(map(box.card, jobs)) == dict.fromkeys(box.cards, 3)


@pytest.mark.parametrize("told", ["0", "1", "GPU-of-somebody", "", "-1"])
def test_a_card_that_was_assigned_already_stays_and_is_not_waited_for(machine, told):
    box = machine(1)
    jobs = [box.start(CUDA_VISIBLE_DEVICES=told) for _ in range(2)]
    assert [box.card(job) for job in jobs] == [told, told]


def test_of_several_cards_assigned_each_job_takes_one_of_its_own(machine):
    box = machine(4)
    names = [f"GPU-{uuid.uuid4()}" for _ in range(2)]
    jobs = [box.start(CUDA_VISIBLE_DEVICES=", ".join(names)) for _ in range(2)]
    assert sorted(map(box.card, jobs)) == sorted(names)


def test_card_0_of_one_slurm_job_is_not_card_0_of_another(machine):
    box = machine(0)
    told = {"CUDA_VISIBLE_DEVICES": "0,1"}
    ids = [str(uuid.uuid4()), str(uuid.uuid4())]
    jobs = [box.start(SLURM_JOB_ID=id_, **told) for id_ in ids for _ in range(2)]
    assert [sorted(map(box.card, jobs[:2])), sorted(map(box.card, jobs[2:]))] == [["0", "1"]] * 2


def test_a_job_that_uses_no_gpu_takes_none(machine):
    box = machine(1)
    assert box.card(box.start()) == box.cards[0]
    assert box.card(box.start(wanted=0)) == "None"


def test_a_machine_without_cards_needs_nothing(machine, tmp_path):
    box = machine(0)
    assert box.card(box.start()) == "None"
    (tmp_path / "nvidia-smi").unlink()
    assert box.card(box.start()) == "None"


def test_parts_of_a_divided_card_are_cards(machine):
    box = machine(0)
    whole, divided, *parts = (uuid.uuid4() for _ in range(4))
    box.lists(
        f"GPU 0: NVIDIA H100 80GB HBM3 (UUID: GPU-{whole})\n"
        f"GPU 1: NVIDIA H100 80GB HBM3 (UUID: GPU-{divided})\n"
        f"  MIG 3g.40gb     Device  0: (UUID: MIG-{parts[0]})\n"
        f"  MIG 3g.40gb     Device  1: (UUID: MIG-{parts[1]})\n"
    )
    jobs = [box.start() for _ in range(3)]
    expected = sorted([f"GPU-{whole}", f"MIG-{parts[0]}", f"MIG-{parts[1]}"])
    assert sorted(map(box.card, jobs)) == expected


def test_slots_in_use_are_told_for_the_doctor(machine):
    box = machine(1)
    assert f"{box.cards[0]}/0" not in gpus.taken()
    box.card(box.start())
    assert f"{box.cards[0]}/0" in gpus.taken()
