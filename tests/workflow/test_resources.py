"""What jobs ask of a cluster, and that one machine does not hold them back for it."""

import os
import re
import subprocess
import sys

import pytest
import yaml

from tests.conftest import ROOT

pytestmark = pytest.mark.workflow

PROFILES = sorted(path.parent.name for path in (ROOT / "profiles").glob("*/config.yaml"))


def profile(name):
    return yaml.safe_load((ROOT / f"profiles/{name}/config.yaml").read_text())


def asked(output, rule):
    """mem_mb and runtime of a rule's jobs, as a dry run tells them."""
    found = []
    for block in re.split(r"\n(?=rule |localrule )", output):
        if block.startswith(f"rule {rule}:"):
            line = re.search(r"^    resources: (.*)$", block, re.M)[1]
            values = dict(part.split("=") for part in line.split(", "))
            found.append((int(values["mem_mb"]), int(values["runtime"])))
    return found


def test_every_rule_says_what_memory_and_time_it_needs(fresh):
    settings = {"transfer": {"run": True}, "probes": True, "robustness": {"run": True}}
    fresh.settings(**settings, tune=True)
    blocks = re.findall(r"^rule (\w+):\n(.*?)\n\n", fresh.ok("-n"), re.M | re.S)
    rules = set(re.findall(r"^rule (\w+):", "".join(map(_text, ROOT.glob("rules/*.smk"))), re.M))
    assert {rule for rule, _ in blocks} == rules
    assert not [rule for rule, block in blocks if not re.search(r"\bmem_mb=", block)]
    assert not [rule for rule, block in blocks if not re.search(r"\bruntime=", block)]


def _text(path):
    return path.read_text()


def test_what_a_training_asks_for_follows_the_size_of_its_input(run):
    (before, *_) = asked(run.ok("-n", "--forcerun", "train"), "train")
    tensors = run.results / "tensors/alder-00000.safetensors"
    os.truncate(tensors, tensors.stat().st_size + 1024 * 2**20)
    (after, *_) = asked(run.ok("-n", "--forcerun", "train"), "train")
    assert (after[0] - before[0], after[1] - before[1]) == (3 * 1024, 512)


def test_no_profile_limits_what_only_a_cluster_counts():
    assert PROFILES == ["default", "local", "slurm"]
    limited = {name: set(profile(name).get("resources", {})) for name in PROFILES}
    assert limited == {"default": set(), "local": {"gpu"}, "slurm": set()}


def test_the_local_profile_needs_no_other_option(fresh):
    command = [sys.executable, "-m", "snakemake", "-n", "--configfile", "mine.yaml"]
    command += ["--snakefile", str(ROOT / "Snakefile"), "--profile", str(ROOT / "profiles/local")]
    done = subprocess.run(command, cwd=fresh.folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "This was a dry-run" in done.stdout + done.stderr
