"""The one training loop of the five networks, on one page."""

from __future__ import annotations

import logging
from typing import Final, NamedTuple

import numpy as np
import torch
from torch import nn

from cis490.errors import Cis490Error
from cis490.training.batches import Batches
from cis490.training.collapse import Collapse
from cis490.training.ladder import Action, Ladder
from cis490.training.losses import Loss
from cis490.training.profile import Profiler
from cis490.training.run import Run
from cis490.training.schedule import learning_rate_factor, macro_f1
from cis490.training.state import Kept, State
from cis490.training.step import Stepped

logger = logging.getLogger("cis490")

LOOK: Final = 25  # steps between two looks at their losses and norms: a look waits for the device


class TrainingFailed(Cis490Error):
    """A training that cannot go on; the message says at which epoch and step."""


class AnotherSeed(Cis490Error):
    """A training that collapsed and is to begin anew, from another seed."""


def train_network(
    state: State,
    train: Batches,
    val: Batches | None,
    *,
    rate: float,
    epochs: int,
    ladder: Ladder,
    run: Run,
    kept: Kept,
) -> None:
    """Train `state.net` in place and leave it with the weights that were best on val.

    Args:
        state: a new one, or one that a killed training left.
        val: decides when to stop and what to keep; None: train to the end, keep the last weights.
        rate: the learning rate's peak.
        epochs: at most.
        ladder: says what becomes of a collapse.
        run: who listens, and whether to profile.
        kept: takes the state after each epoch.

    Raises:
        AnotherSeed: it collapsed, and going back did not help.
        TrainingFailed: it collapsed, and nothing helps any more; or no epoch ended well; or a
            weight that would be kept is not finite.
    """
    total, loss = epochs * len(train), state.stepper.loss
    with Profiler(run.profile) as profiler:
        while state.epoch < epochs and not state.stopping.stop:
            state.epoch += 1
            state.net.train()
            steps, factor, collapse = Steps(), 0.0, None
            for batch in train.shuffled(state.generator):
                factor = ladder.rate_factor * learning_rate_factor(state.step, total)
                steps.add(state.stepper.step(batch, rate * factor))
                state.step += 1
                profiler.step()
                if steps.unseen == LOOK and (collapse := steps.look(state)):
                    break
            collapse = collapse or steps.look(state)
            judged = None if collapse or val is None else judge(state.net, val, loss)
            if judged:
                collapse = judged.collapse(state)
            state.history.append(_row(state, steps, judged, rate * factor))
            run.listen(state.history[-1])
            if collapse:
                _climb(ladder, collapse, state)
            elif judged is None or state.stopping.improved(state.step, judged.f1, judged.loss):
                state.keep()
            kept.save({**state.save(), "ladder": ladder.state()})
    if state.best_epoch == 0:
        raise TrainingFailed(f"not one of {state.epoch} epochs ended without a collapse")
    state.net.load_state_dict(state.best)
    # Without val nothing has looked at what the last step did.
    if not all(tensor.isfinite().all() for tensor in state.best.values()):
        raise TrainingFailed(f"weights are not finite after epoch {state.best_epoch}")


class Steps:
    """The losses and norms of an epoch's steps, fetched from the device some at a time."""

    def __init__(self) -> None:
        self._waiting: list[Stepped] = []
        self.loss, self.norm = np.empty(0), np.empty(0)
        self.skipped = np.empty(0, bool)

    @property
    def unseen(self) -> int:
        """Steps since the last look."""
        return len(self._waiting)

    def add(self, step: Stepped) -> None:
        """Take note of a step."""
        self._waiting.append(step)

    def look(self, state: State) -> Collapse | None:
        """Fetch what is new and show it to the monitor."""
        if not self._waiting:
            return None
        columns = zip(*((s.loss, s.norm, s.table) for s in self._waiting), strict=True)
        loss, norm, table = (torch.stack(column).double().cpu().numpy() for column in columns)
        skipped = np.array([step.skipped for step in self._waiting])
        self._waiting = []
        self.loss, self.norm = np.append(self.loss, loss), np.append(self.norm, norm)
        self.skipped = np.append(self.skipped, skipped)
        return state.monitor.steps(state.epoch, state.step, loss, norm, skipped, table)


class Judged(NamedTuple):
    """What a network makes of cases.

    Attributes:
        loss: mean loss.
        f1: macro F1.
        truth, predicted: (n_classes,) counts of the labels.
        spread: the largest standard deviation that a class's logit has over the cases.
    """

    loss: float
    f1: float
    truth: np.ndarray
    predicted: np.ndarray
    spread: float

    def collapse(self, state: State) -> Collapse | None:
        """Show it to the monitor."""
        counts = self.truth, self.predicted
        return state.monitor.epoch(state.epoch, state.step, self.loss, *counts, self.spread)


@torch.inference_mode()
def judge(net: nn.Module, cases: Batches, loss: Loss) -> Judged:
    """Judge a network on cases, in full precision."""
    net.eval()
    pairs = [(net(x), y) for x, y in cases.in_order()]
    logits, y = torch.cat([pair[0] for pair in pairs]), torch.cat([pair[1] for pair in pairs])
    mean, n_classes = loss(logits, y).item(), logits.shape[1]
    truth, found = y.cpu().numpy(), logits.argmax(1).cpu().numpy()
    truths, founds = (np.bincount(labels, minlength=n_classes) for labels in (truth, found))
    spread = logits.std(0, correction=0).max().item()
    return Judged(mean, macro_f1(truth, found, n_classes), truths, founds, spread)


def _climb(ladder: Ladder, collapse: Collapse, state: State) -> None:
    """Do what the ladder says of a collapse; a halved rate follows from the ladder itself."""
    action = ladder.act(collapse)
    logger.warning("collapse: %s: %s", collapse.reason, action)
    if action is Action.FAIL:
        raise TrainingFailed(collapse.reason)
    if action is Action.RESEED:
        raise AnotherSeed(collapse.reason)
    state.go_back()


def _row(
    state: State, steps: Steps, judged: Judged | None, rate: float
) -> dict[str, float | int | None]:
    """A row of the history; what is not finite is not known."""
    known = {
        "train_loss": float(steps.loss.mean()),
        "val_loss": None if judged is None else judged.loss,
        "val_macro_f1": None if judged is None else judged.f1,
        "learning_rate": rate,
        "grad_norm": float(steps.norm[~steps.skipped].mean()) if not steps.skipped.all() else None,
    }
    row = {
        key: value if value is None or np.isfinite(value) else None for key, value in known.items()
    }
    own = {"attempt": state.attempt, "epoch": state.epoch, "step": state.step}
    return {**own, **row, "skipped_steps": int(steps.skipped.sum())}
