"""SLURM, where a profile asks for it or its commands are here."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from cis490.config import read_yaml
from cis490.doctor.finding import Finding, Findings
from cis490.errors import ConfigError

_COMMANDS: Final = ("sbatch", "squeue", "scancel", "sinfo")
_PLUGIN: Final = "snakemake-executor-plugin-slurm"
_PATIENCE_S: Final = 20


def asks_for_slurm(profile: Path | None) -> bool:
    """Whether a profile starts jobs through SLURM."""
    return profile is not None and _read(profile).get("executor") == "slurm"


def slurm(config: Mapping[str, Any] | None, profile: Path | None) -> Findings:
    """Whether jobs can be handed over: commands, plugin, controller, partition, cards.

    Without a profile that asks for it, only where its commands are here, and then nothing is a
    fault.
    """
    asked = asks_for_slurm(profile)
    if not asked and shutil.which("sinfo") is None:
        return
    rows, fault = _ask()
    if not asked and fault is not None:
        yield Finding("warning", "slurm", f"its commands are here, but {fault.what}", fault.mend)
        return
    if importlib.util.find_spec(_PLUGIN.replace("-", "_")) is None:
        what = f"{_PLUGIN} is not installed, so snakemake has no executor slurm"
        yield Finding("fault" if asked else "warning", "slurm", what, f"pip install {_PLUGIN}")
    if fault is not None:
        yield fault
    else:
        yield from _partitions(rows, config, profile)


def _ask() -> tuple[list[list[str]], Finding | None]:
    """Partition, state, number of nodes and GRES, a row each; or why they cannot be had."""
    missing = [command for command in _COMMANDS if shutil.which(command) is None]
    if missing:
        what = f"there is no {', '.join(missing)} here"
        return [], Finding(
            "fault", "slurm", what, "run where SLURM's commands are, on a login node"
        )
    mend = "ask whether slurmctld is up, scontrol ping, and whether this node may reach it"
    asked_for = ("sinfo", "--noheader", "--format=%R|%a|%D|%G")
    try:
        done = subprocess.run(asked_for, capture_output=True, text=True, timeout=_PATIENCE_S)
    except subprocess.TimeoutExpired:
        what = f"the controller did not answer within {_PATIENCE_S} s"
        return [], Finding("fault", "slurm", what, mend)
    if done.returncode:
        said = done.stderr.strip().splitlines() or [f"sinfo ended with {done.returncode}"]
        return [], Finding("fault", "slurm", f"the controller cannot be asked ({said[0]})", mend)
    return [line.split("|", 3) for line in done.stdout.splitlines() if line.count("|") == 3], None


def _partitions(
    rows: list[list[str]], config: Mapping[str, Any] | None, profile: Path | None
) -> Findings:
    up = {name for name, state, _, _ in rows if state == "up"}
    if not up:
        yield Finding("fault", "slurm", "no partition is up", "ask who runs the cluster")
        return
    yield Finding("ok", "slurm", f"reachable, partitions {', '.join(sorted(up))}")
    wanted = _default_resource(profile, "slurm_partition")
    if wanted is not None and not set(wanted.split(",")) <= up:
        what = f"{profile} names the partition {wanted}, which is not up or not there"
        mend = f"set slurm_partition to one of {', '.join(sorted(up))}"
        yield Finding("fault", "slurm", what, mend)
    on_cards = config is not None and config["training"]["device"] != "cpu"
    if on_cards and not any("gpu" in resources for _, _, _, resources in rows):
        what = "no node offers GPUs (gres gpu), and training.device is not cpu"
        yield Finding("warning", "slurm", what, "set training.device to cpu, or jobs wait for ever")


def _default_resource(profile: Path | None, name: str) -> str | None:
    told = _read(profile).get("default-resources") if profile is not None else None
    if isinstance(told, list):
        told = dict(str(each).partition("=")[::2] for each in told)
    value = told.get(name) if isinstance(told, dict) else None
    return None if value is None else str(value).strip("'\" ")


def _read(profile: Path) -> dict[str, Any]:
    """A profile as Snakemake finds it: a folder here or in profiles/, or a file.

    Raises:
        ConfigError: there is none.
    """
    for place in (profile, Path("profiles") / profile):
        files = [place] if place.is_file() else sorted(place.glob("config*.y*ml"), reverse=True)
        if files:
            return read_yaml(files[0])
    raise ConfigError(f"profile {profile}: no such folder with a config.yaml")
