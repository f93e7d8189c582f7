"""Two short episodes for real: QEMU, its network and observers, judged as any episode is."""

from __future__ import annotations

import hashlib
import os
import select
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import msgspec
import pytest

from cis490.channels import SAMPLED, of_source
from cis490.episodes import tarball
from cis490.episodes.store import read_index
from cis490.episodes.tarball import Limits
from cis490.episodes.validate import Entry, examine
from cis490.errors import LabError
from cis490.lab import image as images
from cis490.lab import machine
from cis490.lab import record as recorder
from cis490.lab.episode import Setting, boots
from cis490.lab.hosts import read_hosts
from cis490.lab.record import Child, check_network, record
from cis490.lab.schedule import EpisodePlan, Job

ROOT = Path(__file__).parents[2]
LIMITS = Limits()
SECONDS = 10.0


def plans():
    hosts = {each.host_id: each for each in read_hosts()}
    shared = {"seed": 5, "pace": 1.5, "duration_s": SECONDS, "wait_s": 0.0}
    return [
        EpisodePlan(
            number=0,
            episode_id="0" * 19 + "1",
            host=hosts["alder"],
            profile="scan-and-dial",
            sample_name="scan-a",
            preroll_s=5.0,
            phases=(
                (-3.0, "armed"),
                (1.0, "infecting"),
                (3.0, "infected_running"),
                (8.0, "dormant"),
            ),
            jobs=(Job("office", -4.0, 5.0, 1.2),),
            salt="one",
            **shared,
        ),
        EpisodePlan(
            number=1,
            episode_id="0" * 19 + "2",
            host=hosts["birch"],
            profile="none",
            sample_name="none",
            preroll_s=3.0,
            phases=(),
            jobs=(Job("backup", 2.0, None, 1.0),),
            salt="two",
            **shared,
        ),
    ]


@pytest.fixture(scope="module")
def _able(request):
    """Skips where QEMU, the image or namespaces are missing."""
    # Beside other tests a guest would get too little of a processor to keep its rates.
    if not request.config.getoption("--lab"):
        pytest.skip("make test-lab runs it")
    try:
        machine.find_qemu()
        images.load()
        check_network()
    except LabError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def recorded(_able, tmp_path_factory):
    store = tmp_path_factory.mktemp("lab") / "store"
    record(store, plans(), parallel=2)
    return store


class Rows(dict):
    """The members of an episode, decoded."""

    def __init__(self, store, number):
        entry = read_index(store).records[number]
        members = tarball.read(tarball.find(store, entry.content["path"]), LIMITS).members
        for name, content in members.items():
            decode = (
                msgspec.json.decode if name == "meta.json" else msgspec.json.Decoder().decode_lines
            )
            self[name.partition(".")[0]] = decode(content)


@pytest.fixture(scope="module")
def scan(recorded):
    return next(
        r for r in (Rows(recorded, 0), Rows(recorded, 1)) if r["meta"]["host_id"] == "alder"
    )


@pytest.fixture(scope="module")
def control(recorded):
    return next(
        r for r in (Rows(recorded, 0), Rows(recorded, 1)) if r["meta"]["host_id"] == "birch"
    )


def test_both_are_valid_and_only_netflow_is_missing_where_the_host_has_none(recorded):
    found = {}
    for each in read_index(recorded).records:
        fields = {name: each.content[name] for name in Entry.__dataclass_fields__ if name != "line"}
        verdict, _ = examine(Entry(**fields, line=each.line), recorded, LIMITS)
        found[verdict.host_id] = verdict.status, [fault.code for fault in verdict.faults]
    assert found == {"alder": ("accepted", []), "birch": ("degraded", ["no_netflow"])}


def test_each_row_has_all_channels_and_lies_within_the_record(scan, control):
    for episode in (scan, control):
        meta = episode["meta"]
        for source in SAMPLED:
            names = {"t_wall_ns", "t_mono_ns", *(channel.name for channel in of_source(source))}
            for row in episode[source]:
                assert row.keys() == names
                assert meta["started_wall_ns"] <= row["t_wall_ns"] <= meta["ended_wall_ns"]
                assert row["t_wall_ns"] - row["t_mono_ns"] == meta["started_wall_ns"]
        assert len(episode["proc"]) >= SECONDS * 10 * 0.8


def test_labels_begin_with_the_phase_that_held_and_tell_when_programs_started(scan, control):
    assert [row["phase"] for row in scan["labels"]] == [
        "armed",
        "infecting",
        "infected_running",
        "dormant",
    ]
    started = [row["t_mono_ns"] / 1e9 for row in scan["labels"]]
    assert started[0] < 0.1
    assert started[1] >= 1.0
    assert started[2] >= 3.0
    assert [row["phase"] for row in control["labels"]] == ["clean"]


def test_what_the_guest_did_on_the_network_is_seen(scan):
    flows = scan["netflow"]
    assert flows
    assert all(0 <= row["t_mono_ns"] <= (SECONDS + 2) * 1e9 for row in flows)
    assert {row["src"] for row in flows if row["pkts_out"]} == {"10.77.0.50"}
    assert any(row["tcp_flags"] & 2 for row in flows)
    assert scan["meta"]["lost"] == {"guest": 0, "exec": 0, "netflow": 0}


