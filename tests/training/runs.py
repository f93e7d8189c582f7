"""Small trainings, healthy and broken on purpose, for what judges a training by its figures.

A run is recorded whole, whatever happens in it, and then shown to a monitor as the loop would: so
the figures after a fault are true ones, and one run can be shown in many ways.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from cis490.models.weights import class_weights
from cis490.training.collapse import Collapse, Monitor
from cis490.training.schedule import WARM_UP, learning_rate_factor, macro_f1

CHANNELS, TIMEPOINTS = 3, 8
FROM_THE_START = ("rate", "labels", "labels_and_counts")
AT_A_STEP = ("nan_input", "nan_weight", "infinite_loss", "frozen", "exploding", "spike")


def chance_loss(counts: np.ndarray, weights: np.ndarray) -> float:
    """Class-weighted cross-entropy of always predicting the weighted shares of the classes."""
    share = counts * weights.astype(np.float64)
    share = share[share > 0] / share.sum()
    return float(-(share * np.log(share)).sum())


@dataclass(frozen=True)
class Setup:
    """One training.

    Attributes:
        net: linear, relu (without norms), gelu (with), conv or gru.
        distance: between the means of the classes, in standard deviations; 0: nothing to learn.
        noise: share of the training labels that are drawn anew.
        rare: share of class 0; None: all classes alike.
        fault: one of FROM_THE_START or AT_A_STEP; None: healthy.
        at: share of the steps made before a fault AT_A_STEP.
    """

    seed: int
    net: str = "gelu"
    n: int = 200
    n_classes: int = 2
    distance: float = 4.0
    noise: float = 0.0
    rare: float | None = None
    dropout: float = 0.3
    batch_size: int = 16
    epochs: int = 8
    rate: float = 1e-3
    fault: str | None = None
    at: float = 0.5

    @property
    def steps(self) -> int:
        """Of the whole training."""
        return self.epochs * math.ceil(self.n / self.batch_size)

    @property
    def fault_step(self) -> int:
        """Steps made before the fault."""
        return int(self.at * self.steps) if self.fault in AT_A_STEP else 0


@dataclass
class Run:
    """What a loop sees of a training.

    Attributes:
        tables: (n_classes, n_classes) a step, counts by label and prediction.
        epochs: of each its last step and the arguments of `Monitor.epoch` after it.
        f1: macro F1 on val of each epoch.
    """

    setup: Setup
    counts: np.ndarray
    weights: np.ndarray
    losses: list[float] = field(default_factory=list)
    norms: list[float] = field(default_factory=list)
    tables: list[np.ndarray] = field(default_factory=list)
    epochs: list[tuple[int, float, np.ndarray, np.ndarray, float]] = field(default_factory=list)
    f1: list[float] = field(default_factory=list)

    def monitor(self) -> Monitor:
        """As the loop would make it."""
        return Monitor(
            chance=chance_loss(self.counts, self.weights),
            counts=self.counts,
            weights=self.weights,
            batch_size=min(self.setup.batch_size, self.setup.n),
            warm_up_steps=max(1, round(WARM_UP * self.setup.steps)),
        )

    def judge(self, monitor: Monitor | None = None, chunk: int | None = None) -> Collapse | None:
        """Show the run to a monitor, `chunk` steps at a time or an epoch; its first collapse."""
        monitor = monitor or self.monitor()
        losses, norms, tables = map(np.array, (self.losses, self.norms, self.tables))
        start = 0
        for epoch, (end, *outcome) in enumerate(self.epochs, 1):
            for low in range(start, end, chunk or end):
                high = min(low + (chunk or end), end)
                none_skipped = np.zeros(high - low, bool)
                figures = losses[low:high], norms[low:high], none_skipped, tables[low:high]
                if found := monitor.steps(epoch, high, *figures):
                    return found
            if found := monitor.epoch(epoch, end, *outcome):
                return found
            start = end
        return None


def healthy(seed: int, most_steps: int = 1500) -> Setup:
    """A training of random size, difficulty, imbalance, noise, net and settings."""
    rng = np.random.default_rng(seed)

    def one_of(*values):
        return values[rng.integers(len(values))]

    n_classes = one_of(2, 2, 3, 5, 8)
    setup = Setup(
        seed=seed,
        net=one_of("linear", "relu", "gelu", "gelu", "conv", "gru"),
        n=int(np.exp(rng.uniform(np.log(48), np.log(2000)))),
        n_classes=n_classes,
        distance=one_of(0.0, 1.0, 2.0, 4.0, 8.0),
        noise=one_of(0.0, 0.0, 0.1, 0.4),
        rare=one_of(None, None, 0.03, 0.1) if n_classes == 2 else one_of(None, 0.03),
        dropout=one_of(0.0, 0.3, 0.5),
        batch_size=one_of(16, 32, 64, 128),
        epochs=int(rng.integers(3, 41)),
        rate=float(10 ** rng.uniform(-4, -2)),
    )
    affordable = most_steps * setup.batch_size // setup.n
    return replace(setup, epochs=max(3, min(setup.epochs, affordable)))


def broken(fault: str, seed: int, most_steps: int = 250) -> Setup:
    """A training that would learn, but for its fault, and is long enough to be judged after it."""
    for number in range(1000):
        setup = healthy(1000 * (seed + 1) + number, most_steps)
        setup = replace(setup, fault=fault, at=0.2 + 0.1 * (seed % 5))
        least = 3e-3 if fault == "rate" else 3e-4  # much less times 1000 often does no harm
        able = setup.distance >= 2 and setup.noise < 0.4 and setup.rate >= least
        if able and setup.steps - setup.fault_step >= 100:
            return setup
    raise AssertionError("no such training")


def record(setup: Setup) -> Run:
    """Train as the loop does: AdamW, the project's schedule, clipping at 1."""
    torch.manual_seed(setup.seed)
    rng = np.random.default_rng(setup.seed)
    means = rng.normal(size=(setup.n_classes, CHANNELS, TIMEPOINTS))
    means *= setup.distance / math.sqrt(2 * CHANNELS * TIMEPOINTS)
    x, y = _cases(setup, setup.n, means, rng)
    x_val, y_val = _cases(setup, max(20, setup.n // 4), means, rng)
    redrawn = rng.random(len(y)) < setup.noise
    y[redrawn] = rng.permutation(y[redrawn])

    one = np.full_like(y, setup.seed % setup.n_classes)
    known = one if setup.fault == "labels_and_counts" else y
    weights = class_weights(known, setup.n_classes)
    run = Run(setup, np.bincount(known, minlength=setup.n_classes), weights)
    y = one if setup.fault in ("labels", "labels_and_counts") else y
    training = _Training(run, *(torch.from_numpy(array) for array in (x, y, weights)))
    for _ in range(setup.epochs):
        training.epoch()
        training.validate(torch.from_numpy(x_val), torch.from_numpy(y_val))
    return run


class _Training:
    def __init__(self, run: Run, x: torch.Tensor, y: torch.Tensor, weights: torch.Tensor) -> None:
        self.run, self.setup, self.x, self.y, self.weights = run, run.setup, x, y, weights
        self.net = _net(run.setup)
        self.optimizer = torch.optim.AdamW(self.net.parameters(), weight_decay=0.01)

    def epoch(self) -> None:
        self.net.train()
        for rows in torch.randperm(len(self.x)).split(self.setup.batch_size):
            self.step(self.x[rows], self.y[rows])

    def step(self, x: torch.Tensor, y: torch.Tensor) -> None:
        setup, step = self.setup, len(self.run.losses)
        since = step - setup.fault_step
        fault = setup.fault if since >= 0 else None
        factor = {"rate": 1000.0, "spike": 0.0}.get(fault or "", 1.0)
        for group in self.optimizer.param_groups:
            group["lr"] = factor * setup.rate * learning_rate_factor(step, setup.steps)
        first, head = next(self.net.parameters()), self.net[-1]
        if fault == "nan_input" and since == 0:
            x = x.clone()
            x[0, 0, 0] = torch.nan
        if fault == "nan_weight" and since == 0:
            first.data.view(-1)[0] = torch.nan
        if fault == "spike" and since == 0:  # with the rate at 0 it stays
            head.weight.data.mul_(-20)

        logits = self.net(x)
        loss = F.cross_entropy(logits, y, weight=self.weights)
        if fault == "infinite_loss" and since == 0:
            loss = loss * torch.inf
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        if fault in ("frozen", "exploding"):
            for parameter in self.net.parameters():
                parameter.grad *= 0 if fault == "frozen" else 1e4
        norm = nn.utils.clip_grad_norm_(self.net.parameters(), 1.0)
        self.optimizer.step()

        self.run.losses.append(loss.item())
        self.run.norms.append(norm.item())
        cells = (y * setup.n_classes + logits.argmax(1)).numpy()
        table = np.bincount(cells, minlength=setup.n_classes**2)
        self.run.tables.append(table.reshape(setup.n_classes, setup.n_classes))

    @torch.no_grad()
    def validate(self, x: torch.Tensor, y: torch.Tensor) -> None:
        self.net.eval()
        logits = self.net(x)
        loss = F.cross_entropy(logits, y, weight=self.weights).item()
        truth, found = y.numpy(), logits.argmax(1).numpy()
        counts = [np.bincount(a, minlength=self.setup.n_classes) for a in (truth, found)]
        spread = logits.std(0).max().item()
        self.run.epochs.append((len(self.run.losses), loss, counts[0], counts[1], spread))
        self.run.f1.append(macro_f1(truth, found, self.setup.n_classes))


def _cases(
    setup: Setup, n: int, means: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    y = rng.integers(0, setup.n_classes, n)
    if setup.rare is not None:
        y = np.where(rng.random(n) < setup.rare, 0, rng.integers(1, setup.n_classes, n))
    y[: setup.n_classes] = np.arange(setup.n_classes)
    x = rng.normal(size=(n, CHANNELS, TIMEPOINTS)) + 2 * means[y]
    return x.astype(np.float32), y


class _Gru(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.gru = nn.GRU(CHANNELS, 16, batch_first=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.gru(x.transpose(1, 2))[0].mean(1)
        return out


def _net(setup: Setup) -> nn.Sequential:
    flat, drop = CHANNELS * TIMEPOINTS, nn.Dropout(setup.dropout)

    def dense(n_in: int, n_out: int) -> list[nn.Module]:
        return [nn.Linear(n_in, n_out), nn.LayerNorm(n_out), nn.GELU(), drop]

    conv = [nn.Conv1d(CHANNELS, 16, 3, padding=1), nn.GroupNorm(1, 16), nn.GELU()]
    bodies: dict[str, tuple[list[nn.Module], int]] = {
        "linear": ([nn.Flatten()], flat),
        "relu": ([nn.Flatten(), nn.Linear(flat, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU()], 32),
        "gelu": ([nn.Flatten(), drop, *dense(flat, 32), *dense(32, 16)], 16),
        "conv": ([*conv, nn.AdaptiveMaxPool1d(1), nn.Flatten(), drop], 16),
        "gru": ([_Gru(), drop], 16),
    }
    body, width = bodies[setup.net]
    return nn.Sequential(*body, nn.Linear(width, setup.n_classes))
