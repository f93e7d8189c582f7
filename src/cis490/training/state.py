"""Everything that a training is between two epochs; saved and restored, it goes on to the bit."""

from __future__ import annotations

import hashlib
import io
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import torch
from torch import nn

from cis490.files import write_bytes
from cis490.training.collapse import Monitor
from cis490.training.run import History
from cis490.training.schedule import EarlyStopping
from cis490.training.step import Stepper

logger = logging.getLogger("cis490")

_DIGEST: Final = hashlib.sha256().digest_size

Weights = dict[str, torch.Tensor]


class State:
    """Counters, history and the best weights of a training, beside what it trains with.

    Attributes:
        attempt: from 1; more where training began anew from another seed.
        epoch, step: how many were made.
        history: a row an epoch, of this attempt and those before.
        best: weights to keep, and to go back to; the first ones until an epoch was good.
        best_epoch: theirs, from 1; 0 for the first weights.
    """

    def __init__(
        self,
        net: nn.Module,
        stepper: Stepper,
        monitor: Monitor,
        stopping: EarlyStopping,
        generator: torch.Generator,
        attempt: int,
        history: History,
    ) -> None:
        self.net, self.stepper, self.monitor = net, stepper, monitor
        self.stopping, self.generator = stopping, generator
        self.attempt = attempt
        self.epoch = self.step = 0
        self.history = history
        self._first_scale = stepper.scaler.state_dict()
        self.keep()

    def keep(self) -> None:
        """Take the network's weights for the best."""
        self.best: Weights = {
            name: tensor.clone() for name, tensor in self.net.state_dict().items()
        }
        self.best_epoch = self.epoch

    def go_back(self) -> None:
        """Return to the best weights; what optimiser and scaler remember led away from them."""
        self.net.load_state_dict(self.best)
        self.stepper.optimizer.state.clear()
        self.stepper.forget()
        self.stepper.scaler.load_state_dict(self._first_scale)
        self.monitor.reset()

    def save(self) -> dict[str, Any]:
        """All of it, as tensors and plain values."""
        device = self.stepper.device
        return {
            "net": self.net.state_dict(),
            "optimizer": self.stepper.optimizer.state_dict(),
            "scaler": self.stepper.scaler.state_dict(),
            "micro_batch": self.stepper.micro_batch,
            "monitor": self.monitor.state(),
            "stopping": [list(self.stopping.best), self.stopping.waited],
            "generator": self.generator.get_state(),
            "random": torch.get_rng_state(),
            "random_on_card": torch.cuda.get_rng_state(device) if device.type == "cuda" else None,
            "attempt": self.attempt,
            "counters": [self.epoch, self.step, self.best_epoch],
            "history": self.history,
            "best": self.best,
        }

    def load(self, saved: Mapping[str, Any]) -> None:
        """Be what `save` gave."""
        device = self.stepper.device
        self.net.load_state_dict(saved["net"])
        self.stepper.optimizer.load_state_dict(saved["optimizer"])
        self.stepper.forget()
        self.stepper.scaler.load_state_dict(saved["scaler"])
        self.stepper.micro_batch = saved["micro_batch"]
        self.monitor.restore(saved["monitor"])
        (f1, loss), self.stopping.waited = saved["stopping"]
        self.stopping.best = (f1, loss)
        self.generator.set_state(saved["generator"])
        torch.set_rng_state(saved["random"])
        if saved["random_on_card"] is not None:
            torch.cuda.set_rng_state(saved["random_on_card"], device)
        self.epoch, self.step, self.best_epoch = saved["counters"]
        self.history = [dict(row) for row in saved["history"]]
        self.best = {name: tensor.to(device) for name, tensor in saved["best"].items()}


class Kept:
    """The state of one training on disk, as its last epoch left it.

    Args:
        file: where; None: nothing is kept.
        key: hash of all that decides what is learned; a state of another key is not used.
    """

    def __init__(self, file: Path | None, key: str) -> None:
        self.file, self.key = file, key

    def load(self) -> dict[str, Any] | None:
        """The state, or None if there is none, or none that can be used; nothing is executed."""
        if self.file is None or not self.file.exists():
            return None
        raw = self.file.read_bytes()
        digest, content = raw[:_DIGEST], raw[_DIGEST:]
        if digest != hashlib.sha256(content).digest():
            logger.warning("%s is damaged: training begins anew", self.file)
            return None
        state: dict[str, Any] = torch.load(
            io.BytesIO(content), map_location="cpu", weights_only=True
        )
        if state["key"] != self.key:
            logger.info("%s is of other data, settings or code: training begins anew", self.file)
            return None
        return state

    def save(self, state: Mapping[str, Any]) -> None:
        """Write the state, whole or not at all, behind its sha256."""
        if self.file is not None:
            buffer = io.BytesIO()
            torch.save({**state, "key": self.key}, buffer)
            content = buffer.getvalue()
            write_bytes(self.file, hashlib.sha256(content).digest() + content)
