import re
import subprocess
import sys

import pytest
import yaml

from cis490 import cli
from cis490.config import merge, resolve
from cis490.errors import Cis490Error, StoreError
from cis490.home import workflow_folder
from cis490.init import init, settings
from tests.conftest import ROOT

DEFAULTS = (ROOT / "config.yaml").read_text()


def uncommented(text):
    """Every setting switched on: a comment has one space after its #, a setting none or two."""
    return re.sub(r"^#(?=\w|  )", "", text, flags=re.M)


def test_a_fresh_folder_runs_on_the_defaults_and_on_what_was_said(store, tmp_path):
    for host_id, n in (("web", 3), ("db", 2), ("cache", 2)):
        for i in range(n):
            store.put(host_id, f"{host_id}{i}", b"x")
    chosen = init(tmp_path / "new/deep", store.folder)
    got = resolve(yaml.safe_load((tmp_path / "new/deep/config.yaml").read_text()))
    # Of the hosts with the fewest episodes the last by name is held out.
    assert chosen == {
        "store": str(store.folder.resolve()),
        "train_hosts": ["cache", "web"],
        "test_hosts": ["db"],
    }
    hosts = {key: chosen[key] for key in ("train_hosts", "test_hosts")}
    assert got == resolve(merge({}, {"store": chosen["store"], "split": hosts}))
    profiles = sorted(p.relative_to(ROOT) for p in (ROOT / "profiles").rglob("*") if p.is_file())
    assert profiles
    for profile in profiles:
        assert (tmp_path / "new/deep" / profile).read_bytes() == (ROOT / profile).read_bytes()


def test_every_other_setting_stands_there_with_its_default_and_can_be_switched_on():
    chosen = {"store": "/s", "train_hosts": ["a"], "test_hosts": []}
    text = settings(DEFAULTS, chosen)
    expected = yaml.safe_load(DEFAULTS)
    expected["store"] = "/s"
    expected["split"] |= {"train_hosts": ["a"], "test_hosts": []}
    assert yaml.safe_load(uncommented(text)) == expected
    assert yaml.safe_load(text) == {
        "store": "/s",
        "split": {"train_hosts": ["a"], "test_hosts": []},
    }


@pytest.mark.parametrize("name", ["007", "1e3", "on", "null", "2024-01-01", "a.b_c-d"])
def test_a_name_that_yaml_takes_for_something_else_stays_a_name(name):
    text = settings(DEFAULTS, {"store": f"/s: #{name}", "train_hosts": [name], "test_hosts": []})
    got = yaml.safe_load(text)
    assert (got["store"], got["split"]["train_hosts"]) == (f"/s: #{name}", [name])


def test_of_a_store_with_one_host_none_is_held_out(store, tmp_path):
    store.put("web", "e1", b"x")
    assert init(tmp_path / "new", store.folder)["test_hosts"] == []


@pytest.mark.parametrize("there", ["Snakefile", "config.yaml", "profiles"])
def test_nothing_is_overwritten_and_then_nothing_is_written(there, tmp_path):
    (tmp_path / there).write_text("mine")
    with pytest.raises(Cis490Error, match=f"{there} is there already"):
        init(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [there]
    assert (tmp_path / there).read_text() == "mine"


@pytest.mark.parametrize("below", ["", "deep"])
def test_a_place_where_no_folder_can_be_is_said(below, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(Cis490Error, match=r"cannot be set up .*: choose another folder"):
        init(tmp_path / "file" / below)


def test_a_store_that_is_none_leaves_no_folder(tmp_path):
    with pytest.raises(StoreError, match="no such folder"):
        init(tmp_path / "new", tmp_path / "nowhere")
    assert not (tmp_path / "new").exists()


def test_without_a_store_the_file_says_what_to_set(tmp_path, monkeypatch, capsys):
    cli.main(["init", str(tmp_path / "new")])
    assert "Set `store`, `train_hosts` and `test_hosts`" in capsys.readouterr().out
    monkeypatch.chdir(tmp_path / "new")
    with pytest.raises(SystemExit, match=r"split\.train_hosts"):
        cli.main(["ingest"])


def test_commands_in_the_folder_take_its_config_and_a_configfile_on_top(
    store, tmp_path, monkeypatch, capsys
):
    store.add("cedar", "e1")
    cli.main(["init", str(tmp_path / "new"), "--store", str(store.folder)])
    monkeypatch.chdir(tmp_path / "new")
    cli.main(["ingest"])
    assert "results/validation.md" in capsys.readouterr().out
    (tmp_path / "on_top.yaml").write_text("split: {train_hosts: [oak]}\n")
    with pytest.raises(SystemExit, match="no host oak; its hosts are cedar"):
        cli.main(["ingest", "--configfile", str(tmp_path / "on_top.yaml")])


def test_a_config_beside_a_foreign_snakefile_is_not_ours(tmp_path, monkeypatch):
    (tmp_path / "config.yaml").write_text("nonsense: true\n")
    (tmp_path / "Snakefile").write_text("rule all: input: 'x'\n")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit, match="holds no plan"):
        cli.main(["train", "gbt", "realistic"])


def test_the_snakefile_is_in_the_form_that_ours_are(tmp_path):
    init(tmp_path)
    done = subprocess.run(
        [sys.executable, "-m", "snakefmt", "--check", str(tmp_path / "Snakefile")],
        capture_output=True,
    )
    assert done.returncode == 0, done.stderr.decode()


def test_of_a_clone_the_workflow_is_the_clone():
    assert workflow_folder() == ROOT
