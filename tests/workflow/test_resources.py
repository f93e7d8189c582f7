"""What jobs ask of a cluster, and that one machine does not hold them back for it."""

import os
import re
import shutil
import subprocess
import sys

import pytest
import yaml

from cis490.manifest import write_manifest
from tests.builders import small_fleet
from tests.conftest import ROOT
from tests.workflow.conftest import Run

pytestmark = pytest.mark.workflow

PROFILES = sorted(path.parent.name for path in (ROOT / "profiles").glob("*/config.yaml"))


@pytest.fixture
def planned(tmp_path):
    """A store and settings; nothing is ever run, but empty files may stand for results."""
    run = Run(tmp_path / "planned")
    small_fleet(run.folder / "store", n=1)
    run.settings()
    return run


def profile(name):
    return yaml.safe_load((ROOT / f"profiles/{name}/config.yaml").read_text())


def resources(output):
    """The rule of each job of a dry run, with its resources by name."""
    for block in re.split(r"\n(?=rule \w+:)", output)[1:]:
        line = re.search(r"^    resources: (.*)$", block, re.M)[1]
        yield block[5 : block.index(":")], dict(part.split("=") for part in line.split(", "))


def asked(output, rule):
    """mem_mb and runtime of a rule's jobs."""
    return [
        (int(values["mem_mb"]), int(values["runtime"]))
        for name, values in resources(output)
        if name == rule
    ]


def test_every_rule_says_what_memory_and_time_it_needs(planned):
    settings = {"transfer": {"run": True}, "probes": True, "robustness": {"run": True}}
    planned.settings(**settings, tune=True)
    jobs = [(rule, values) for rule, values in resources(planned.ok("-n")) if rule != "all"]
    text = "".join(path.read_text() for path in ROOT.glob("rules/*.smk"))
    assert {rule for rule, _ in jobs} == set(re.findall(r"^rule (\w+):", text, re.M))
    assert not [rule for rule, values in jobs if not {"mem_mb", "runtime"} <= values.keys()]


def test_what_a_training_asks_for_follows_the_size_of_its_input(planned):
    batches = [f"{host}-00000" for host in ("alder", "dogwood", "birch")]
    features = [planned.results / f"features/{batch}.parquet" for batch in batches]
    tensors = [planned.results / f"tensors/{batch}.safetensors" for batch in batches]
    alone = [planned.results / path for path in ("schema.json", "splits/fit/host.parquet")]
    for path in (*features, *tensors, *alone):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    manifest = planned.results / "windows/host/fit.json"
    write_manifest(features, tensors, manifest)
    target = "results/models/host/mlp_realistic/model.json"
    assert asked(planned.ok("-n", target), "train") == [(3000, 120)]
    os.truncate(tensors[0], 1024 * 2**20)
    write_manifest(features, tensors, manifest)
    assert asked(planned.ok("-n", target), "train") == [(3000 + 3 * 1024, 120 + 512)]


def test_what_reads_features_alone_does_not_ask_for_the_tensors_memory(finished, planned):
    shutil.copytree(finished.results, planned.results, dirs_exist_ok=True)
    planned.settings()
    features = planned.results / "features/alder-00000.parquet"
    tensors = planned.results / "tensors/alder-00000.safetensors"
    manifest = planned.results / "windows/host/all.json"
    asking = ["-n", "--forcerun", "evaluate", "--until", "evaluate"]
    os.truncate(tensors, 1024 * 2**20)
    write_manifest([features], [tensors], manifest)
    ((alone, _),) = asked(planned.ok(*asking), "evaluate")
    os.truncate(features, 1024 * 2**20)
    write_manifest([features], [tensors], manifest)
    ((with_features, _),) = asked(planned.ok(*asking), "evaluate")
    assert alone < 3000
    assert with_features == pytest.approx(alone + 4 * 1024, abs=2)


def test_no_profile_limits_what_only_a_cluster_counts():
    assert PROFILES == ["default", "local", "slurm"]
    limited = {name: set(profile(name).get("resources", {})) for name in PROFILES}
    assert limited == {"default": set(), "local": {"gpu"}, "slurm": set()}


def test_the_local_profile_needs_no_other_option(planned):
    command = [sys.executable, "-m", "snakemake", "-n", "--configfile", "mine.yaml"]
    command += ["--snakefile", str(ROOT / "Snakefile"), "--profile", str(ROOT / "profiles/local")]
    done = subprocess.run(command, cwd=planned.folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "This was a dry-run" in done.stdout + done.stderr


def test_a_key_that_stands_twice_in_a_config_stops_the_workflow(tmp_path):
    (tmp_path / "mine.yaml").write_text("seeds: [1]\nmodels: [gbt]\nseeds: [2]\n")
    command = [sys.executable, "-m", "snakemake", "-n", "--configfile", "mine.yaml"]
    command += ["--snakefile", str(ROOT / "Snakefile"), "--directory", str(tmp_path / "away")]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode != 0
    assert "'seeds' stands twice, again in line 3: keep one" in done.stderr
