"""The one training loop of the five networks."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import nn

from cis490.errors import Cis490Error
from cis490.models.base import FitSettings
from cis490.training.batches import Batches
from cis490.training.schedule import EarlyStopping, learning_rate_factor, macro_f1

logger = logging.getLogger("cis490")

History = list[dict[str, float | int | None]]


class TrainingFailed(Cis490Error):
    """A training that cannot go on; the message says at which epoch and step."""


def train_network(
    net: nn.Module,
    train: Batches,
    val: Batches | None,
    weights: torch.Tensor,
    settings: FitSettings,
    generator: torch.Generator,
) -> tuple[History, int]:
    """Train `net` in place and leave it with the weights that were best on val.

    Args:
        net: (b, n_inputs, n_timepoints) to logits (b, n_classes), on the device of the batches.
        val: decides when to stop and what to keep; None: train to the end, keep the last weights.
        weights: (n_classes,) float32 class weights, on the same device.
        generator: of the order and offsets of the training cases.

    Returns:
        A row an epoch: epoch, step, train_loss, val_loss, val_macro_f1 (None without val),
        learning_rate (of the last step), grad_norm (mean, before clipping); and the epoch whose
        weights were kept.

    Raises:
        TrainingFailed: a loss, or a weight that would be kept, is not finite.
    """
    device, total = weights.device, settings.epochs * len(train)
    optimizer = torch.optim.AdamW(
        net.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay
    )
    half = device.type == "cuda"  # mixed precision gains nothing on a CPU
    scaler = torch.amp.GradScaler(device.type, enabled=half)
    stopping = EarlyStopping(settings.patience)
    history: History = []
    best: dict[str, torch.Tensor] = {}
    best_epoch = step = 0

    for epoch in range(1, settings.epochs + 1):
        net.train()
        losses, norms, rate = [], [], 0.0
        for x, y in train.shuffled(generator):
            rate = settings.learning_rate * learning_rate_factor(step, total)
            for group in optimizer.param_groups:
                group["lr"] = rate
            with torch.autocast(device.type, enabled=half):
                loss = weighted_cross_entropy(net(x), y, weights)
            losses.append(_finite(loss, "training", epoch, step + 1))
            optimizer.zero_grad(set_to_none=True)
            scaler.scale(loss).backward()
            scaler.unscale_(optimizer)  # gradients at their own scale, or the clip means nothing
            norms.append(nn.utils.clip_grad_norm_(net.parameters(), settings.clip_norm).item())
            scaler.step(optimizer)
            scaler.update()
            step += 1

        val_loss, val_f1 = (None, None) if val is None else evaluate(net, val, weights)
        history.append(
            {
                "epoch": epoch,
                "step": step,
                "train_loss": sum(losses) / len(losses),
                "val_loss": val_loss,
                "val_macro_f1": val_f1,
                "learning_rate": rate,
                "grad_norm": sum(norms) / len(norms),
            }
        )
        logger.info(progress(history[-1]))
        if val_loss is None or val_f1 is None:
            continue
        _finite(torch.tensor(val_loss), "validation", epoch, step)
        if stopping.improved(step, val_f1, val_loss):
            best_epoch = epoch
            best = {name: tensor.clone() for name, tensor in net.state_dict().items()}
        if stopping.stop:
            break
    if best:
        net.load_state_dict(best)
    if not all(tensor.isfinite().all() for tensor in net.state_dict().values()):
        raise TrainingFailed(f"weights are not finite after epoch {epoch}, step {step}")
    return history, best_epoch if best else epoch


def weighted_cross_entropy(
    logits: torch.Tensor, y: torch.Tensor, weights: torch.Tensor
) -> torch.Tensor:
    """Cross-entropy averaged with the weight of each case's class; 0 if no case has weight.

    Args:
        logits: (b, n_classes).
        y: (b,) int64.
        weights: (n_classes,).
    """
    each = weights[y]
    loss = F.cross_entropy(logits.float(), y, reduction="none")
    return (each * loss).sum() / each.sum().clamp_min(1e-12)


@torch.inference_mode()
def evaluate(net: nn.Module, cases: Batches, weights: torch.Tensor) -> tuple[float, float]:
    """Class-weighted loss and macro F1 over cases, in full precision."""
    net.eval()
    pairs = [(net(x), y) for x, y in cases.in_order()]
    logits, y = torch.cat([pair[0] for pair in pairs]), torch.cat([pair[1] for pair in pairs])
    loss = weighted_cross_entropy(logits, y, weights).item()
    found = logits.argmax(1)
    return loss, macro_f1(y.cpu().numpy(), found.cpu().numpy(), logits.shape[1])


def progress(row: Mapping[str, float | int | None]) -> str:
    """A row of the history as a line for the log."""
    told = {name: value for name, value in row.items() if value is not None}
    return ", ".join(f"{name} {value:.4g}" for name, value in told.items())


def _finite(loss: torch.Tensor, which: str, epoch: int, step: int) -> float:
    value = loss.item()
    if not math.isfinite(value):
        raise TrainingFailed(f"the {which} loss is {value} at epoch {epoch}, step {step}")
    return float(value)
