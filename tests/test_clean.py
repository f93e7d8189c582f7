import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from cis490 import clean, cli
from cis490.config import resolve
from cis490.errors import Cis490Error
from cis490.report.names import STORE_PICTURES
from tests.builders import Store, pack
from tests.conftest import ROOT

# Of no batch, split or model: made anew by each run, so never a leftover.
ONE_OF_EACH = {
    "cache/code.json",
    *("schema.json", "validation.parquet", "validation.md"),
    *("report/comparison_v2.md", "report/index.html", "report/production_summary.json"),
    *(f"report/pictures/{name}.svg" for name in STORE_PICTURES),
    *(f"{folder}/{rule}.{suffix}" for folder, suffix in (("logs", "log"), ("benchmarks", "tsv"))
      for rule in ("gather", "schema", "report", "page")),
}  # fmt: skip
SAMPLES = {
    "batch": "alder-00000",
    "split": "host",
    "architecture": "gru",
    "mode": "oracle",
    "model": "gru_oracle",
    "learner": "network",
    "side": "in_host",
    "reach": "fit",
    "table": "proc",
    "condition": "loss_0.5",
    "extra": "profile",
    "name": "forest",
    "folder": "host/",
}
# What some rules call by another name than the others.
OTHER_NAMES = {
    "{model}_{mode}": "{model}",
    "{name}_{wildcards.mode}": "{model}",
    "transfer/{{split}}/{side}/{model}": "transfer/{split}/{side}/{learner}_{mode}",
}


def paths_of_rules():
    """Every path below results/ that the rules name, with sample values for their wildcards."""
    found = set()
    for file in [ROOT / "Snakefile", *(ROOT / "rules").glob("*.smk")]:
        for text in re.findall(r'"results/([^"]+)"', file.read_text()):
            for here, meant in OTHER_NAMES.items():
                text = text.replace(here, meant)
            names = r"\{+(?:wildcards\.)?(\w+)\}+"
            found.add(re.sub(names, lambda match: SAMPLES[match[1]], text))
    return found - {"plan", "plan/batches.json", "plan/index.json"}


def test_every_file_that_a_rule_names_is_known_or_one_of_a_kind():
    unknown = {
        path
        for path in paths_of_rules()
        if clean.recognise(path) is None and path not in ONE_OF_EACH
    }
    # Folders, whose files are known.
    assert {path for path in unknown if clean.recognise(f"{path}/events.1") is None} == set()
    assert not {path for path in ONE_OF_EACH if clean.recognise(path)}


def made(template, **of):
    values = {
        "batch": "alder-00000",
        "split": "host",
        "model": "gbt_realistic",
        "learner": "gbt_realistic",
        "detector": "gbt_realistic",
        "side": "cross_host",
        "reach": "all",
        "table": "proc",
        "evaluated": "metrics",
        "condition": "loss_0.5",
        "picture": "forest",
        "noted": "logs",
        "note": "log",
        "of_batches": "ingest",
        "of_splits": "evaluate",
        "of_models": "train",
        "state": "seed-42",
        "key": "a" * 64,
        "anything": "x/events.1",
    }
    return template.format(**(values | of))


class Folder:
    """A results folder as a run with the settings leaves it, one file of each kind."""

    def __init__(self, store, folder):
        for host_id in ("alder", "birch"):
            store.put(host_id, f"{host_id}1", pack({"meta.json": b"{}"}))
        self.results = folder / "results"
        self.settings = {
            "store": str(store.folder),
            "split": {"train_hosts": ["alder"], "test_hosts": ["birch"]},
            "models": ["gbt", "mlp"],
            "baselines": ["threshold"],
            "tune": True,
            "training": {"tensorboard": True, "profile": True},
        }
        self.write(*(made(template) for template in clean.KNOWN), *ONE_OF_EACH)

    def write(self, *paths):
        for path in paths:
            file = self.results / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(b"x" * 100)
        return paths

    def there(self):
        files = (path for path in self.results.rglob("*") if path.is_file() or path.is_symlink())
        return {str(path.relative_to(self.results)) for path in files}

    def find(self, *more, **changes):
        configs = [resolve(self.settings | changes), *(resolve(each) for each in more)]
        return clean.leftovers(self.results, configs)


