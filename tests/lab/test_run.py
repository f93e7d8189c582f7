"""A run of the recorder with made-up episodes: slots, failures, stops, what is resumed."""

from __future__ import annotations

import fcntl
import os
import select
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from cis490.episodes.store import append
from cis490.errors import LabError
from cis490.lab import record as recorder
from cis490.lab.episode import Recorded
from cis490.lab.hosts import Host
from cis490.lab.record import Child, Run, missing
from cis490.lab.schedule import EpisodePlan
from cis490.logs import logger

HOST = Host("oak", "q35", "max", 128, 1, "writeback")


def plan(number):
    return EpisodePlan(
        number=number,
        episode_id=f"{number:020x}",
        seed=1,
        host=HOST,
        profile="none",
        sample_name="none",
        pace=1.0,
        duration_s=8.0,
        preroll_s=1.0,
        wait_s=0.0,
        phases=(),
        jobs=(),
        salt="ab",
    )


PLANS = [plan(number) for number in range(6)]


def good(plan, slot, folder):
    (folder / "disk").write_text("used")
    return Recorded(f"{plan.number} in {slot}".encode(), 0.1, 10.0)


class Store:
    def __init__(self, folder):
        self.folder = folder
        self.scratch = folder / "scratch"
        self.scratch.mkdir()
        self.got = {}

    def run(self, play=good, plans=PLANS, *, parallel=2, stopped=lambda: False, **options):
        run = Run(play, self.take, self.scratch, parallel, **options)
        run.go(plans, stopped)
        return run

    def take(self, plan, content):
        self.got[plan.number] = content


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path)


def test_all_plans_are_played_in_their_slots_and_nothing_is_left(store):
    run = store.run()
    assert sorted(store.got) == list(range(6))
    assert {content.split()[-1] for content in store.got.values()} <= {b"0", b"1"}
    assert (run.done, run.failed) == (6, 0)
    assert list(store.scratch.iterdir()) == []


def test_slots_work_side_by_side(store):
    def slow(plan, slot, folder):
        time.sleep(0.5)
        return good(plan, slot, folder)

    began = time.monotonic()
    store.run(slow, parallel=6)
    assert time.monotonic() - began < 2.5


def test_a_slot_waits_before_its_nth_episode_as_it_is_told(store):
    waits = []

    def stagger(slot, nth):
        waits.append((slot, nth))
        return 0.0 if nth else 0.3

    began = time.monotonic()
    store.run(stagger_s=stagger)
    assert len(waits) == len(set(waits)) == 6
    assert {(0, 0), (1, 0)} < set(waits)
    assert time.monotonic() - began >= 0.3


def failing(*numbers, times=9):
    def play(plan, slot, folder):
        tries = folder.parent.parent / f"tries-{plan.number}"
        tried = len(tries.read_text()) if tries.exists() else 0
        tries.write_text("x" * (tried + 1))
        if plan.number in numbers and tried < times:
            raise LabError("the guest died: QEMU ended with -9")
        return good(plan, slot, folder)

    return play


def test_an_episode_that_fails_once_is_tried_again(store, caplog):
    logger.handlers[:] = []
    run = store.run(failing(2, times=1))
    assert sorted(store.got) == list(range(6))
    assert run.failed == 0
    assert "episode 2 (oak none none) in slot" in caplog.text
    assert "tried once more: the guest died: QEMU ended with -9" in caplog.text


def test_an_episode_that_fails_twice_is_left_out_and_said_at_the_end(store):
    with pytest.raises(LabError, match=r"5 of 6 episodes recorded.*1 failed; the same command"):
        store.run(failing(2), parallel=3)
    assert sorted(store.got) == [0, 1, 3, 4, 5]
    assert (store.folder / "tries-2").read_text() == "xx"


def test_three_failures_in_a_row_end_the_run_with_the_reason(store):
    with pytest.raises(LabError, match="3 failures in a row, the last: the guest died: QEMU ended"):
        store.run(failing(*range(6)))
    assert store.got == {}
    assert list(store.scratch.iterdir()) == []


def test_a_success_between_failures_ends_the_row(store):
    with pytest.raises(LabError, match="3 of 6 episodes recorded"):
        store.run(failing(0, 2, 4), parallel=1)
    assert sorted(store.got) == [1, 3, 5]


def test_an_error_in_our_own_code_is_a_failure_with_its_place(store, caplog):
    def broken(*_):
        return {}["nothing"]

    logger.handlers[:] = []
    with pytest.raises(LabError, match="3 failures in a row"):
        store.run(broken)
    assert "KeyError: 'nothing'" in caplog.text


def test_a_slot_that_is_killed_is_a_failure(store, caplog):
    def killed(plan, slot, folder):
        if plan.number == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        return good(plan, slot, folder)

    logger.handlers[:] = []
    with pytest.raises(LabError, match="5 of 6 episodes recorded"):
        store.run(killed, parallel=3)
    assert "its process was killed" in caplog.text


def test_a_stop_abandons_what_is_under_way(store):
    def slow(plan, slot, folder):
        if plan.number > 1:
            time.sleep(60)
        return good(plan, slot, folder)

    began = time.monotonic()
    with pytest.raises(LabError, match=r"stopped: 2 of 6 episodes recorded.*goes on from there"):
        store.run(slow, stopped=lambda: len(store.got) == 2)
    assert time.monotonic() - began < 20
    assert list(store.scratch.iterdir()) == []


