"""How a network comes to be trained: data made ready once, then each seed through the loop."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Final, Generic, NamedTuple, TypeVar

import numpy as np
import torch
from torch import nn

from cis490.files import to_json
from cis490.models.base import FitSettings
from cis490.models.preprocess import Standardiser
from cis490.training.batches import Batch, Batches
from cis490.training.collapse import Monitor
from cis490.training.device import computing, seeded
from cis490.training.finder import find_rate
from cis490.training.ladder import Ladder
from cis490.training.loop import AnotherSeed, train_network
from cis490.training.losses import Loss
from cis490.training.memory import largest_micro_batch
from cis490.training.run import History, Run
from cis490.training.schedule import EarlyStopping, warm_up_steps
from cis490.training.state import Kept, State
from cis490.training.step import TYPES, Stepper, resolve_precision

Net = TypeVar("Net", bound=nn.Module)

PROBING_SEED: Final = 0  # of what is measured before training, so that all seeds share its outcome
FALLBACK_RATE: Final = 1e-3  # AdamW's own default, where a range test suggests nothing


@dataclass(frozen=True)
class Ready:
    """Training data on the device, and what was chosen for them; every seed trains on the same.

    Attributes:
        standardiser: measured on the training cases.
        train, val: batches; val is None where there is none.
        loss: on the same device.
        class_counts: (n_classes,) training cases of each class.
        chosen: what the settings came to here: device, precision, resident, micro_batch,
            learning_rate and learning_rate_from (config, range test or fallback).
    """

    standardiser: Standardiser
    train: Batches
    val: Batches | None
    loss: Loss
    class_counts: np.ndarray
    chosen: Mapping[str, Any]


class Trained(NamedTuple, Generic[Net]):
    """A trained network; see `models.base.Classifier` for what the others mean."""

    net: Net
    best_epoch: int
    chosen: dict[str, Any]


class Training(Generic[Net]):
    """Trains networks of one make.

    Attributes:
        history, events: of the last training, also when it failed.

    Args:
        build: an untrained network; random numbers come from torch's own generator.
        make: all that says what `build` builds, JSON-able.
        settings: how to train.
        run: what surrounds it.
    """

    def __init__(
        self, build: Callable[[], Net], make: Mapping[str, Any], settings: FitSettings, run: Run
    ) -> None:
        self.build, self.make, self.settings, self.run = build, make, settings, run
        self.history: History = []
        self.events: list[dict[str, Any]] = []

    def suited(self, ready: Ready) -> Ready:
        """The same with what `auto` settings come to, for these networks on these data."""
        settings, device = self.settings, ready.train.device
        precision = resolve_precision(settings.precision, device)
        chosen: dict[str, Any] = {
            "device": device.type,
            "precision": precision,
            "resident": ready.train.resident,
            "micro_batch": settings.micro_batch,
            "learning_rate": settings.learning_rate,
            "learning_rate_from": "config",
        }
        # A network and random numbers for each, or what fits would have a say in the rate.
        if settings.micro_batch == "auto":
            with computing(settings), seeded(PROBING_SEED, device):
                x, y = next(ready.train.in_order())
                net, most = self.build().to(device), settings.batch_size
                chosen["micro_batch"] = largest_micro_batch(
                    net, ready.loss, x, y, TYPES[precision], batch_size=most
                )
        if settings.learning_rate == "auto":
            with computing(settings), seeded(PROBING_SEED, device) as generator:
                stepper = self._stepper(self.build().to(device), ready.loss, chosen)
                batches = _endless(ready.train, generator)

                def step(rate: float) -> float:
                    return stepper.step(next(batches), rate).loss.item()

                found = find_rate(step, self.run.rates, self._rate_parts(chosen))
                chosen["learning_rate"] = found or FALLBACK_RATE
                chosen["learning_rate_from"] = "range test" if found else "fallback"
        return replace(ready, chosen=chosen)

    def train(self, ready: Ready, seed: int) -> Trained[Net]:
        """Train from a seed, and anew from another if that collapses, as the ladder says.

        Raises:
            TrainingFailed: nothing helped.
            MemoryError: it does not fit, however small the pieces of a batch are.
        """
        folder, device = self.run.folder, ready.train.device
        kept = Kept(folder and folder / f"seed-{seed}.pt", self._key(ready, seed))
        saved = kept.load()
        ladder = Ladder(seed)
        attempt = 1
        if saved:
            ladder.restore(saved["ladder"])
            attempt = saved["attempt"]
        self.history, self.events = [], ladder.events
        while True:
            with computing(self.settings), seeded(ladder.seed, device) as generator:
                net = self.build().to(device)
                state = self._state(net, ready, generator, attempt)
                if saved:
                    state.load(saved)
                self.history = state.history
                try:
                    train_network(
                        state,
                        ready.train,
                        ready.val,
                        rate=ready.chosen["learning_rate"],
                        epochs=self.settings.epochs,
                        ladder=ladder,
                        run=self.run,
                        kept=kept,
                    )
                except AnotherSeed:
                    saved, attempt = None, attempt + 1
                    continue
                except torch.OutOfMemoryError as error:  # where no piece could be halved
                    raise MemoryError(str(error)) from None
            chosen = {"micro_batch": state.stepper.micro_batch, "seed": ladder.seed}
            return Trained(net, state.best_epoch, {**ready.chosen, **chosen})

    def _state(self, net: Net, ready: Ready, generator: torch.Generator, attempt: int) -> State:
        counts = ready.class_counts
        if self.settings.imbalance == "balanced":  # all classes are drawn alike
            counts = np.where(counts > 0, counts.max(), 0)
        monitor = Monitor(
            counts=counts,
            weights=ready.loss.weights.cpu().numpy(),
            batch_size=min(self.settings.batch_size, len(ready.train.start)),
            warm_up_steps=warm_up_steps(self.settings.epochs * len(ready.train)),
            chance=ready.loss.chance(counts),
            floor=ready.loss.floor(counts),
        )
        stepper = self._stepper(net, ready.loss, ready.chosen)
        stopping = EarlyStopping(self.settings.patience)
        return State(net, stepper, monitor, stopping, generator, attempt, self.history)

    def _stepper(self, net: Net, loss: Loss, chosen: Mapping[str, Any]) -> Stepper:
        decay, on_card = self.settings.weight_decay, loss.weights.is_cuda
        optimizer = torch.optim.AdamW(
            net.parameters(), weight_decay=decay, fused=True, capturable=on_card
        )
        return Stepper(
            net,
            optimizer,
            loss,
            precision=chosen["precision"],
            clip_norm=self.settings.clip_norm,
            micro_batch=chosen["micro_batch"],
            # A trace shows kernels by what started them.
            graphs=self.settings.graphs and self.run.profile is None,
        )

    def _rate_parts(self, chosen: Mapping[str, Any]) -> dict[str, Any]:
        """What a learning rate depends on, part by part (`finder.key_of`)."""
        settings = asdict(self.settings)

        def some(*names: str) -> dict[str, Any]:
            return {name: settings[name] for name in names}

        return {
            "data": [self.run.data, some("source_dropout", "scale_jitter")],
            "model": self.make,
            "loss": some("imbalance", "focal_gamma", "label_smoothing"),
            "batch": [some("batch_size"), chosen["micro_batch"], chosen["resident"]],
            "optimiser": ["AdamW", some("weight_decay", "clip_norm")],
            "precision": [chosen["device"], chosen["precision"], some("threads", "deterministic")],
            "code": [self.run.code, str(torch.__version__)],
        }

    def _key(self, ready: Ready, seed: int) -> str:
        """Hash of all that decides what is learned from a seed."""
        parts = [
            self._rate_parts(ready.chosen),
            asdict(replace(self.settings, device=ready.train.device.type)),
            ready.chosen,
            seed,
        ]
        return hashlib.sha256(to_json(parts).encode()).hexdigest()


def _endless(batches: Batches, generator: torch.Generator) -> Iterator[Batch]:
    while True:
        yield from batches.shuffled(generator)
