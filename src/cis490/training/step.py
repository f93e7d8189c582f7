"""One optimiser step: pieces of a batch, mixed precision, clipping, in the one right order."""

from __future__ import annotations

import logging
from typing import Final, NamedTuple

import torch
from torch import nn

from cis490.errors import ConfigError
from cis490.training.batches import Batch
from cis490.training.graphs import Graphs
from cis490.training.losses import Loss

logger = logging.getLogger("cis490")

TYPES: Final = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}


class Stepped(NamedTuple):
    """What became of a step; its tensors are on the device, so that nobody waits for them.

    Attributes:
        loss: the batch's mean loss before the step.
        norm: length of the whole gradient before clipping.
        table: (n_classes, n_classes) float32 counts of the batch by label and prediction.
        skipped: whether the scaler left the step out, because scaled gradients overflowed.
    """

    loss: torch.Tensor
    norm: torch.Tensor
    table: torch.Tensor
    skipped: bool


class Stepper:
    """Makes optimiser steps on a network.

    A batch is worked off in pieces of `micro_batch` cases whose gradients add up to the batch's, so
    memory bounds the pieces and never the batch. A piece that does not fit into memory is halved.

    Args:
        net: (b, n_inputs, n_timepoints) to logits (b, n_classes).
        optimizer: of the network's parameters.
        loss: see `Loss`, on the network's device.
        precision: a name in `TYPES`; float16 brings a gradient scaler with it.
        clip_norm: longer gradients are shortened to it.
        micro_batch: cases of a piece, at most.
        scaler: another one than the precision asks for.
        graphs: on a card, record steps and play them (`Graphs`), unless a scaler has to look at
            each; the optimiser must be capturable then.
    """

    def __init__(
        self,
        net: nn.Module,
        optimizer: torch.optim.Optimizer,
        loss: Loss,
        *,
        precision: str,
        clip_norm: float,
        micro_batch: int,
        scaler: torch.amp.GradScaler | None = None,
        graphs: bool = False,
    ) -> None:
        self.net, self.optimizer, self.loss = net, optimizer, loss
        self.device = loss.weights.device
        self.type = TYPES[precision]
        self._unit = torch.eye(len(loss.weights), device=self.device)
        self.clip_norm = clip_norm
        self.micro_batch = micro_batch
        self.scaler = scaler or torch.amp.GradScaler(
            self.device.type, enabled=precision == "float16"
        )
        self._graphs, self._rate = None, None
        if graphs and self.device.type == "cuda" and not self.scaler.is_enabled():
            self._graphs = Graphs()
            self._rate = torch.zeros((), device=self.device)  # a recording reads it from there

    def step(self, batch: Batch, rate: float) -> Stepped:
        """Make a step on one batch at a learning rate.

        Raises:
            MemoryError: a single case does not fit.
        """
        if self._rate is not None:
            self._rate.fill_(rate)
        for group in self.optimizer.param_groups:
            group["lr"] = rate if self._rate is None else self._rate
        scale = self.scaler.get_scale()
        made = self._graphs.step(batch, self._work) if self._graphs else None
        if made is None:
            made = self._applied(*self._fitting_gradients(batch))
        table = made[2:].view_as(self._unit)
        return Stepped(made[0], made[1], table, self.scaler.get_scale() < scale)

    def forget(self) -> None:
        """Record steps anew; to be called when what the optimiser remembers was replaced."""
        if self._graphs:
            self._graphs.forget()

    def _fitting_gradients(self, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
        """As `_gradients`, in smaller pieces if memory runs out."""
        while True:
            try:
                return self._gradients(batch)
            except torch.OutOfMemoryError as error:
                self.optimizer.zero_grad(set_to_none=True)
                self.forget()
                if self.micro_batch == 1:
                    raise MemoryError(f"not even one case fits: {error}") from None
                self.micro_batch = -(-min(self.micro_batch, len(batch)) // 2)
                logger.warning("out of memory: goes on with pieces of %d cases", self.micro_batch)
                if self.device.type == "cuda":
                    torch.cuda.empty_cache()

    def _work(self, batch: Batch) -> torch.Tensor:
        return self._applied(*self._gradients(batch))

    def _applied(self, loss: torch.Tensor, table: torch.Tensor) -> torch.Tensor:
        """Step along the gradients there are: loss, norm and table one after another."""
        self.scaler.unscale_(self.optimizer)  # at their own scale, or the clip means nothing
        norm = nn.utils.clip_grad_norm_(self.net.parameters(), self.clip_norm)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        return torch.cat([loss[None], norm[None], table.flatten()])

    def _gradients(self, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
        """Leave the batch's (scaled) gradients in the parameters; return its loss and table."""
        self.optimizer.zero_grad(set_to_none=True)
        total = self.loss.weight(batch.y)
        loss, table = torch.zeros((), device=self.device), torch.zeros_like(self._unit)
        for x, y in batch.pieces(self.micro_batch):
            with torch.autocast(self.device.type, self.type, enabled=self.type != torch.float32):
                logits = self.net(x)
            share = self.loss.share(logits, y, total)
            self.scaler.scale(share).backward()
            loss += share.detach()
            table += self._unit[y].T @ self._unit[logits.argmax(1)]
        return loss, table


def resolve_precision(name: str, device: torch.device) -> str:
    """The name in `TYPES` that `training.precision` means on a device.

    `auto` is float32 on a CPU, where less gains nothing, and on a card bfloat16 where it has that,
    else float16.

    Raises:
        ConfigError: float16 on a CPU, or bfloat16 on a card without it.
    """
    on_card = device.type == "cuda"
    bfloat16 = not on_card or torch.cuda.is_bf16_supported(including_emulation=False)
    if name == "auto":
        return ("bfloat16" if bfloat16 else "float16") if on_card else "float32"
    if name == "float16" and not on_card:
        raise ConfigError("training.precision is float16, which a CPU only emulates: use auto")
    if name == "bfloat16" and not bfloat16:
        raise ConfigError("training.precision is bfloat16, which this card lacks: use auto")
    return name
