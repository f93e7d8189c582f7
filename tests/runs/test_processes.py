import os
import signal
import subprocess
import sys
import time
from collections import Counter

import pytest

pytest.importorskip("psutil")

from cis490.runs.processes import Processes

# Below a shell, as Snakemake's jobs are; it holds its log open, takes memory, and a process of its
# own, which has ended, computed.
WORK = """
import subprocess, sys, time
log = open(sys.argv[1], "w")
held = bytearray(60 * 2**20)
compute = "import time\\nwhile time.process_time() < 0.5: pass"
subprocess.run([sys.executable, "-c", compute], check=True)
log.write("ready\\n"); log.flush()
time.sleep(60)
"""


@pytest.fixture
def jobs(tmp_path):
    running = []

    def start(name):
        log = tmp_path / f"{name}.log"
        command = f'"{sys.executable}" -c "$0" "$1"; true'
        running.append(
            subprocess.Popen(["bash", "-c", command, WORK, str(log)], start_new_session=True)
        )
        deadline = time.monotonic() + 30
        while not (log.exists() and log.read_text()) and time.monotonic() < deadline:
            time.sleep(0.05)
        return log

    yield start
    for process in running:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def look(processes, logs):
    processes._next = 0.0
    processes.look(logs)
    return processes.usage


def test_memory_and_processor_time_are_those_of_the_process_that_holds_the_log(jobs, tmp_path):
    logs = {1: jobs("a"), 2: jobs("b"), 3: tmp_path / "of_no_process.log"}
    usage = look(Processes(), logs)
    assert usage.keys() == {1, 2}
    for job in (1, 2):
        assert 60 * 2**20 < usage[job].bytes < 120 * 2**20
        assert usage[job].peak_bytes == usage[job].bytes
        assert 0.5 <= usage[job].cpu_seconds < 5


def test_a_job_that_ended_is_forgotten(jobs):
    processes, log = Processes(), jobs("a")
    assert look(processes, {1: log})
    assert look(processes, {}) == {}


def test_a_process_without_a_log_is_let_be_after_some_looks(jobs, monkeypatch):
    jobs("a")
    processes, asked = Processes(), []
    recognise = processes._recognise
    monkeypatch.setattr(processes, "_recognise", lambda *a: asked.append(a[0]) or recognise(*a))
    for _ in range(50):
        assert look(processes, {1: "/elsewhere.log"}) == {}
    assert asked
    assert max(Counter(asked).values()) < 50  # each: other tests may have left children of theirs


def test_looking_too_often_is_left_out(jobs):
    processes, log = Processes(), jobs("a")
    look(processes, {1: log})
    before = processes.usage[1].bytes
    processes.usage[1].bytes = -1
    processes.look({1: log})
    assert processes.usage[1].bytes == -1 != before