@pytest.fixture
def folder(store, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return Folder(store, tmp_path)


def test_nothing_goes_of_what_the_settings_refer_to(folder):
    before = folder.there()
    found = folder.find()
    assert (found.files, set(found.unknown)) == ({}, ONE_OF_EACH)
    assert clean.remove(found) == 0
    assert folder.there() == before


@pytest.mark.parametrize(
    "of",
    [
        {"batch": "cedar-00000"},
        {"batch": "alder-00001"},
        {"split": "reverse"},
        {"model": "cnn_realistic", "detector": "cnn_realistic", "learner": "network_oracle"},
        {"model": "gbt_oracle", "detector": "gbt_oracle", "learner": "gbt_oracle"},
        {"condition": "loss_0.7"},
        {"batch": "alder-00000+1"},
    ],
    ids=str,
)
def test_what_they_do_not_refer_to_goes_with_its_folders_and_nothing_else(folder, of):
    before = folder.there()
    settings = {"modes": ["realistic"]}
    extra = {made(template, **of) for template in clean.KNOWN} - before
    assert extra
    folder.write(*extra)
    found = folder.find(**settings)
    assert set(found.files) == extra
    assert clean.remove(found) == 100 * len(extra) == found.n_bytes
    assert folder.there() == before
    assert not [
        path for path in folder.results.rglob("*") if path.is_dir() and not any(path.iterdir())
    ]


@pytest.mark.parametrize(
    ("changes", "tops"),
    [
        ({"tune": False}, ["tuning"]),
        ({"probes": False}, ["probes"]),
        ({"transfer": {"run": False}}, ["transfer"]),
        ({"robustness": {"run": False}}, ["robustness", "perturbed"]),
        ({"training": {}}, ["tensorboard", "profile"]),
        ({"training": {"tensorboard": True, "profile": True, "rate_cache_hours": 0}}, ["cache"]),
    ],
    ids=str,
)
def test_a_stage_that_was_left_out_leaves_nothing(folder, changes, tops):
    assert {path.split("/")[0] for path in folder.find(**changes).files} == set(tops)


def test_what_stages_no_longer_write_goes(folder):
    before = folder.write(
        *("transfer/host/gbt_realistic.parquet", "benchmarks/transfer/host/gbt_realistic.tsv"),
        "robustness/host/threshold_realistic.parquet",
    )
    assert set(folder.find().files) == set(before)


def test_what_another_config_refers_to_stays(folder):
    other = folder.settings | {"models": ["cnn"], "split": folder.settings["split"] | {"name": "b"}}
    mine = "models/host/gbt_realistic/model.json"
    theirs, nobodys = folder.write(
        "models/b/cnn_oracle/model.json", "models/c/cnn_oracle/model.json"
    )
    assert set(folder.find().files) == {theirs, nobodys}
    assert set(folder.find(other).files) == {nobodys}
    assert {mine, theirs} <= folder.there()


def test_unknown_files_and_what_links_lead_to_stay(folder, tmp_path):
    elsewhere = tmp_path / "elsewhere/reverse/gbt_realistic/model.json"
    elsewhere.parent.mkdir(parents=True)
    elsewhere.write_text("{}")
    folder.write("notes.txt", "models/reverse/mine.txt", "models/reverse/gbt_realistic/notes.md")
    (folder.results / "oof/reverse").symlink_to(elsewhere.parent)
    (folder.results / "models/other").symlink_to(elsewhere.parent.parent)
    (folder.results / "features/cedar-00000.parquet").symlink_to(elsewhere)
    before = folder.there()
    found = folder.find()
    assert not found.files
    assert {"notes.txt", "models/reverse/mine.txt"} < set(found.unknown)
    clean.remove(found)
    assert folder.there() == before
    assert elsewhere.exists()


def test_the_wrong_config_is_refused_before_everything_is_a_leftover(folder, tmp_path):
    other = Store(tmp_path / "other")
    other.put("cedar", "c1", b"x")
    cedar = {"train_hosts": ["cedar"], "test_hosts": []}
    for changes in (
        {"split": folder.settings["split"] | {"name": "x"}},
        {"split": cedar, "store": str(other.folder)},
    ):
        with pytest.raises(Cis490Error, match=r"holds nothing of these settings.*--configfile"):
            folder.find(**changes)


def test_what_a_killed_writer_left_goes_after_a_day(folder):
    old, new, pieces = folder.write(
        "telemetry/alder-00000/.proc.parquet.123.partial",
        "telemetry/alder-00000/.exec.parquet.123.partial",
        "tensors/.pieces.77.scratch/a",
    )
    for path in (old, pieces):
        os.utime(folder.results / path, (0, 0))
    assert set(folder.find().files) == {old, pieces}
    assert clean.remove(folder.find()) == 200
    assert new in folder.there()


LIVE = """
import sys
from pathlib import Path
from cis490.runlock import claim
lock = claim(Path(".snakemake"))
print("alive", flush=True)
sys.stdin.read()
"""


def test_nothing_is_removed_while_a_run_is_alive_and_a_dead_one_is_no_reason(folder):
    (left,) = folder.write("models/reverse/gbt_oracle/model.json")
    live = subprocess.Popen(
        [sys.executable, "-c", LIVE],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=folder.results.parent,
        env=os.environ | {"PYTHONPATH": str(ROOT / "src")},
    )
    try:
        assert live.stdout.readline() == b"alive\n"
        with pytest.raises(Cis490Error, match="a run is alive"):
            clean.remove(folder.find())
        assert left in folder.there()
    finally:
        live.kill()
        live.communicate()
    locks = Path(".snakemake/locks")
    locks.mkdir()
    (locks / "0.output.lock").write_text("results/x")
    assert clean.remove(folder.find()) == 100
    assert list(locks.iterdir())


def test_by_hand_it_only_says_until_it_is_told_to(folder, capsys):
    Path("mine.yaml").write_text(yaml.safe_dump(folder.settings))
    Path("other.yaml").write_text(yaml.safe_dump(folder.settings | {"models": ["gbt", "cnn"]}))
    gone, kept = folder.write("oof/host/gru_oracle.parquet", "oof/host/cnn_oracle.parquet")
    words = ["clean", "--configfile", "mine.yaml", "--also", "other.yaml"]
    for option in ([], ["--dry-run"]):
        cli.main([*words, *option])
        shown = capsys.readouterr().out
        assert "100 B      1 files  results/oof/host  (gru_oracle)" in shown
        assert "nothing was removed: to do so, add --yes" in shown
        assert gone in folder.there()
    cli.main([*words, "--yes"])
    assert capsys.readouterr().out.endswith("100 B freed, 1 files\n")
    assert gone not in folder.there()
    assert kept in folder.there()
    cli.main([*words, "--yes"])
    assert capsys.readouterr().out == "results holds nothing that could go\n"


@pytest.mark.parametrize(
    ("n", "text"),
    [(0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (2_345_678, "2.3 MB"), (5e12, "5.0 TB")],
)
def test_bytes_are_told_for_people(n, text):
    assert clean.as_text(n) == text
