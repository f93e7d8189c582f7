"""Each fault is made, and the doctor must say it and how to mend it; a healthy set-up has none."""

import contextlib
import importlib.metadata
import json
import os
import shutil
from collections import namedtuple
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement

from cis490 import cli, doctor, files
from cis490.config import resolve
from cis490.doctor import cluster, folder, machine
from cis490.errors import ConfigError
from cis490.training.checkpoint import save_model
from cis490.training.provenance import KIND, VERSION
from tests.conftest import ROOT, SAMPLE_STORE


def config_of(store, **changes):
    hosts = {"train_hosts": ["alder"], "test_hosts": []}
    return resolve({"store": str(store.folder), "split": hosts} | changes)


def states(findings, state="fault"):
    return {finding.check for finding in findings if finding.state == state}


def one(findings, state):
    (found,) = (finding for finding in findings if finding.state == state)
    return found


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    """A working directory of its own, and no SLURM unless a test makes one."""
    monkeypatch.chdir(tmp_path)
    which = shutil.which
    monkeypatch.setattr(
        cluster.shutil, "which", lambda name: None if name in cluster._COMMANDS else which(name)
    )
    return tmp_path


def test_a_healthy_set_up_has_no_fault_and_exit_code_0(store, here, capsys):
    store.add("alder", "e1")
    (here / "mine.yaml").write_text(
        yaml.safe_dump({"store": "store", "split": {"train_hosts": ["alder"], "test_hosts": []}})
    )
    cli.main(["doctor", "--configfile", "mine.yaml"])
    shown = capsys.readouterr().out
    assert shown.splitlines()[-1].startswith("faults: 0")
    assert all(line.startswith(("ok", "warning")) for line in shown.splitlines()[:-1])
    cli.main(["doctor", "--configfile", "mine.yaml", "--json"])
    told = json.loads(capsys.readouterr().out)
    assert {finding["check"] for finding in told} >= {"python", "packages", "store", "disk"}
    assert sorted(path.name for path in here.iterdir()) == ["mine.yaml", "store"]  # it only looks


def test_settings_that_are_wrong_are_a_fault_and_the_rest_is_still_checked(here, capsys):
    (here / "mine.yaml").write_text("stroe: x\n")
    with pytest.raises(SystemExit) as done:
        cli.main(["doctor", "--configfile", "mine.yaml"])
    assert done.value.code == 1
    shown = capsys.readouterr().out
    assert "unknown key stroe; did you mean store?" in shown
    assert "ok       python" in shown


def test_options_that_an_architecture_does_not_have_are_a_fault_before_a_run_finds_out(store):
    assert one(folder.architectures(config_of(store)), "ok").check == "settings"
    wrong = {"mlp": {"depht": 4}, "gbt": {"depth": -3}, "cnn": {"branch": 4}}
    found = list(folder.architectures(config_of(store, architectures=wrong)))
    assert [finding.state for finding in found] == ["fault", "fault"]
    assert [finding.mend for finding in found] == [
        "correct architectures.gbt",
        "correct architectures.mlp",
    ]
    assert "depht" in found[1].what


def test_a_check_that_breaks_is_told_and_the_others_go_on(store, monkeypatch):
    store.add("alder", "e1")
    monkeypatch.setattr(machine, "compiled_parts", lambda: 1 / 0)
    found = doctor.examine(lambda: config_of(store), Path("results"))
    assert one(found, "fault").what == "could not be checked: ZeroDivisionError: division by zero"
    assert "store" in states(found, "ok")


def test_packages_that_are_missing_too_old_or_too_new_are_named(monkeypatch):
    versions = {"numpy": "1.2", "polars": "99.0", "xgboost": "3.0", "snakemake": "9.27"}
    needed = "numpy>=1.26 polars>=1.20 scipy>=1.11 xgboost-cpu>=2.1 snakemake>=9.5".split()

    def version(name):
        if name not in versions:
            raise importlib.metadata.PackageNotFoundError(name)
        return versions[name]

    monkeypatch.setattr(machine.importlib.metadata, "version", version)
    monkeypatch.setattr(machine, "_requirements", lambda _: [Requirement(n) for n in needed])
    found = list(machine.packages(None))
    assert [(each.state, each.what.split(" is ")[0]) for each in found] == [
        ("fault", "numpy"),
        ("warning", "polars"),
        ("fault", "scipy"),
    ]
    assert found[0].mend == "pip install 'numpy>=1.26'"


