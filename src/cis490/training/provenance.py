"""Where a model comes from: what training_metadata.json says, so that a training can be repeated.

It holds times and facts of the machine, so unlike a model's other files it is never the same twice.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import os
import platform
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

import cis490
from cis490 import hardware
from cis490.training.data import Cases

KIND: Final = "cis490.training_metadata"
VERSION: Final = 1

_PACKAGE: Final = Path(cis490.__file__).parent
_DISTRIBUTIONS: Final = ("numpy", "polars", "safetensors", "scipy", "torch")
_XGBOOST: Final = ("xgboost", "xgboost-cpu", "xgboost-cu12", "xgboost-cu13")  # one module, several


def provenance(
    *,
    data: Mapping[str, str],
    fit_sha256: str,
    schema_sha256: str,
    code: str,
    settings: Mapping[str, Any],
    seeds: Sequence[int],
    device: str,
    timer: Timer,
) -> dict[str, Any]:
    """The content of training_metadata.json, asked for when all seeds are trained.

    Args:
        data: `data_sha256` of each part.
        fit_sha256: of the split file's content.
        schema_sha256: of the schema that all was made under.
        code: hash of the code that decides what is learned.
        settings: those that decide the training.
        seeds: in order.
        device: where was trained, "cpu" or "cuda".
        timer: of the phases.
    """
    return {
        "kind": KIND,
        "version": VERSION,
        "data": data,
        "split": fit_sha256,
        "schema": schema_sha256,
        "code": {"sha256": code, "commit": commit(_PACKAGE)},
        "settings": settings,
        "seeds": seeds,
        "hardware": hardware.describe() | {"gpu": gpu(device)},
        "versions": versions(),
        "timings": timer.phases,
        "peak_memory": peak_memory(device),
    }


def data_sha256(cases: Cases) -> str:
    """Hash of cases as a model sees them: which windows, their values and their labels.

    It is of what was read, not of files, so other batches or another compression do not change it.
    It takes 1.4 s a GB (one core of an AMD EPYC), and the values of a tensor 2 bytes each.
    """
    digest = hashlib.sha256(cases.rows.write_csv().encode())
    _add(digest, "X", cases.X)
    _add(digest, "y", cases.y)
    return digest.hexdigest()


def _add(digest: Any, name: str, value: Any) -> None:
    if is_dataclass(value):
        for field in fields(value):
            _add(digest, f"{name}.{field.name}", getattr(value, field.name))
    elif isinstance(value, np.ndarray):
        little = value.astype(value.dtype.newbyteorder("<"), copy=False)
        digest.update(f"{name} {little.dtype.str} {little.shape}\n".encode())
        digest.update(np.ascontiguousarray(little).reshape(-1).data)
    else:
        digest.update(f"{name} {value}\n".encode())


def commit(folder: Path) -> str | None:
    """The git commit that `folder` is of, "-dirty" behind it if tracked files were changed.

    None without git, or where git does not know the folder: an installed package may lie in
    somebody else's repository.
    """
    git = ["git", "-C", os.fspath(folder)]
    environment = os.environ | {"GIT_OPTIONAL_LOCKS": "0"}  # a clone is only read
    said = ""
    for words in (
        ["ls-files", "--error-unmatch", "__init__.py"],
        ["describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"],
    ):
        try:
            done = subprocess.run(
                [*git, *words], capture_output=True, text=True, env=environment, timeout=60
            )
        except (OSError, subprocess.TimeoutExpired):
            return None
        if done.returncode:
            return None
        said = done.stdout.strip()
    return said


def versions() -> dict[str, str | None]:
    """Of Python, of cis490 and of what decides numbers; None for what is not installed."""
    found = {name: _version(name) for name in _DISTRIBUTIONS}
    xgboost = next((version for name in _XGBOOST if (version := _version(name))), None)
    own = {"python": platform.python_version(), "cis490": cis490.__version__}
    return own | found | {"xgboost": xgboost}


def _version(distribution: str) -> str | None:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def gpu(device: str) -> dict[str, Any] | None:
    """The card that was trained on: name, memory_bytes, driver, cuda; None for the CPU."""
    if device != "cuda":
        return None
    import torch  # gbt does without

    card = torch.cuda.get_device_properties(device)
    return {
        "name": card.name,
        "memory_bytes": card.total_memory,
        "driver": hardware.nvidia_driver(),
        "cuda": torch.version.cuda,
    }


def peak_memory(device: str) -> dict[str, int | None]:
    """Most bytes that the process held, and that its tensors held on the card (None: the CPU)."""
    on_card = None
    if device == "cuda":
        import torch

        on_card = torch.cuda.max_memory_allocated()
    return {"process_bytes": hardware.peak_memory_bytes(), "gpu_bytes": on_card}


class Timer:
    """Seconds by phase.

    Attributes:
        phases: wall_s and cpu_s (of all threads of the process) of each phase, in order of its
            first beginning; a phase that comes again adds up.
    """

    def __init__(self) -> None:
        self.phases: dict[str, dict[str, float]] = {}

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Time what happens within, also if it raises."""
        spent = self.phases.setdefault(name, {"wall_s": 0.0, "cpu_s": 0.0})
        wall, cpu = time.monotonic(), time.process_time()
        try:
            yield
        finally:
            spent["wall_s"] = round(spent["wall_s"] + time.monotonic() - wall, 3)
            spent["cpu_s"] = round(spent["cpu_s"] + time.process_time() - cpu, 3)