def test_processes_are_told_without_a_word_of_what_they_are(scan):
    assert scan["exec"][0]["event"] == "snapshot"
    assert {row["event"] for row in scan["exec"]} >= {"snapshot", "start", "exit"}
    told = " ".join(row["cmdline"] for row in scan["exec"])
    for word in ("scan", "armed", "infect", "dormant", "dial", "office"):
        assert word not in told


def test_meta_tells_when_jobs_really_ran(scan, control):
    (office,) = scan["meta"]["jobs"]
    assert office["name"] == "office"
    assert office["start_s"] < 0
    assert 5.0 <= office["stop_s"] < SECONDS
    (backup,) = control["meta"]["jobs"]
    assert backup["start_s"] >= 2.0
    assert control["meta"]["background"] == ["backup"]
    assert 5.0 <= scan["meta"]["preroll_s"] < 8.0
    assert scan["meta"]["image"] == images.load().digest


def test_what_is_there_is_not_recorded_again(recorded):
    before = (recorded / "index.jsonl").read_bytes()
    record(recorded, plans(), parallel=2)
    assert (recorded / "index.jsonl").read_bytes() == before


def guests(folder):
    """The processes of QEMU whose disk lies under a folder."""
    found = []
    for cmdline in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = cmdline.read_bytes()
        except OSError:
            continue
        if words.startswith(b"/") and b"qemu-system" in words and str(folder).encode() in words:
            found.append(int(cmdline.parent.name))
    return found


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
@pytest.mark.usefixtures("_able")
def test_a_recorder_that_is_stopped_or_killed_leaves_no_guest_and_no_episode(tmp_path, number):
    cache = tmp_path / "cache"
    cache.mkdir()
    (cache / "image").symlink_to(images.load().manifest.parent)
    script = textwrap.dedent("""
        import sys
        from pathlib import Path
        from cis490.lab import record as recorder
        from tests.lab.test_record import plans
        recorder.choose_accelerator = lambda *_: "tcg"
        recorder.record(sys.argv[1], plans(), parallel=2, cache=Path(sys.argv[2]))
    """)
    run = subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path / "store"), str(cache)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": f"{ROOT / 'src'}:{ROOT}"},
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 60
    while len(alive := guests(cache)) < 2:
        assert run.poll() is None, run.stderr.read()
        assert time.monotonic() < deadline
        time.sleep(0.05)
    ends = [os.pidfd_open(pid) for pid in alive]
    run.send_signal(number)
    said = run.communicate(timeout=60)[1]
    for end in ends:
        assert select.select([end], [], [], 10)[0], "a guest lives on"
        os.close(end)
    assert guests(cache) == []
    assert not (tmp_path / "store/index.jsonl").exists()
    if number != signal.SIGKILL:
        assert "stopped: 0 of 2 episodes recorded" in said
        assert [each.name for each in (cache / "runs").iterdir()] == ["lock"]


@pytest.mark.usefixtures("_able")
def test_a_guest_that_cannot_boot_ends_the_run_with_qemu_s_own_words(tmp_path):
    image = images.load()
    broken = tmp_path / "image"
    broken.mkdir()
    for part in (image.kernel, image.initrd, image.disk):
        (broken / part.name).symlink_to(part)
    (broken / image.kernel.name).unlink()
    (broken / image.kernel.name).write_bytes(b"no kernel")
    wrong = images.Image(
        broken / image.kernel.name, image.initrd, image.disk, image.manifest, image.digest
    )
    before = hashlib.sha256(image.disk.read_bytes()).digest()
    setting = Setting(wrong, machine.find_qemu(), "tcg", 1)
    child = Child(lambda: boots(plans()[0].host, setting, tmp_path, 60.0) or b"")
    try:
        with pytest.raises(LabError, match=r"the guest died: QEMU ended with 1; qemu\.log: "):
            child.result()
    finally:
        child.end()
    assert hashlib.sha256(image.disk.read_bytes()).digest() == before


def chosen(monkeypatch, folder, boots):
    """What is chosen where /dev/kvm can be opened and guests boot as told."""
    monkeypatch.setattr(recorder.os, "access", lambda *_: True)
    monkeypatch.setattr(recorder, "boots", boots)
    image = images.Image(Path("k"), Path("i"), Path("d"), Path("m"), "digest")
    return recorder.choose_accelerator(image, "qemu", plans()[0].host, folder, folder / "no-kvm")


def hangs(*_):
    raise LabError("the guest was not ready after 20 s (is the machine busy with other work?): ")


def dies(*_):
    raise LabError("its process was killed")


def test_kvm_that_hangs_is_not_tried_again_before_the_next_boot(monkeypatch, tmp_path):
    assert chosen(monkeypatch, tmp_path, hangs) == "tcg"
    assert chosen(monkeypatch, tmp_path, lambda *_: None) == "tcg"
    boot = tmp_path / "boot"
    boot.write_text("another")
    monkeypatch.setattr(recorder, "_BOOT_ID", boot)
    assert chosen(monkeypatch, tmp_path, lambda *_: None) == "kvm"


def test_kvm_that_failed_otherwise_is_tried_again_and_a_full_disk_does_no_harm(
    monkeypatch, tmp_path
):
    assert chosen(monkeypatch, tmp_path, dies) == "tcg"
    assert not (tmp_path / "no-kvm").exists()
    (tmp_path / "no-kvm").mkdir()  # cannot be written
    assert chosen(monkeypatch, tmp_path, hangs) == "tcg"
    assert chosen(monkeypatch, tmp_path, lambda *_: None) == "kvm"