def test_what_is_needed_follows_the_settings_and_is_the_same_in_a_clone_and_installed(
    store, monkeypatch, tmp_path
):
    store.add("alder", "e1")

    def names(**changes):
        return sorted(str(each) for each in machine._requirements(config_of(store, **changes)))

    plain = names()
    assert {"numpy>=1.26", "xgboost-cpu>=2.1", "snakemake>=9.5"} <= set(plain)
    assert set(names(tune=True, models=["cnn"])) ^ set(plain) == {"optuna>=5", "xgboost-cpu>=2.1"}
    declared = [
        *("numpy>=1.26", "xgboost-cpu>=2.1; extra == 'cpu'", "optuna>=5; extra == 'tune'"),
        "snakemake>=9.5; extra == 'workflow'",
    ]
    monkeypatch.setattr(machine, "workflow_folder", lambda: tmp_path)  # no pyproject.toml
    monkeypatch.setattr(machine.importlib.metadata, "requires", lambda _: declared)
    assert names() == ["numpy>=1.26", "snakemake>=9.5", "xgboost-cpu>=2.1"]


def test_parts_that_are_not_compiled_are_a_warning(monkeypatch):
    assert [each.state for each in machine.compiled_parts()] in (["ok"], ["warning"])
    monkeypatch.setattr(machine.compiled, "load", lambda *_: None)
    found = one(machine.compiled_parts(), "warning")
    assert "_rows.c and _statistics.c" in found.what
    assert "make setup" in found.mend


@pytest.mark.parametrize(
    ("wanted", "driver", "cuda", "visible", "elsewhere", "state", "text"),
    [
        ("cpu", None, None, None, False, "ok", "trainings run on the CPU"),
        ("auto", None, None, None, False, "ok", "trainings run on the CPU"),
        ("cuda", None, "13.0", None, False, "fault", "no NVIDIA driver is loaded"),
        ("cuda", "580.1", None, None, False, "fault", "install a torch built for CUDA"),
        ("auto", "580.1", None, None, False, "warning", "install a torch built for CUDA"),
        ("cuda", "580.1", "13.0", "", False, "fault", "CUDA_VISIBLE_DEVICES hides all cards"),
        ("cuda", "450.1", "13.0", None, False, "fault", "too old for CUDA 13.0"),
        ("cuda", None, "13.0", None, True, "warning", "jobs run on others"),
    ],
)
def test_why_there_is_no_card_is_said(
    wanted, driver, cuda, visible, elsewhere, state, text, store, monkeypatch
):
    import torch

    store.add("alder", "e1")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.version, "cuda", cuda)
    monkeypatch.setattr(machine.hardware, "nvidia_driver", lambda: driver)
    config = config_of(store, training={"device": wanted})
    found = one(machine.device(config, elsewhere=elsewhere), state)
    assert text in f"{found.what}; {found.mend}"


def test_cards_that_the_settings_leave_alone_are_mentioned(store, monkeypatch):
    import torch

    store.add("alder", "e1")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "Card X")
    found = one(machine.device(config_of(store), elsewhere=False), "ok")
    assert "2 of Card X" in found.what
    assert "training.device is cpu" in found.what


def test_a_store_with_a_foreign_host_torn_lines_and_lost_files(store):
    store.add("alder", "e1")
    store.add("alder", "e2")
    (store.folder / "alder/e2.tar.zst").unlink()
    store.append_line('{"episode_id": "e3", "ho\n')
    config = config_of(store, split={"train_hosts": ["oak"], "test_hosts": []})
    found = list(folder.store(config))
    assert "no host oak; its hosts are alder" in one(found, "fault").what
    assert [each.what for each in found if each.state == "warning"] == [
        "files that are indexed and not there: 1, alder/e2.tar.zst for one",
        "lines of index.jsonl that are torn or cannot be followed: 1",
    ]


def test_an_as_of_before_all_training_episodes_is_a_fault(store):
    store.put("alder", "e1", b"", received_wall_ns=1_700_000_000 * 10**9)  # 2023-11-14, 22:13
    for as_of, state in (("2023-11-14T00:00:00Z", "fault"), ("2023-11-15T00:00:00Z", "ok")):
        hosts = {"train_hosts": ["alder"], "test_hosts": []}
        config = config_of(store, split={**hosts, "as_of": as_of})
        (found,) = folder.store(config)
        assert found.state == state
        assert ("had no episode of alder by 2023" in found.what) == (state == "fault")


def test_files_of_the_store_that_may_not_be_read(store, monkeypatch):
    store.add("alder", "e1")
    monkeypatch.setattr(folder.os, "access", lambda path, _: "e1" not in str(path))
    found = one(folder.store(config_of(store)), "fault")
    assert "alder/e1.tar.zst" in found.what
    assert "chmod" in found.mend


