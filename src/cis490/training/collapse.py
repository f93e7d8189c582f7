"""Whether a training has collapsed, by the figures of its steps and epochs.

A monitor judges sliding windows of samples, never single batches: a window is as many steps as hold
1024 samples, at least 16. Only what is not finite is judged at once. Bounds are multiples of two
figures that every training has: the loss of always predicting the classes' shares ("chance"), and
the first gradients. Each stands where 200 healthy runs leave room on one side and runs broken on
purpose on the other (docs/decisions/0006-training.md, tests/training/runs.py).
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

import numpy as np

WINDOW_SAMPLES = 1024
WINDOW_STEPS = 16
# Rise of a window's mean loss over the lowest so far, in chance; healthy runs stay below 0.45. Each
# loss counts as 4 times chance at most, so that a fifth of a window's batches must be as bad.
RISE, CUT = 0.8, 4.0
# Norms of a window over the largest of the first 16: all below, though the loss is not near 0.
DEAD, UNSOLVED = 1e-6, 1e-3
# Median norm of a window: over the largest of the first 16, or over the lowest median so far.
EXPLODED, EXPLODED_SINCE = 100.0, 1000.0
# Standard deviation over val of every logit, below which the outputs do not depend on the input.
CONSTANT = 0.01
# Mean loss while one class is predicted, over the least that the classes' shares permit then; below
# what focal loss with gamma 2 takes off, so that it holds for it as well.
IMPOSSIBLE = 0.2
OTHER_SAMPLES = 20  # expected of the smaller classes before one class alone is evidence
# GradScaler starts at 2^16, may double every 2000 steps and halves at each skip: after 40 in a row
# gradients are infinite at any scale.
SKIPS = 40


class Kind(StrEnum):
    """What a training collapsed of."""

    NON_FINITE_LOSS = "non_finite_loss"
    NON_FINITE_GRADIENT = "non_finite_gradient"
    DEAD_GRADIENT = "dead_gradient"
    EXPLODING_GRADIENT = "exploding_gradient"
    LOSS_SPIKE = "loss_spike"
    ONE_CLASS = "one_class"


@dataclass(frozen=True)
class Collapse:
    """What was seen, and when.

    Attributes:
        step: after which it was seen, from 1.
        reason: a sentence with the figures and the bound.
        measured: the figures, finite or as text ("nan", "inf").
    """

    kind: Kind
    epoch: int
    step: int
    reason: str
    measured: dict[str, float | str]


class Monitor:
    """Judges one training; a new one is made for another seed.

    Args:
        counts: (n_classes,) of the training labels as they are drawn: balanced sampling draws all
            classes alike.
        weights: (n_classes,) of the loss.
        batch_size: samples a step of the optimiser.
        warm_up_steps: of the learning rate. The first windows need no such grace, for they are
            compared with the first batch; constant outputs do, and every window after a `reset`,
            where the optimiser begins anew with other weights.
        chance: loss of always predicting the classes' shares (`Loss.chance`).
        floor: least that the loss can be; above 0 with label smoothing.
    """

    def __init__(
        self,
        *,
        counts: np.ndarray,
        weights: np.ndarray,
        batch_size: int,
        warm_up_steps: int,
        chance: float,
        floor: float = 0.0,
    ) -> None:
        share = _shares(counts, weights)
        self._other = 1 - share  # weighted share of all classes but this one
        self._floor = floor
        self._chance = max(1e-12, chance - floor)
        self._size = max(WINDOW_STEPS, math.ceil(WINDOW_SAMPLES / batch_size))
        smaller = 1 - counts.max() / counts.sum()  # share of samples outside the largest class
        enough = max(WINDOW_SAMPLES, OTHER_SAMPLES / smaller) if smaller else WINDOW_SAMPLES
        self._one_class_steps = max(WINDOW_STEPS, math.ceil(enough / batch_size))
        self._warm_up = warm_up_steps
        self._first_loss: float | None = None
        self._first_norms: list[float] = []
        self._forget(grace=0)

    def reset(self) -> None:
        """Forget the windows: the weights are others now. What training began with stays known."""
        self._forget(grace=self._warm_up)

    def _forget(self, grace: int) -> None:
        self._grace = grace
        self._seen = self._skipped = 0
        self._losses: deque[float] = deque(maxlen=self._size)
        self._norms: deque[float] = deque(maxlen=self._size)
        self._lowest_loss = self._lowest_norm = math.inf
        self._drawn = _Streak()
        self._predicted = _Streak()
        self._constant_since: int | None = None

    def steps(
        self,
        epoch: int,
        step: int,
        losses: np.ndarray,
        norms: np.ndarray,
        skipped: np.ndarray,
        tables: np.ndarray,
    ) -> Collapse | None:
        """Judge the latest steps; however they are grouped into calls, the answer is the same.

        Args:
            epoch: which they belong to.
            step: number of the last of them, from 1.
            losses: (n,) mean losses of the batches.
            norms: (n,) gradient norms before clipping.
            skipped: (n,) bool: the gradient scaler left the step out for infinities, which it
                does now and then to find its scale.
            tables: (n, n_classes, n_classes) counts of a batch by label and prediction.

        Returns:
            The first collapse among them; then call `reset` before going on.
        """
        before = step - len(losses)
        rows = zip(losses.tolist(), norms.tolist(), skipped.tolist(), tables, strict=True)
        for number, (loss, norm, skip, table) in enumerate(rows, before + 1):
            found = self._finite(loss, norm, skip) or self._judged(loss, norm, skip, table)
            if found is not None:
                kind, reason, measured = found
                return _collapse(kind, epoch, number, reason, measured)
        return None

    def epoch(
        self,
        epoch: int,
        step: int,
        loss: float,
        truth: np.ndarray,
        predicted: np.ndarray,
        spread: float,
    ) -> Collapse | None:
        """Judge the outcome on val after an epoch.

        Args:
            step: number of the last step, from 1.
            loss: mean loss on val.
            truth: (n_classes,) counts of val's labels.
            predicted: (n_classes,) counts of the predictions.
            spread: the largest standard deviation over val's cases that a class's logit has.
        """
        if not math.isfinite(loss):
            text = f"the loss on val is {loss}"
            return _collapse(Kind.NON_FINITE_LOSS, epoch, step, text, {"val_loss": loss})
        one = int((truth > 0).sum()) > 1 and int((predicted > 0).sum()) == 1
        if not one:
            self._constant_since = None
        if not one or spread >= CONSTANT or self._seen <= self._warm_up:
            return None
        if self._constant_since is None:
            self._constant_since = self._seen
        lasted = self._seen - self._constant_since
        if lasted < WINDOW_STEPS:
            return None
        text = (
            f"for {lasted} steps val has been predicted as class {predicted.argmax()} alone, though"
            f" it holds {(truth > 0).sum()} classes, and the outputs do not depend on the input:"
            f" their standard deviation over val is {spread:.2g}, below {CONSTANT:g}"
        )
        return _collapse(
            Kind.ONE_CLASS, epoch, step, text, {"spread": spread, "steps": lasted, "val_loss": loss}
        )

    def state(self) -> dict[str, Any]:
        """JSON-able; with it `restore` makes a monitor go on as if it had never stopped."""
        return {
            "first_loss": self._first_loss,
            "first_norms": self._first_norms,
            "grace": self._grace,
            "seen": self._seen,
            "skipped": self._skipped,
            "losses": list(self._losses),
            "norms": list(self._norms),
            "lowest_loss": _or_none(self._lowest_loss),
            "lowest_norm": _or_none(self._lowest_norm),
            "drawn": asdict(self._drawn),
            "predicted": asdict(self._predicted),
            "constant_since": self._constant_since,
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take what `state` gave of a monitor made with the same arguments."""
        self._first_loss = state["first_loss"]
        self._first_norms = list(state["first_norms"])
        self._grace = state["grace"]
        self._seen, self._skipped = state["seen"], state["skipped"]
        self._losses = deque(state["losses"], self._size)
        self._norms = deque(state["norms"], self._size)
        self._lowest_loss = _or_infinite(state["lowest_loss"])
        self._lowest_norm = _or_infinite(state["lowest_norm"])
        self._drawn, self._predicted = _Streak(**state["drawn"]), _Streak(**state["predicted"])
        self._constant_since = state["constant_since"]

    def _finite(self, loss: float, norm: float, skip: bool) -> _Finding | None:
        if not math.isfinite(loss):
            return Kind.NON_FINITE_LOSS, f"the training loss is {loss}", {"loss": loss}
        self._skipped = self._skipped + 1 if skip else 0
        if self._skipped >= SKIPS:
            text = f"the gradient scaler left out {SKIPS} steps in a row for infinite gradients"
            return Kind.NON_FINITE_GRADIENT, text, {"skipped": SKIPS}
        if not skip and not math.isfinite(norm):
            return Kind.NON_FINITE_GRADIENT, f"the gradient's norm is {norm}", {"norm": norm}
        return None

    def _judged(self, loss: float, norm: float, skip: bool, table: np.ndarray) -> _Finding | None:
        """Add a step to the windows; judge them four times a window."""
        self._seen += 1
        loss -= self._floor
        if self._first_loss is None:
            self._first_loss = loss
        if not skip and len(self._first_norms) < WINDOW_STEPS:
            self._first_norms.append(norm)
        found = self._one_label_drawn(table.sum(1), loss)
        if found is not None or self._seen <= self._grace:
            return found
        found = self._one_class_predicted(table.sum(0), loss)
        if found is not None or skip:
            return found
        self._losses.append(loss)
        self._norms.append(norm)
        if len(self._losses) < self._size or self._seen % (self._size // 4):
            return None
        losses, norms = np.array(self._losses), np.array(self._norms)
        return self._gradient(losses, norms) or self._loss(losses)

    def _gradient(self, losses: np.ndarray, norms: np.ndarray) -> _Finding | None:
        first, largest = max(self._first_norms), float(norms.max())
        median, loss = float(np.median(norms)), float(np.median(losses))
        if largest <= DEAD * first and loss > UNSOLVED * self._chance:
            text = (
                f"no gradient of {len(norms)} steps was longer than {largest:.3g}, {DEAD:g} of the"
                f" first ones' {first:.3g}, while the loss is {loss:.3g}"
            )
            return Kind.DEAD_GRADIENT, text, {"norm": largest, "first": first, "loss": loss}
        bound = min(EXPLODED * first, max(first, EXPLODED_SINCE * self._lowest_norm))
        self._lowest_norm = min(self._lowest_norm, median)
        if median <= bound:
            return None
        text = f"the median gradient norm of {len(norms)} steps is {median:.3g}, above {bound:.3g}"
        return Kind.EXPLODING_GRADIENT, text, {"norm": median, "bound": bound, "first": first}

    def _loss(self, losses: np.ndarray) -> _Finding | None:
        assert self._first_loss is not None
        begin = max(self._chance, self._first_loss)
        mean = float(np.minimum(losses, CUT * begin).mean())
        bound = min(begin, self._lowest_loss) + RISE * self._chance
        self._lowest_loss = min(mean, self._lowest_loss)
        if mean <= bound:
            return None
        text = (
            f"the mean loss of {len(losses)} steps is {mean:.3g}, above {bound:.3g}: the lowest so"
            f" far and {RISE:g} times the {self._chance:.3g} that the classes' shares alone give"
        )
        return Kind.LOSS_SPIKE, text, {"loss": mean, "bound": bound, "chance": self._chance}

    def _one_label_drawn(self, labels: np.ndarray, loss: float) -> _Finding | None:
        """Whether the labels that training sees are of one class alone."""
        streak = self._drawn
        streak.add(labels, loss)
        if streak.steps < self._one_class_steps:
            return None
        text = f"all labels of {streak.steps} steps are of class {streak.only}"
        return Kind.ONE_CLASS, text, {"class": streak.only, "steps": streak.steps}

    def _one_class_predicted(self, predicted: np.ndarray, loss: float) -> _Finding | None:
        """Whether training predicts one class alone at a loss which its labels do not permit.

        A sample of another class costs at least log 2 then, for its own class has at most half.
        """
        streak = self._predicted
        streak.add(predicted, loss)
        if streak.steps < self._one_class_steps:
            return None
        mean, least = streak.loss / streak.steps, float(self._other[streak.only]) * math.log(2)
        steps, only = streak.steps, streak.only
        streak.clear()
        if mean >= IMPOSSIBLE * least:
            return None
        text = (
            f"for {steps} steps class {only} alone was predicted in training at a mean loss of"
            f" {mean:.3g}; by the counts of the labels it would be {least:.3g} or more"
        )
        return Kind.ONE_CLASS, text, {"loss": mean, "least": least, "class": only}


@dataclass
class _Streak:
    """Steps in a row that show one class alone, and the sum of their losses."""

    only: int = -1
    steps: int = 0
    loss: float = 0.0

    def add(self, counts: np.ndarray, loss: float) -> None:
        """Take a step with counts (n_classes,) of its classes."""
        only = int(counts.argmax())
        if only != self.only:
            self.clear()
        if np.count_nonzero(counts) == 1:
            self.only, self.steps, self.loss = only, self.steps + 1, self.loss + loss
        else:
            self.clear()

    def clear(self) -> None:
        """Begin anew."""
        self.only, self.steps, self.loss = -1, 0, 0.0


_Finding = tuple[Kind, str, dict[str, float]]


def _collapse(
    kind: Kind, epoch: int, step: int, reason: str, measured: Mapping[str, float]
) -> Collapse:
    where = f"{reason} (epoch {epoch}, step {step})"
    plain = {name: v if math.isfinite(v) else str(v) for name, v in measured.items()}
    return Collapse(kind, epoch, step, where, plain)


def _shares(counts: np.ndarray, weights: np.ndarray) -> np.ndarray:
    share = counts * weights.astype(np.float64)
    return np.asarray(share / share.sum())


def _or_none(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _or_infinite(value: float | None) -> float:
    return math.inf if value is None else value
