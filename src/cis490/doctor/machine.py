"""Python, packages, compiled parts and cards."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform
import re
import shutil
import sys
import sysconfig
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from packaging.requirements import Requirement
from packaging.version import Version

import cis490
from cis490 import compiled, gpus, hardware
from cis490.doctor.finding import Finding, Findings
from cis490.home import workflow_folder

_PYTHON: Final = (3, 11)
_PACKAGE: Final = Path(cis490.__file__).parent
_XGBOOST: Final = ("xgboost-cpu", "xgboost", "xgboost-cu12", "xgboost-cu13")  # one module


def python() -> Findings:
    """The interpreter's version."""
    what = f"{platform.python_version()} at {sys.executable}"
    if sys.version_info < _PYTHON:
        yield Finding("fault", "python", what, "cis490 needs 3.11 or newer: make a new environment")
    else:
        yield Finding("ok", "python", what)


def packages(config: Mapping[str, Any] | None) -> Findings:
    """Installed versions beside the ranges of this version, and beside what tests ran with."""
    tested = _tested()
    n = 0
    bad = False
    for requirement in _requirements(config):
        n += 1
        finding = _judge(requirement, tested)
        if finding is not None:
            bad = True
            yield finding
    if not bad:
        yield Finding("ok", "packages", f"all {n} are there, in versions that fit")


def _judge(requirement: Requirement, tested: Mapping[str, str]) -> Finding | None:
    names = _XGBOOST if requirement.name.startswith("xgboost") else (requirement.name,)
    found = next((name for name in names if _version(name)), None)
    if found is None:
        what = f"{requirement.name} is not installed, and {requirement} is needed"
        return Finding("fault", "packages", what, f"pip install '{requirement}'")
    version = Version(_version(found) or "0")
    if not requirement.specifier.contains(version, prereleases=True):
        what = f"{found} is {version}, and {requirement} is needed"
        return Finding("fault", "packages", what, f"pip install '{requirement}'")
    known = tested.get(found)
    if known is not None and version.major > Version(known).major:
        return Finding(
            "warning",
            "packages",
            f"{found} is {version}; tests ran with {known}",
            f"if something breaks: pip install '{found}=={known}'",
        )
    return None


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _requirements(config: Mapping[str, Any] | None) -> list[Requirement]:
    """What the library needs, and of the extras what the workflow and these settings need."""
    needed, extras = _declared()
    wanted = ["workflow"]
    if config is None or "gbt" in config["models"]:
        wanted.append("cpu")  # stands for each build of xgboost
    if config is not None and config["tune"]:
        wanted.append("tune")
    if config is not None and config["training"]["tensorboard"]:
        wanted.append("tensorboard")
    return [*needed, *(each for extra in wanted for each in extras.get(extra, []))]


def _declared() -> tuple[list[Requirement], dict[str, list[Requirement]]]:
    """Of a clone what stands in it, which may be newer than what was installed."""
    file = workflow_folder() / "pyproject.toml"
    if file.exists():
        project = tomllib.loads(file.read_text())["project"]
        extras = project["optional-dependencies"].items()
        return (
            [Requirement(text) for text in project["dependencies"]],
            {extra: [Requirement(text) for text in texts] for extra, texts in extras},
        )
    needed: list[Requirement] = []
    by_extra: dict[str, list[Requirement]] = {}
    for text in importlib.metadata.requires("cis490") or []:
        requirement = Requirement(text)
        extra = re.search(r"extra == ['\"](\w+)['\"]", str(requirement.marker or ""))
        (by_extra.setdefault(extra[1], []) if extra else needed).append(requirement)
        requirement.marker = None
    return needed, by_extra


def _tested() -> dict[str, str]:
    files = sorted((workflow_folder() / "envs").glob("requirements*.txt"), reverse=True)
    lines = "\n".join(file.read_text() for file in files if "bench" not in file.name)
    return dict(re.findall(r"^([\w.-]+)==([\w.+!-]+)$", lines, re.MULTILINE))


