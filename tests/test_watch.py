"""A watch is a process of its own here, for signals, and runs a script in Snakemake's place."""

import json
import os
import queue
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import pytest

from cis490 import cli, runlock
from cis490.errors import ConfigError
from cis490.watch import Pace, directory_of, snakemake, why
from tests.conftest import ROOT

DRIVER = """
import sys
from pathlib import Path
from cis490.watch import Pace, Watch
store, folder, script, once, pace = sys.argv[1:6]
say = lambda text: print(text, flush=True)
watch = Watch(Path(store), [sys.executable, script], Path(folder), eval(pace), say)
sys.exit(watch.once() if once == "once" else watch.follow())
"""
COUNTS = "open('runs', 'a').write('x')\n"
PATIENT_S = 30  # for an event that must come


class Live:
    """A watch at work, and what it says."""

    def __init__(self, store, folder, script, once="", **pace):
        (folder / "run.py").write_text(textwrap.dedent(script))
        pace = Pace(**{"still_s": 0.2, "retry_s": 0.2, "grace_s": 5.0} | pace)
        self.folder = folder
        self.process = subprocess.Popen(
            [
                *(sys.executable, "-c", DRIVER),
                *(str(store.folder), str(folder), str(folder / "run.py"), once, repr(pace)),
            ],
            cwd=folder,
            env=os.environ | {"PYTHONPATH": f"{ROOT / 'src'}"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.said, self._lines = [], queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self):
        for line in self.process.stdout:
            self._lines.put(line.rstrip("\n"))
        self._lines.put(None)

    def until(self, text):
        """Wait until a line with `text` is said, and return it."""
        end = time.monotonic() + PATIENT_S
        while True:
            try:
                line = self._lines.get(timeout=max(end - time.monotonic(), 0.01))
            except queue.Empty:
                raise AssertionError(f"{text!r} was not said; {self.said}") from None
            assert line is not None, f"ended without {text!r}: {self.said}"
            self.said.append(line)
            if text in line:
                return line

    def runs(self):
        path = self.folder / "runs"
        return len(path.read_text()) if path.exists() else 0

    def stop(self, number=signal.SIGTERM):
        self.process.send_signal(number)
        return self.end()

    def end(self):
        code = self.process.wait(timeout=PATIENT_S)
        while (line := self._lines.get(timeout=PATIENT_S)) is not None:
            self.said.append(line)
        return code


@pytest.fixture
def watch(store, tmp_path):
    started = []

    def start(script=COUNTS, once="", **pace):
        started.append(Live(store, tmp_path, script, once, **pace))
        return started[-1]

    yield start
    for live in started:
        live.process.kill()
        live.process.wait()


@pytest.fixture
def filled(store):
    store.put("alder", "e0", b"content")
    return store


def eventually(condition):
    end = time.monotonic() + PATIENT_S
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def alive(pid):
    """Whether a process runs; one that nobody has asked for its code yet does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_it_runs_at_the_start_and_once_for_each_night_and_stops_with_code_0(filled, watch):
    live = watch()
    assert "1 new episode: running the workflow" in live.until("running")
    live.until("done after")
    for night in range(2):
        for i in range(3):
            filled.put("alder", f"n{night}{i}", b"content")
        live.until("the index has changed; waiting until it is still")
        assert "3 new episodes" in live.until("running")
        live.until("done after")
    assert live.stop() == 0
    assert live.said[-1] == "stopped"
    assert live.runs() == 3


def test_an_index_that_moves_is_waited_for_but_not_for_ever(filled, watch):
    live = watch(still_s=600, patience_s=0.5)
    live.until("done after")  # it moved at no time before the start, yet is younger than that
    filled.put("alder", "e1", b"content")
    live.until("waiting until it is still for 10 min 00 s")
    live.until("1 new episode: running")
    live.stop()


def test_a_torn_line_is_no_arrival_until_it_is_whole(filled, watch):
    live = watch()
    live.until("done after")
    (filled.folder / "alder/e1.tar.zst").write_bytes(b"content")
    record = json.dumps(
        {
            **{"schema_version": 1, "episode_id": "e1", "host_id": "alder"},
            **{"path": "alder/e1.tar.zst", "sha256": "0" * 64, "size_bytes": 7},
            "received_wall_ns": 1,
        }
    )
    filled.append_line(record[:40])
    live.until("the index has changed")
    time.sleep(1)
    assert live.runs() == 1
    filled.append_line(record[40:] + "\n")
    live.until("1 new episode: running")
    live.until("done after")
    live.stop()
    assert live.runs() == 2


def test_an_episode_arrives_when_its_file_does(filled, watch):
    live = watch()
    live.until("done after")
    path = filled.folder / "alder/e1.tar.zst"
    filled.put("alder", "e1", b"content")
    path.rename(path.with_suffix(".part"))
    assert "1 file not there, such as alder/e1.tar.zst" in live.until("the index names")
    assert live.runs() == 1
    path.with_suffix(".part").rename(path)
    live.until("1 new episode: running")
    live.stop()


@pytest.mark.usefixtures("filled")
def test_a_failed_run_is_told_with_its_reason_tried_again_and_no_end_of_the_watch(watch):
    script = COUNTS + "import os, sys; os.path.exists('mended') or sys.exit('error: no disk')"
    live = watch(script)
    line = live.until("failed after")
    assert "(exit code 1): error: no disk; see " in line
    log = Path(line.rsplit("see ")[1])
    assert (live.folder / log).read_text().strip() == "error: no disk"
    live.until("next try in 0.2 s")
    live.until("trying again: running")
    live.until("failed after")
    (live.folder / "mended").touch()
    live.until("done after")
    before = live.runs()
    time.sleep(1)
    assert live.runs() == before, "what has succeeded is not tried again"
    live.stop()


def test_a_store_that_vanishes_is_waited_for(filled, watch):
    live = watch()
    live.until("done after")
    away = filled.folder.with_name("away")
    filled.folder.rename(away)
    assert "No such file" in live.until("cannot be read")
    time.sleep(0.5)
    away.rename(filled.folder)
    live.until("is back")
    filled.put("alder", "e1", b"content")
    live.until("1 new episode: running")
    live.stop()
    assert sum("cannot be read" in line for line in live.said) == 1


def test_a_store_that_is_not_there_yet_or_empty_is_waited_for(store, watch):
    away = store.folder.with_name("away")
    store.folder.rename(away)
    live = watch()
    live.until("cannot be read: No such file")
    away.rename(store.folder)
    live.until("cannot be read: store")
    store.put("alder", "e1", b"content")
    live.until("1 new episode: running")
    live.stop()


GRACEFUL = """
    import os, signal, subprocess, sys, time
    job = subprocess.Popen([sys.executable, "-c", {job!r}])
    signal.signal(signal.SIGTERM, lambda *_: open("asked", "w").close())
    open("job", "w").write(str(job.pid))
    try:
        code = job.wait()
    except KeyboardInterrupt:
        open("interrupted", "w").close()
        code = job.wait()
    sys.exit(code)
"""


@pytest.mark.usefixtures("filled")
def test_a_stop_lets_running_jobs_end_and_starts_nothing_more(watch):
    job = "import os, time\nwhile not os.path.exists('asked'): time.sleep(.05)\nopen('ended', 'w')"
    live = watch(GRACEFUL.format(job=job))
    eventually((live.folder / "job").exists)
    assert live.stop() == 0
    assert (live.folder / "ended").exists()
    assert not (live.folder / "interrupted").exists()
    eventually(lambda: not alive(int((live.folder / "job").read_text())))


@pytest.mark.parametrize("ignores", ["pass", "signal.signal(signal.SIGINT, signal.SIG_IGN)"])
@pytest.mark.usefixtures("filled")
def test_jobs_that_do_not_end_are_interrupted_and_then_killed(watch, ignores, monkeypatch):
    job = f"import signal, time\n{ignores}\nopen('up', 'w').close()\ntime.sleep(600)"
    script = "import cis490.watch as w; w._CANCEL_S = 0.5\n" + DRIVER
    monkeypatch.setattr(sys.modules[__name__], "DRIVER", script)
    live = watch(GRACEFUL.format(job=job), grace_s=0.3)
    eventually((live.folder / "up").exists)
    assert live.stop() == 0
    assert (live.folder / "interrupted").exists()
    assert "interrupting the jobs that still run" in "\n".join(live.said)
    eventually(lambda: not alive(int((live.folder / "job").read_text())))


@pytest.mark.usefixtures("filled")
def test_a_second_signal_waits_for_no_job(watch):
    live = watch(GRACEFUL.format(job="import time; time.sleep(600)"), grace_s=600)
    eventually((live.folder / "job").exists)
    live.process.send_signal(signal.SIGINT)
    live.until("stopping")
    assert live.stop(signal.SIGINT) == 0
    eventually(lambda: not alive(int((live.folder / "job").read_text())))


@pytest.mark.skipif(
    sys.platform != "linux", reason="only Linux tells a child of its parent's death"
)
@pytest.mark.usefixtures("filled")
def test_a_killed_watch_takes_its_run_along(watch):
    live = watch(GRACEFUL.format(job="import time; time.sleep(600)"))
    eventually((live.folder / "job").exists)
    live.process.kill()
    try:
        eventually((live.folder / "asked").exists)
    finally:
        os.kill(int((live.folder / "job").read_text()), signal.SIGKILL)


@pytest.mark.usefixtures("filled")
def test_what_a_run_leaves_behind_is_ended_with_it(watch):
    script = """
        import subprocess, sys
        job = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
        open("job", "w").write(str(job.pid))
    """
    live = watch(script)
    live.until("done after")
    eventually(lambda: not alive(int((live.folder / "job").read_text())))
    live.stop()


@pytest.mark.usefixtures("filled")
def test_two_watches_are_refused_and_cron_leaves_the_work_to_the_one(watch):
    live = watch()
    live.until("done after")
    second = watch()
    second.until(f"another cis490 watch is at work in {second.folder}, process {live.process.pid}")
    assert second.process.wait(PATIENT_S) == 1
    cron = watch(once="once")
    assert cron.end() == 0
    assert cron.said == [f"left to another cis490 watch (process {live.process.pid})"]
    live.stop()
    assert live.runs() == 1
    after = watch(once="once")
    assert after.end() == 0
    assert after.runs() == 2


@pytest.mark.usefixtures("filled")
def test_a_run_by_hand_is_waited_for(watch, tmp_path):
    by_hand = runlock.claim(tmp_path / ".snakemake")
    live = watch()
    live.until("another run is at work here; waiting for its end")
    time.sleep(0.5)
    assert live.runs() == 0
    by_hand.close()
    live.until("done after")
    live.stop()
    assert sum("another run" in line for line in live.said) == 1


@pytest.mark.usefixtures("filled")
def test_once_runs_when_the_index_is_still_and_gives_the_codes_of_the_run(watch, store):
    assert watch(once="once").end() == 0
    assert watch("import sys; sys.exit(3)", once="once").end() == 3
    slow = watch(once="once", still_s=600)
    time.sleep(1)
    assert slow.stop() == 0
    assert slow.said == []
    (store.folder / "index.jsonl").unlink()
    gone = watch(once="once")
    assert gone.end() == 1
    assert "cannot read index.jsonl (No such file" in "\n".join(gone.said)


@pytest.mark.usefixtures("filled")
def test_once_runs_on_an_index_that_never_is_still(watch):
    live = watch(once="once", still_s=600, patience_s=0.3)
    assert live.end() == 0
    assert live.runs() == 1


def test_logs_of_runs_do_not_pile_up(filled, watch):
    logs = filled.folder.parent / "results/logs/watch"
    logs.mkdir(parents=True)
    for i in range(150):
        (logs / f"20200101T000000.{i:06d}Z.log").touch()
    watch(once="once").end()
    assert len(list(logs.iterdir())) == 100


@pytest.mark.usefixtures("filled")
def test_a_disk_that_takes_no_log_is_a_failed_run(watch, tmp_path):
    (tmp_path / "results").write_text("in the way")
    live = watch()
    live.until("the workflow cannot be run:")
    live.until("next try")
    assert live.stop() == 0


def test_the_command_takes_store_config_and_options_of_snakemake(tmp_path):
    def command(*options, config=None):
        return snakemake(Path("/data/a: b"), config, options)[3:]

    store = 'store="/data/a: b"'
    assert command() == [
        *("--config", store, "--rerun-incomplete"),
        *("--cores", "all", "--resources", "gpu=1"),
    ]
    assert command("report", "--cores", "4", config=tmp_path / "c.yaml") == [
        *("--config", store, "--configfile", str(tmp_path / "c.yaml"), "--rerun-incomplete"),
        *("report", "--cores", "4"),
    ]
    # Snakemake takes the last --config alone.
    assert command("--cores", "4", "--config", "seeds=[1]") == [
        *("--rerun-incomplete", "--cores", "4", "--config", store, "seeds=[1]")
    ]
    for option in ("--configfile", "--configfiles=x"):
        with pytest.raises(ConfigError, match="stands before the --"):
            command(option, "x")
    assert directory_of(["--cores", "2", "-d", "x"]) == Path("x")
    assert directory_of(["--cores", "2", "--directory=y z"]) == Path("y z")
    assert directory_of(["--cores", "2"]) == Path()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--still", "-1"], "argument --still: '-1' is no number of seconds"),
        (["--still", "soon"], "'soon' is no number of seconds"),
        (["--retry", "inf"], "'inf' is no number of seconds"),
        (["more"], "unrecognized arguments: more"),
    ],
)
def test_a_wrong_option_is_refused(store, arguments, message, capsys):
    with pytest.raises(SystemExit) as done:
        cli.main(["watch", str(store.folder), *arguments])
    assert done.value.code == 2
    assert message in capsys.readouterr().err


def test_a_wrong_setting_is_said_before_the_night(store, tmp_path):
    (tmp_path / "c.yaml").write_text("splitt: {}\n")
    with pytest.raises(SystemExit) as done:
        cli.main(["watch", str(store.folder), "--configfile", str(tmp_path / "c.yaml"), "--once"])
    assert "unknown key splitt; did you mean split" in str(done.value.code)


@pytest.mark.parametrize(
    ("log", "reason"),
    [
        ("", "it said nothing"),
        ("error: config: x\n", "error: config: x"),
        (
            "Error in rule train:\n  x\nError in rule train:\nError in rule tune:\n\nend",
            "in rule train, tune",
        ),
        ("train/x\nerror: no GPU\nError in rule train:\nend\n", "in rule train: error: no GPU"),
        ("IncompleteFiles\nlast\n\n", "last"),
    ],
)
def test_the_reason_of_a_failed_run_is_one_line(tmp_path, log, reason):
    (tmp_path / "log").write_text(log)
    assert why(tmp_path / "log") == reason
