"""What this machine offers, found out without importing torch (which costs seconds)."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
from pathlib import Path
from typing import Any

_DRIVER = Path("/proc/driver/nvidia/version")
_MEMORY = Path("/sys/fs/cgroup")
_CGROUP = (  # limit and use of version 2 and of version 1
    (_MEMORY / "memory.max", _MEMORY / "memory.current"),
    (_MEMORY / "memory/memory.limit_in_bytes", _MEMORY / "memory/memory.usage_in_bytes"),
)
_CPU = Path("/proc/cpuinfo")
_STATUS = Path("/proc/self/status")


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


def available_memory() -> int:
    """Bytes that a process may still take: what Linux calls available, or its cgroup's rest."""
    fields = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
    free = 1024 * int(fields["MemAvailable"].split()[0])
    for limit, used in _CGROUP:
        try:
            free = min(free, int(limit.read_text()) - int(used.read_text()))
        except (OSError, ValueError):  # no such cgroup, or "max"
            continue
    return max(0, free)


def describe() -> dict[str, Any]:
    """This machine: cpu (its model), n_cores that this process may use, memory_bytes, system.

    What the kernel does not tell is None.
    """
    return {
        "cpu": _found(_CPU, r"^model name\s*:\s*(.+)$") or platform.processor() or None,
        "n_cores": len(os.sched_getaffinity(0)),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "system": platform.platform(),
    }


def nvidia_driver() -> str | None:
    """Version of the loaded NVIDIA driver; None without one."""
    return _found(_DRIVER, r"Kernel Module.*?\s(\d+\.[\d.]+)\s")


def peak_memory_bytes() -> int | None:
    """The most memory that this process ever held (VmHWM); None where Linux does not tell."""
    kib = _found(_STATUS, r"^VmHWM:\s+(\d+) kB$")
    return None if kib is None else 1024 * int(kib)


def _found(path: Path, pattern: str) -> str | None:
    try:
        match = re.search(pattern, path.read_text(), re.MULTILINE)
    except OSError:
        return None
    return match[1].strip() if match else None