def test_a_store_that_refuses_ends_the_run_and_its_slots(store):
    def refuse(*_):
        raise LabError("disk full")

    store.take = refuse
    with pytest.raises(LabError, match="disk full"):
        store.run()
    assert list(store.scratch.iterdir()) == []


def test_progress_tells_how_far_how_fast_and_how_long(store, caplog):
    caplog.set_level("INFO", logger="cis490")
    logger.handlers[:] = []
    store.run(live=True)
    assert "6/6 episodes" in caplog.text
    assert "an hour, under a minute left" in caplog.text


def test_episodes_in_the_store_are_not_recorded_again(tmp_path):
    store = tmp_path / "store"
    assert missing(store, PLANS) == PLANS
    store.mkdir()
    assert missing(store, PLANS) == PLANS
    (store / "index.jsonl").touch()
    assert missing(store, PLANS) == PLANS
    for number in (0, 3, 4):
        append(store, "oak", PLANS[number].episode_id, b"content")
    (store / f"oak/{PLANS[4].episode_id}.tar.zst").unlink()
    with (store / "index.jsonl").open("a") as index:
        index.write(f'{{"schema_version":1,"episode_id":"{PLANS[5].episode_id}"')
    assert [each.number for each in missing(store, PLANS)] == [1, 2, 4, 5]


def test_a_second_recorder_on_a_store_is_refused(tmp_path):
    with (
        recorder._alone(tmp_path),
        pytest.raises(LabError, match="another cis490 lab record is at work"),
        recorder._alone(tmp_path),
    ):
        pass
    with recorder._alone(tmp_path):
        pass


def test_folders_of_dead_runs_are_removed_and_those_of_living_ones_stay(tmp_path):
    dead, alive = tmp_path / "dead", tmp_path / "alive"
    for folder in (dead, alive):
        (folder / "0-e1-1").mkdir(parents=True)
        (folder / "0-e1-1/disk").write_text("x")
        (folder / "lock").touch()
    (tmp_path / "never locked").mkdir()
    with (alive / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with recorder._run_folder(tmp_path) as mine:
            assert mine.is_dir()
            assert {each.name for each in tmp_path.iterdir()} == {"alive", "lock", mine.name}
    assert not mine.exists()


def test_a_cache_that_cannot_be_written_is_said(tmp_path):
    (tmp_path / "file").touch()
    with (
        pytest.raises(LabError, match=r"cannot write to .*set --cache"),
        recorder._run_folder(tmp_path / "file/runs"),
    ):
        pass


def test_a_large_answer_of_a_child_arrives_whole():
    child = Child(lambda: b"x" * 5_000_000)
    try:
        assert child.result() == b"x" * 5_000_000
    finally:
        child.end()


def as_script(body, *arguments, **options):
    """Start Python of its own: what a forked child does wrong would go on with these tests."""
    root = Path(__file__).parents[2]
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(body), *arguments],
        stdout=subprocess.PIPE,
        text=True,
        cwd=root,
        env={**os.environ, "PYTHONPATH": f"{root / 'src'}:{root}"},
        **options,
    )


@pytest.mark.parametrize(
    ("work", "pause_s"),
    [
        pytest.param("time.sleep(60)", 0.0, id="not begun"),
        pytest.param("time.sleep(60)", 0.3, id="at work"),
        pytest.param("return b'x' * 5_000_000", 0.3, id="handing back more than a pipe holds"),
        pytest.param("raise LabError('x' * 5_000_000)", 0.3, id="failing"),
    ],
)
def test_a_child_that_is_asked_to_end_never_goes_on_as_its_parent(work, pause_s):
    script = f"""
        import os, signal, time
        from cis490.errors import LabError
        from cis490.lab.record import Child

        def raises(*_):
            raise KeyboardInterrupt

        def work():
            {work}

        signal.signal(signal.SIGTERM, raises)
        try:
            child = Child(work)
        except BaseException as error:
            print("a child went on:", repr(error), flush=True)
            os._exit(1)
        time.sleep({pause_s})
        began = time.monotonic()
        child.ask_to_end()
        child.end()
        print("ended at once" if time.monotonic() - began < 4 else "ended only when killed")
        signal.raise_signal(signal.SIGTERM)  # the parent's own handler is as it was
    """
    with as_script(script, stderr=subprocess.PIPE) as run:
        out, errors = run.communicate(timeout=60)
    assert out == "ended at once\n"
    assert errors.endswith("KeyboardInterrupt\n")


def test_slots_die_with_a_killed_recorder_and_the_next_one_cleans_up(tmp_path):
    script = """
        import os, sys, time
        from pathlib import Path
        from cis490.lab import record as recorder
        from tests.lab.test_run import PLANS, Run

        def play(plan, slot, folder):
            print(os.getpid(), flush=True)
            time.sleep(60)

        with recorder._run_folder(Path(sys.argv[1])) as folder:
            Run(play, None, folder, 2).go(PLANS, lambda: False)
    """
    run = as_script(script, str(tmp_path))
    with run.stdout:
        slots = [os.pidfd_open(int(run.stdout.readline())) for _ in range(2)]
    run.kill()
    run.wait()
    for slot in slots:
        assert select.select([slot], [], [], 10)[0], "a slot lives on"
        os.close(slot)
    (left,) = [each for each in tmp_path.iterdir() if each.is_dir()]
    with recorder._run_folder(tmp_path):
        assert not left.exists()
