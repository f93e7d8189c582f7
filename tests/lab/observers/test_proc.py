"""Reading /proc: a made-up process, and this one."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from cis490.channels import of_source
from cis490.lab.observers.proc import Proc

STAT = (
    "7 (qemu (x) y) S 1 7 7 0 -1 4194624 {minflt} 0 3 0 {utime} {stime} 0 0 20 0 {threads} 0 "
    "1000 500000000 {rss} 18446744073709551615 1 1 0 0 0 0 0\n"
)
IO = "rchar: 11\nwchar: 12\nsyscr: 13\nsyscw: 14\nread_bytes: 15\nwrite_bytes: 16\n"
STATUS = "Name:\tqemu\nvoluntary_ctxt_switches:\t{}\nnonvoluntary_ctxt_switches:\t{}\n"


def open_files():
    return len(list(Path("/proc/self/fd").iterdir()))


class Process:
    def __init__(self, root):
        self.folder = root / "7"
        (self.folder / "task").mkdir(parents=True)
        self.write()
        (self.folder / "statm").write_text("120000 60000 5000 1 0 90000 0\n")
        (self.folder / "io").write_text(IO)

    def write(self, **values):
        numbers = {"minflt": 9, "utime": 21, "stime": 22, "threads": 2, "rss": 60000, **values}
        (self.folder / "stat").write_text(STAT.format(**numbers))

    def thread(self, tid, run, wait, voluntary, involuntary):
        folder = self.folder / f"task/{tid}"
        folder.mkdir(exist_ok=True)
        (folder / "schedstat").write_text(f"{run} {wait} 5\n")
        (folder / "status").write_text(STATUS.format(voluntary, involuntary))


@pytest.fixture
def process(tmp_path):
    process = Process(tmp_path)
    process.thread(7, 100, 10, 3, 4)
    process.thread(8, 1000, 20, 5, 6)
    return process


def test_a_look_gives_the_channels_and_sums_over_threads(process, tmp_path):
    proc = Proc(7, str(tmp_path))
    assert proc.look() == {
        **{"utime_ticks": 21, "stime_ticks": 22, "minflt": 9, "threads": 2},
        "rss_bytes": 60000 * os.sysconf("SC_PAGE_SIZE"),
        **{"rchar": 11, "wchar": 12, "write_bytes": 16},
        **{"run_ns": 1100, "wait_ns": 30, "vol_ctxt": 8, "nonvol_ctxt": 10},
    }
    process.write(utime=50)
    process.thread(8, 3000, 21, 5, 7)
    look = proc.look()
    assert (look["utime_ticks"], look["run_ns"], look["nonvol_ctxt"]) == (50, 3100, 11)
    proc.close()


def test_a_thread_that_begins_is_counted_and_files_are_closed_at_the_end(process, tmp_path):
    before = open_files()
    proc = Proc(7, str(tmp_path))
    proc.look()
    process.thread(9, 5, 5, 5, 5)
    assert proc.look()["run_ns"] == 1105
    proc.close()
    assert open_files() == before


def test_the_channels_are_those_of_the_format_in_its_order():
    proc = Proc(os.getpid())
    assert list(proc.look()) == [channel.name for channel in of_source("proc")]
    proc.close()


def test_counters_never_go_back_when_a_thread_ends():
    proc = Proc(os.getpid())
    go, over = threading.Event(), threading.Event()

    def work():
        sum(range(2_000_000))
        go.set()
        over.wait()

    thread = threading.Thread(target=work)
    thread.start()
    go.wait()
    while_alive = proc.look()
    over.set()
    thread.join()
    after = proc.look()
    for name in ("run_ns", "wait_ns", "vol_ctxt", "nonvol_ctxt"):
        assert after[name] >= while_alive[name]
    proc.close()


def test_a_process_that_is_gone_is_an_error():
    child = os.fork()
    if child == 0:
        os._exit(0)
    os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)
    proc = Proc(child)
    os.waitpid(child, 0)
    with pytest.raises(OSError, match="No such process"):
        proc.look()
    proc.close()
