"""The units that docs/nightly.md gives: systemd takes them, and cis490 takes what they say."""

import os
import re
import shlex
import shutil
import subprocess

import pytest

from cis490 import cli, watch
from tests.conftest import ROOT

UNITS = sorted((ROOT / "docs/systemd").iterdir())
INSTALLED = "/srv/cis490"


def test_the_docs_name_every_unit():
    page = (ROOT / "docs/nightly.md").read_text()
    assert len(UNITS) == 3
    assert [unit.name for unit in UNITS if f"systemd/{unit.name}" not in page] == []


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="not installed: systemd-analyze")
def test_systemd_finds_nothing_wrong_with_the_units(tmp_path):
    (tmp_path / ".venv/bin").mkdir(parents=True)
    (tmp_path / ".venv/bin/cis490").symlink_to(shutil.which("true"))
    (tmp_path / "scripts").symlink_to(ROOT / "scripts")
    for unit in UNITS:
        (tmp_path / unit.name).write_text(unit.read_text().replace(INSTALLED, str(tmp_path)))
    for unit in UNITS:
        done = subprocess.run(
            ["systemd-analyze", "verify", "--man=no", str(tmp_path / unit.name)],
            capture_output=True,
            text=True,
            env=os.environ | {"SYSTEMD_UNIT_PATH": f"{tmp_path}:"},
        )
        about_ours = [line for line in done.stderr.splitlines() if "cis490" in line]
        assert about_ours == []


@pytest.mark.parametrize("unit", [unit for unit in UNITS if unit.suffix == ".service"])
def test_the_commands_of_the_units_are_commands(unit):
    text = unit.read_text()
    (line,) = re.findall(r"^ExecStart=(.*)$", text, re.M)
    command = shlex.split(line)
    assert command[0] == f"{INSTALLED}/.venv/bin/cis490"
    options = cli._parser().parse_args(command[1 : command.index("--")])
    assert options.run is cli._watch
    for script in re.findall(rf"^ExecStartPre={INSTALLED}/(\S+)", text, re.M):
        assert os.access(ROOT / script, os.X_OK)
    # systemd kills later than the watch itself does.
    (patience,) = re.findall(r"^TimeoutStopSec=(\d+)$", text, re.M)
    assert int(patience) > options.grace + watch._CANCEL_S