@pytest.mark.parametrize(
    ("free", "state"), [(10**12, "ok"), (2_600_000_000, "warning"), (10**9, "fault")]
)
def test_room_is_estimated_from_the_store(free, state, store, here, monkeypatch):
    for i in range(4):
        store.put("alder", f"e{i}", b"x", size_bytes=200_000_000)
    config = config_of(store, robustness={"run": False})
    episodes = [{"size_bytes": 200_000_000}] * 4
    whole = folder.needed(config, episodes)
    assert 2.4e9 < whole < 3e9
    both = resolve(config | {"extra_splits": [{"name": "b"}]})
    assert folder.needed(both, episodes) > whole
    # What is there already is not needed again.
    with (here / "there").open("wb") as file:
        file.truncate(whole - 2_500_000_000)
    (here / "results").mkdir()
    (here / "there").rename(here / "results/there")
    usage = namedtuple("usage", "total used free")(10**13, 0, free)
    monkeypatch.setattr(folder.shutil, "disk_usage", lambda _: usage)
    (found,) = folder.disk(config, Path("results"))
    assert found.state == state


def test_the_estimate_is_near_to_what_results_of_the_sample_store_take():
    config = resolve({}, default_file=ROOT / "config.yaml")
    sizes = [path.stat().st_size for path in SAMPLE_STORE.rglob("*.tar.zst")]
    estimate = folder.needed(config, [{"size_bytes": size} for size in sizes])
    assert 150.5e6 < estimate < 300e6  # 150.5 MB were measured, 121 of its 246 episodes drawn


def test_a_folder_that_cannot_be_written_to_or_locked(monkeypatch):
    assert one(folder.writable(Path("results")), "ok")

    def refuse(*_, **__):
        raise PermissionError(13, "Permission denied")

    with monkeypatch.context() as patch:
        patch.setattr(folder.tempfile, "TemporaryFile", refuse)
        assert "Permission denied" in one(folder.writable(Path("results")), "fault").what

    def no_locks(*_):
        raise OSError(37, "No locks available")

    monkeypatch.setattr(folder.fcntl, "flock", no_locks)
    assert "without locks" in one(folder.writable(Path("results")), "warning").what


def test_locks_of_a_killed_run_are_told_from_a_run_that_is_alive(here):
    assert "no run has been here" in one(folder.locks(), "ok").what
    (here / ".snakemake/locks").mkdir(parents=True)
    assert "no run is alive" in one(folder.locks(), "ok").what
    (here / ".snakemake/locks/0.input.lock").write_text("results/x")
    assert "1 locks of a run that was killed" in one(folder.locks(), "warning").what
    with contextlib.closing(folder.runlock.claim(here / ".snakemake")):
        assert "a run is alive" in one(folder.locks(), "ok").what


def trained(name="gbt_realistic", schema="s" * 64, code=None):
    out = Path(f"results/models/host/{name}")
    save_model(
        out,
        {
            "architecture": "gbt",
            "seeds": [],
            "status": "failed",
            "fit_sha256": "f",
            "schema_sha256": schema,
            "n_windows": {"train": 1},
        },
        {},
        [],
    )
    code = code or max(folder._codes())
    files.write_json(
        out / "training_metadata.json", {"kind": KIND, "version": VERSION, "code": {"sha256": code}}
    )
    files.write_json("results/schema.json", {"sha256": "s" * 64})
    return out


def test_models_that_are_whole_have_no_fault():
    assert list(folder.models(Path("results"))) == []
    trained()
    trained("cnn_oracle")
    assert "2 whole" in one(folder.models(Path("results")), "ok").what


def test_models_of_other_code_are_told():
    trained(code="0" * 16)
    found = one(folder.models(Path("results")), "warning")
    assert "host/gbt_realistic for one" in found.what
    assert "the next run trains them again" in found.mend


def edit(file, **changes):
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


@pytest.mark.parametrize(
    ("spoil", "text"),
    [
        (lambda out: edit(out / "model.json", version=1), "version 1; this cis490 reads"),
        (lambda out: edit(out / "model.json", status="ok"), "changed after it was written"),
        (lambda out: (out / "model.json").write_text("{"), "is not JSON"),
        (lambda out: (out / "weights.safetensors").unlink(), "cannot be read (No such file"),
        (lambda out: (out / "weights.safetensors").write_bytes(b"x"), "(sha256)"),
        (lambda out: edit(out / "training_metadata.json", version=9), "version 9, not"),
        (lambda out: edit(out / "training_metadata.json", kind="x"), "of kind x"),
        (lambda out: edit(out / "training_metadata.json", code=None), "is damaged"),
        (lambda out: edit(out / "training_metadata.json", code={"sha256": 1}), "is damaged"),
        (lambda out: (out / "training_metadata.json").write_text("[1]"), "is damaged"),
        (lambda out: (out / "training_metadata.json").write_bytes(b"\xff"), "is damaged"),
        (lambda out: (out / "training_metadata.json").unlink(), "cannot be read"),
        (lambda _: files.write_json("results/schema.json", {"sha256": "t"}), "of another schema"),
    ],
)
def test_a_model_that_is_stale_or_malformed_is_a_fault_with_its_path(spoil, text):
    trained("cnn_oracle")
    out = trained()
    other = text == "of another schema"
    spoil(out)
    faults = [each.what for each in folder.models(Path("results")) if each.state == "fault"]
    assert len(faults) == (2 if other else 1)
    assert text in faults[-1]
    assert "results/models/host/gbt_realistic/" in faults[-1]
    assert "remove the folder and train again" in faults[-1]


