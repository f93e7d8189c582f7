"""Where to compute, and how to compute the same thing twice."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from cis490.errors import ConfigError
from cis490.models.base import FitSettings

_MEMORY: Any = torch.utils.deterministic  # a module that has its setting at run time only


def resolve_device(name: str) -> torch.device:
    """The device that `training.device` ("auto", "cpu" or "cuda") means on this machine.

    Raises:
        ConfigError: cuda is asked for and there is none, or the name is unknown.
    """
    if name not in ("auto", "cpu", "cuda"):
        raise ConfigError(f"training.device: {name} is not one of auto, cpu, cuda")
    available = torch.cuda.is_available()
    if name == "cuda" and not available:
        raise ConfigError(
            "training.device is cuda, but torch finds no CUDA device here: set it to auto or cpu, "
            "or install a torch built for CUDA"
        )
    return torch.device("cuda" if available and name != "cpu" else "cpu")


@contextmanager
def computing(settings: FitSettings) -> Iterator[None]:
    """Compute with `settings.threads` and, if they ask for it, deterministic algorithms.

    A CPU is always deterministic. Both are restored at the end.
    """
    # cuBLAS reads this once, when it starts; without it its sums are not deterministic.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    was = torch.get_num_threads(), torch.get_deterministic_debug_mode()
    filled = _MEMORY.fill_uninitialized_memory
    torch.set_num_threads(settings.threads)
    # It would fill each new tensor with NaN before it is written, to find faults of torch itself.
    _MEMORY.fill_uninitialized_memory = False
    # `use_deterministic_algorithms` sets the same, and loads torch's compiler to tell it: 2 s.
    deterministic = settings.deterministic or resolve_device(settings.device).type == "cpu"
    torch.set_deterministic_debug_mode("error" if deterministic else "default")
    try:
        yield
    finally:
        torch.set_num_threads(was[0])
        torch.set_deterministic_debug_mode(was[1])
        _MEMORY.fill_uninitialized_memory = filled


@contextmanager
def seeded(seed: int, device: torch.device) -> Iterator[torch.Generator]:
    """Seed everything random (first weights, dropout); the caller's random state comes back.

    Yields a CPU generator for the order, the offsets and the hidden sources of the cases: drawn on
    the CPU, they are the same on every device.
    """
    cards = [torch.cuda.current_device()] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=cards):
        torch.manual_seed(seed)
        yield torch.Generator().manual_seed(seed)