def snakemake() -> Findings:
    """Whether the `snakemake` that a person types is the one beside this library."""
    activate = f"PATH={sysconfig.get_path('scripts')}:$PATH, or activate the environment"
    if importlib.util.find_spec("snakemake") is None:
        return  # among the packages
    found = shutil.which("snakemake")
    here = Path(sysconfig.get_path("scripts"))
    if found is None:
        yield Finding("warning", "snakemake", "is installed, but not on the PATH", activate)
    elif Path(found).parent.resolve() != here.resolve():
        what = f"{found} is first on the PATH, of another environment than this cis490"
        yield Finding("warning", "snakemake", what, activate)
    else:
        yield Finding("ok", "snakemake", f"{_version('snakemake')} at {found}")


def compiled_parts() -> Findings:
    """Whether C was compiled, and is that of this source."""
    sources = sorted(_PACKAGE.rglob("_*.c"))
    missing = [each.name for each in sources if compiled.load(each, "cis490_source", []) is None]
    if not missing:
        yield Finding("ok", "compiled", f"{len(sources)} parts, of this very source")
        return
    clone = (workflow_folder() / "Makefile").exists()
    compiler = "" if shutil.which(os.environ.get("CC", "cc")) else "install a C compiler, then "
    again = "make setup" if clone else "pip install --force-reinstall --no-deps cis490"
    what = f"{' and '.join(missing)} not compiled, or of another version: decoding takes twice"
    yield Finding("warning", "compiled", f"{what} as long", f"{compiler}{again}")


def device(config: Mapping[str, Any] | None, *, elsewhere: bool) -> Findings:
    """torch, CUDA and the cards, beside what `training.device` asks for.

    Args:
        config: a resolved config, if there is one.
        elsewhere: jobs run on other machines than this.
    """
    wanted = config["training"]["device"] if config is not None else "auto"
    try:
        import torch
    except (ImportError, OSError) as error:
        why = " ".join(str(error).split())[:200]
        yield Finding("fault", "device", f"torch cannot be imported: {why}", "pip install torch")
        return
    built = f"torch {torch.__version__}, built for {_cuda(torch)}"
    driver = hardware.nvidia_driver()
    if torch.cuda.is_available():
        names = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
        listed = ", ".join(f"{names.count(name)} of {name}" for name in dict.fromkeys(names))
        what = f"{built}; {listed}, driver {driver or 'unknown'}{_in_use()}"
        if wanted == "cpu":
            what += "; training.device is cpu, so trainings leave them alone (auto would not)"
        yield Finding("ok", "device", what)
        return
    if wanted == "cpu" or (wanted == "auto" and driver is None):
        yield Finding("ok", "device", f"{built}; trainings run on the CPU")
        return
    mend = ""
    what = f"{built}; training.device is {wanted}, and torch finds no CUDA device"
    if elsewhere:
        what += " on this machine; jobs run on others"
    elif os.environ.get("CUDA_VISIBLE_DEVICES", "all") in ("", "-1"):
        mend = "CUDA_VISIBLE_DEVICES hides all cards: unset it"
    elif torch.version.cuda is None:
        mend = "install a torch built for CUDA, or set training.device to cpu"
    elif driver is None:
        mend = "no NVIDIA driver is loaded: install one, or set training.device to cpu"
    else:
        mend = (
            f"the driver {driver} is too old for CUDA {torch.version.cuda}, or the card is not "
            "passed on to this machine: compare with nvidia-smi"
        )
    fault = wanted == "cuda" and not elsewhere
    yield Finding("fault" if fault else "warning", "device", what, mend)


def _cuda(torch: Any) -> str:
    return f"CUDA {torch.version.cuda}" if torch.version.cuda else "the CPU"


def _in_use() -> str:
    taken = gpus.taken()
    return f"; {len(taken)} slots taken by jobs of ours" if taken else ""