class Slurm:
    """Commands of SLURM that say what a test wants."""

    def __init__(self, folder, monkeypatch):
        self.folder = folder / "slurm"
        self.folder.mkdir()
        self.says('echo "gpuq|up|2|gpu:1"; echo "cpuq|up|1|(null)"; echo "old|down|1|(null)"')
        for command in ("sbatch", "squeue", "scancel"):
            self.command(command, "exit 0")
        monkeypatch.setenv("PATH", f"{self.folder}:{os.environ['PATH']}")
        self.monkeypatch = monkeypatch
        self.plugin(True)

    def command(self, name, script):
        (self.folder / name).write_text(f"#!/bin/sh\n{script}\n")
        (self.folder / name).chmod(0o755)

    def says(self, script):
        self.command("sinfo", script)

    def plugin(self, there):
        self.monkeypatch.setattr(
            cluster.importlib.util, "find_spec", lambda _: object() if there else None
        )


@pytest.fixture
def slurm(here, monkeypatch):
    monkeypatch.setattr(
        cluster.shutil,
        "which",
        lambda name: str(here / "slurm" / name) if (here / "slurm" / name).exists() else None,
    )
    (here / "profiles/slurm").mkdir(parents=True)
    return Slurm(here, monkeypatch)


def profile(text):
    Path("profiles/slurm/config.yaml").write_text(text)
    return Path("slurm")


ASKS = "executor: slurm\n"


def test_without_slurm_nothing_is_said_of_it_unless_a_profile_asks(here):
    assert list(cluster.slurm(None, None)) == []
    assert not cluster.asks_for_slurm(None)
    (here / "p").mkdir()
    (here / "p/config.yaml").write_text(ASKS)
    assert "there is no sbatch, squeue, scancel, sinfo here" in [
        each.what for each in cluster.slurm(None, Path("p"))
    ]


@pytest.mark.usefixtures("slurm")
def test_a_cluster_that_answers_and_has_what_the_profile_names():
    asked = profile(f"{ASKS}default-resources:\n  slurm_partition: gpuq\n  mem_mb: 1\n")
    assert [each.what for each in cluster.slurm(None, asked)] == [
        "reachable, partitions cpuq, gpuq"
    ]


@pytest.mark.parametrize(
    ("told", "name"),
    [
        ("default-resources: [slurm_partition=old, mem_mb=1]", "old"),
        ("default-resources: {slurm_partition: nope}", "nope"),
        ("default-resources: {slurm_partition: '\"nope\"'}", "nope"),
    ],
)
@pytest.mark.usefixtures("slurm")
def test_a_partition_that_is_not_up_is_a_fault(told, name):
    found = one(cluster.slurm(None, profile(f"{ASKS}{told}\n")), "fault")
    assert f"names the partition {name}, which is not up" in found.what
    assert found.mend == "set slurm_partition to one of cpuq, gpuq"


def test_faults_of_a_cluster_are_warnings_where_no_profile_asks_for_it(slurm):
    slurm.says("echo 'sinfo: error: cannot connect' >&2; exit 1")
    assert "cannot connect" in one(cluster.slurm(None, profile(ASKS)), "fault").what
    assert "cannot connect" in one(cluster.slurm(None, None), "warning").what
    slurm.says("echo 'gpuq|down|2|gpu:1'")
    assert one(cluster.slurm(None, profile(ASKS)), "fault").what == "no partition is up"


def test_a_controller_that_hangs_is_given_up(slurm, monkeypatch):
    monkeypatch.setattr(cluster, "_PATIENCE_S", 0.2)
    slurm.says("exec sleep 60")
    assert "did not answer" in one(cluster.slurm(None, profile(ASKS)), "fault").what


def test_the_plugin_is_asked_for(slurm):
    slurm.plugin(False)
    found = one(cluster.slurm(None, profile(ASKS)), "fault")
    assert found.mend == "pip install snakemake-executor-plugin-slurm"


def test_a_cluster_without_cards_is_told_to_who_wants_them(slurm, store):
    store.add("alder", "e1")
    slurm.says("echo 'cpuq|up|1|(null)'")
    config = config_of(store, training={"device": "cuda"})
    assert "no node offers GPUs" in one(cluster.slurm(config, profile(ASKS)), "warning").what


def test_a_profile_that_is_not_t():
    with pytest.raises(ConfigError, match="no such folder with a config"):
        list(cluster.slurm(None, Path("nowhere")))
