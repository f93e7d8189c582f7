"""How much fits: pieces of a batch, and the series, measured and not looked up by a card's name."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Final

import torch
from torch import nn

from cis490.hardware import available_memory
from cis490.training.losses import Loss

logger = logging.getLogger("cis490")

HEADROOM: Final = 0.2  # share of what is free that stays so: allocators round up, others come
SERIES: Final = 0.5  # share of a card's free memory that the windows may take
SAMPLED: Final = 8  # cases from which a CPU's need is reckoned


def largest_micro_batch(
    net: nn.Module,
    loss: Loss,
    x: torch.Tensor,
    y: torch.Tensor,
    precision: torch.dtype,
    *,
    batch_size: int,
) -> int:
    """The most cases whose gradients fit into memory at once: `batch_size`, or a half of it, or ….

    On a card a forward and a backward pass are made for real. On a CPU, where nothing says in time
    that memory is short, the tensors kept for the backward pass of a few cases are counted, twice,
    for their gradients.

    Args:
        net, loss: on the device; the network's gradients are gone afterwards.
        x, y: some cases, on the device; repeated to make `batch_size`.
        precision: what the forward pass computes in.
        batch_size: the most that is wanted.
    """
    device = x.device
    size = batch_size
    if device.type == "cuda":
        while size > 1 and not _fits_on_card(net, loss, _repeated(x, y, size), precision):
            size = -(-size // 2)
    else:
        some = min(SAMPLED, len(y), batch_size)
        each = 2 * _kept_bytes(net, loss, x[:some], y[:some]) / some
        free = (1 - HEADROOM) * available_memory()
        while size > 1 and size * each > free:
            size = -(-size // 2)
    if size < batch_size:
        logger.info("batches of %d are worked off in pieces of %d", batch_size, size)
    return size


def series_budget(device: torch.device) -> int | None:
    """Bytes that the windows may take on a card; None on a CPU, where they are anyway."""
    if device.type != "cuda":
        return None
    return int(SERIES * torch.cuda.mem_get_info(device)[0])


def _repeated(x: torch.Tensor, y: torch.Tensor, size: int) -> tuple[torch.Tensor, torch.Tensor]:
    rows = torch.arange(size, device=x.device) % len(y)
    return x[rows], y[rows]


def _pass(
    net: nn.Module, loss: Loss, x: torch.Tensor, y: torch.Tensor, precision: torch.dtype
) -> None:
    """A forward and a backward pass that leaves nothing behind."""
    net.train()
    with torch.autocast(x.device.type, precision, enabled=precision != torch.float32):
        logits = net(x)
    loss(logits, y).backward()
    net.zero_grad(set_to_none=True)


def _fits_on_card(
    net: nn.Module, loss: Loss, cases: tuple[torch.Tensor, torch.Tensor], precision: torch.dtype
) -> bool:
    device = cases[0].device
    torch.cuda.empty_cache()
    free = torch.cuda.mem_get_info(device)[0] + torch.cuda.memory_allocated(device)
    torch.cuda.reset_peak_memory_stats(device)
    try:
        _pass(net, loss, *cases, precision)
    except torch.OutOfMemoryError:
        net.zero_grad(set_to_none=True)
        return False
    optimiser = 2 * sum(parameter.nbytes for parameter in net.parameters())
    return torch.cuda.max_memory_allocated(device) + optimiser <= (1 - HEADROOM) * free


def _kept_bytes(net: nn.Module, loss: Loss, x: torch.Tensor, y: torch.Tensor) -> int:
    """Bytes of all tensors that a forward pass keeps for the backward one, parameters left out."""
    own = {parameter.data_ptr() for parameter in net.parameters()}
    kept: dict[int, int] = {}

    def note(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.data_ptr() not in own:
            kept[tensor.data_ptr()] = max(tensor.nbytes, kept.get(tensor.data_ptr(), 0))
        return tensor

    unpack: Callable[[torch.Tensor], torch.Tensor] = lambda tensor: tensor  # noqa: E731
    with torch.autograd.graph.saved_tensors_hooks(note, unpack):
        _pass(net, loss, x, y, torch.float32)
    return sum(kept.values())
