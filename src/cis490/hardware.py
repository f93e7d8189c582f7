"""What this machine offers, found out without importing torch (which costs seconds)."""

from __future__ import annotations

import importlib.metadata
import os
from pathlib import Path

_DRIVER = Path("/proc/driver/nvidia/version")


def may_use_gpu(device: str) -> bool:
    """Whether trainings with `training.device` = `device` should ask the scheduler for a GPU.

    "auto" asks for one if an NVIDIA driver is loaded, CUDA_VISIBLE_DEVICES does not hide it, and
    the installed torch is not a build without CUDA.
    """
    if device != "auto":
        return device == "cuda"
    if os.environ.get("CUDA_VISIBLE_DEVICES", "all") in ("", "-1"):
        return False
    return _DRIVER.exists() and not _torch_is_cpu_build()


def _torch_is_cpu_build() -> bool:
    try:
        return importlib.metadata.version("torch").endswith("+cpu")
    except importlib.metadata.PackageNotFoundError:
        return False
