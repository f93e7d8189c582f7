"""A folder that `cis490 init` made, run with the workflow of a wheel and with that of the clone."""

import os
import shutil
import subprocess
import sys
import zipfile

import pytest
import yaml

from tests.builders import small_fleet
from tests.conftest import ROOT

pytestmark = pytest.mark.workflow


def python(*arguments, source, cwd):
    """Run Python on the cis490 in `source`, away from the clone."""
    done = subprocess.run(
        [sys.executable, *map(str, arguments)],
        cwd=cwd,
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": str(source), "HOME": str(cwd)},
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


CLI = ("-c", "from cis490.cli import main; main()")


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """What a wheel of the clone installs."""
    folder = tmp_path_factory.mktemp("wheel")
    clone = folder / "clone"  # building compiles into src/
    shutil.copytree(
        ROOT, clone, ignore=shutil.ignore_patterns(".*", "results", "*.so", "store", "tests")
    )
    pip = ("-m", "pip", "--disable-pip-version-check")
    how = ("--no-deps", "--no-build-isolation", "--no-index")
    python(*pip, "wheel", "-q", *how, "-w", folder, clone, source=folder, cwd=folder)
    (wheel,) = folder.glob("cis490-*.whl")
    python(*pip, "install", "-q", *how, "--target", folder / "site", wheel, source="", cwd=folder)
    shutil.rmtree(clone)
    return folder / "site", zipfile.ZipFile(wheel).namelist()


def test_a_wheel_holds_the_workflow_and_nothing_twice(installed):
    names = set(installed[1])
    folders = [ROOT / name for name in "envs profiles rules schemas workflow".split()]
    files = [path for folder in folders for path in folder.rglob("*") if path.is_file()]
    for file in [ROOT / "Snakefile", ROOT / "config.yaml", *files]:
        if "__pycache__" not in file.parts:
            assert f"cis490/_workflow/{file.relative_to(ROOT)}" in names
    assert not [name for name in names if "__pycache__" in name or "/src/" in name]


@pytest.mark.parametrize("where", ["wheel", "clone"])
def test_a_folder_that_was_set_up_runs(where, request, tmp_path):
    source = request.getfixturevalue("installed")[0] if where == "wheel" else ROOT / "src"
    small_fleet(tmp_path / "store", n=2)
    python(*CLI, "init", "mine", "--store", "store", source=source, cwd=tmp_path)
    folder = tmp_path / "mine"
    config = yaml.safe_load((folder / "config.yaml").read_text())
    config |= {"models": ["gbt"], "baselines": [], "modes": ["realistic"], "seeds": [7]}
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    snakemake = ("-m", "snakemake", "--cores", "2")
    planned = python(*snakemake, "-n", source=source, cwd=folder)
    assert "everything" in planned  # the report and all before it, without a target named
    assert "page" in planned
    target = "results/models/host/gbt_realistic/model.json"
    said = python(*snakemake, target, source=source, cwd=folder)
    assert "profiles/default" in said
    assert (folder / target).exists()
    again = python(*snakemake, "-n", target, source=source, cwd=folder)
    assert "Nothing to be done" in again
    told = python(*CLI, "doctor", source=source, cwd=folder)
    assert "models     1 whole, of this code and schema" in told
