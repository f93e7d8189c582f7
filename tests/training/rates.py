"""Learnable problems of many kinds, and for each the rate found best by trying them all."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from torch.func import functional_call, grad, vmap

from cis490.training.finder import ITERATIONS, Curve, range_test, smoothed, suggest
from cis490.training.schedule import learning_rate_factor

KINDS = ("linear", "mlp", "conv", "deep")
RATES = 2.0 ** np.arange(-12, 3)  # 2.4e-4 .. 4
SEEDS = 3
HELD_OUT = 500
STEPS = 200
BETAS, EPSILON, DECAY, CLIP_NORM = (0.9, 0.999), 1e-8, 0.01, 1.0


# Rates are as good as the best if this share of what training gained is all that they lose.
TOLERANCE = 0.02


@dataclass(frozen=True)
class Problem:
    kind: str
    X: torch.Tensor  # (n, n_channels, n_timepoints) float32
    y: torch.Tensor  # (n,) int64
    n_classes: int
    width: int
    batch_size: int
    init_scale: float

    def net(self, seed: int) -> nn.Module:
        """An untrained network; the caller's random state comes back."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            net = _NETS[self.kind](*self.X.shape[1:], self.n_classes, self.width)
        with torch.no_grad():
            for _, parameter in net.named_parameters():
                if parameter.ndim > 1:
                    parameter.mul_(self.init_scale)
        return net

    def rows(self, seed: int, steps: int) -> torch.Tensor:
        """Cases of each batch, epoch after epoch in random order: (steps, batch_size)."""
        generator = torch.Generator().manual_seed(seed)
        n, wanted = len(self.X), steps * self.batch_size
        epochs = [torch.randperm(n, generator=generator) for _ in range(-(-wanted // n))]
        return torch.cat(epochs)[:wanted].reshape(steps, self.batch_size)

    @property
    def chance(self) -> float:
        """The loss of who knows the frequencies of the classes and nothing else."""
        share = torch.bincount(self.y, minlength=self.n_classes) / len(self.y)
        return float(-torch.xlogy(share, share).sum())


class _Windows(nn.Module):
    """(b, channels, t) to (b, t', 5 channels): with a linear layer after it, a convolution."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.unfold(2, 5, 2).transpose(1, 2).flatten(2)


def _linear(channels: int, steps: int, n_classes: int, width: int) -> nn.Module:  # noqa: ARG001
    return nn.Sequential(nn.Flatten(), nn.Linear(channels * steps, n_classes))


def _mlp(channels: int, steps: int, n_classes: int, width: int) -> nn.Module:
    return nn.Sequential(
        nn.Flatten(),
        *(nn.Linear(channels * steps, width), nn.LayerNorm(width), nn.GELU()),
        *(nn.Linear(width, width), nn.LayerNorm(width), nn.GELU()),
        nn.Linear(width, n_classes),
    )


def _conv(channels: int, steps: int, n_classes: int, width: int) -> nn.Module:  # noqa: ARG001
    width = width // 2
    return nn.Sequential(
        *(_Windows(), nn.Linear(5 * channels, width), nn.LayerNorm(width), nn.GELU()),
        *(nn.Linear(width, width), nn.LayerNorm(width), nn.GELU()),
        *(_MeanOverTime(), nn.Linear(width, n_classes)),
    )


class _MeanOverTime(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:  # (b, t, width)
        return x.mean(1)


def _deep(channels: int, steps: int, n_classes: int, width: int) -> nn.Module:
    width = width // 2
    layers: list[nn.Module] = [nn.Flatten(), nn.Linear(channels * steps, width), nn.ReLU()]
    for _ in range(4):
        layers += [nn.Linear(width, width), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(width, n_classes))


_NETS: dict[str, Callable[[int, int, int, int], nn.Module]] = {
    "linear": _linear,
    "mlp": _mlp,
    "conv": _conv,
    "deep": _deep,
}


def make_problem(seed: int) -> Problem:
    """The problem number `seed`: one of four networks, on clusters that tell the class."""
    rng = np.random.default_rng(seed)
    kind = KINDS[seed % len(KINDS)]
    channels, steps = (4, 15) if kind == "conv" else (int(rng.integers(4, 41)), 1)
    n_classes, n = int(rng.integers(2, 9)), int(rng.integers(200, 1201))
    prior = rng.dirichlet(np.full(n_classes, rng.uniform(1, 10)))
    clusters = 1 if kind == "linear" else int(rng.integers(1, 4))
    centre = rng.normal(size=(n_classes, clusters, channels, steps)) * rng.uniform(0.7, 2)
    y = rng.choice(n_classes, n + HELD_OUT, p=0.9 * prior + 0.1 / n_classes)
    X = centre[y, rng.integers(0, clusters, len(y))]
    X += rng.normal(size=X.shape)
    X *= 10 ** rng.uniform(-0.7, 0.7)
    wrong = rng.random(len(y)) < rng.uniform(0, 0.2)
    y[wrong] = rng.integers(0, n_classes, wrong.sum())
    cases, labels = torch.from_numpy(X.astype(np.float32)), torch.from_numpy(y)
    return Problem(
        kind,
        cases[:n],
        labels[:n],
        n_classes,
        width=int(2 ** rng.uniform(4, 6.5)),
        batch_size=int(2 ** rng.integers(4, 9)),
        init_scale=float(10 ** rng.uniform(-0.5, 0.5)),
    )


def brute_force(
    problem: Problem, rates: np.ndarray = RATES, seeds: int = SEEDS, steps: int = STEPS
) -> np.ndarray:
    """Loss over all cases after training at each rate: (seeds, rates); inf where it diverged.

    Trains as the training loop does: AdamW with decay 0.01, its schedule, the gradient of each
    network clipped at norm 1; all networks at once.
    """
    nets = [problem.net(seed) for seed in range(seeds)]
    shapes = {name: parameter.shape for name, parameter in nets[0].named_parameters()}
    sizes = [shape.numel() for shape in shapes.values()]
    first_weights = [nn.utils.parameters_to_vector(net.parameters()).detach() for net in nets]
    weights = torch.stack(first_weights)[:, None].repeat(1, len(rates), 1)

    def loss(w: torch.Tensor, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        pieces = zip(shapes.items(), w.split(sizes), strict=True)
        named = {name: piece.view(shape) for (name, shape), piece in pieces}
        return F.cross_entropy(functional_call(nets[0], named, (x,)), y)

    gradients = vmap(vmap(grad(loss), (0, None, None)))
    peak = torch.from_numpy(rates).float()[:, None]
    first, second = torch.zeros_like(weights), torch.zeros_like(weights)
    rows = torch.stack([problem.rows(seed, steps) for seed in range(seeds)])
    for step in range(steps):
        batch = rows[:, step]
        g = gradients(weights, problem.X[batch], problem.y[batch])
        g *= (CLIP_NORM / (g.norm(dim=2, keepdim=True) + 1e-6)).clamp(max=1)
        first.lerp_(g, 1 - BETAS[0])
        second.lerp_(g * g, 1 - BETAS[1])
        root = (second / (1 - BETAS[1] ** (step + 1))).sqrt_().add_(EPSILON)
        rate = peak * learning_rate_factor(step, steps)
        weights *= 1 - DECAY * rate
        weights -= rate * first / (1 - BETAS[0] ** (step + 1)) / root
    with torch.no_grad():
        final = vmap(vmap(loss, (0, None, None)), (0, None, None))(weights, problem.X, problem.y)
    return final.double().nan_to_num(nan=np.inf).numpy()


def best_rates(losses: np.ndarray, chance: float) -> tuple[float, float, float]:
    """The rate of the least loss, and the least and the highest rate that are as good.

    As good is a mean loss that exceeds the least by no more than the standard deviation over the
    seeds there, or 2% of what training gained over `chance`. Ends are interpolated on log rates.

    Args:
        losses: (seeds, rates) from `brute_force`.
    """
    mean = np.minimum(losses.mean(0), 1e3)  # one seed that diverged is enough
    best = int(mean.argmin())
    allowed = mean[best] + max(losses[:, best].std(ddof=1), TOLERANCE * (chance - mean[best]))
    low, high = (_end(mean, best, step, allowed) for step in (-1, 1))
    return float(RATES[best]), low, high


def _end(mean: np.ndarray, best: int, step: int, allowed: float) -> float:
    """Where the mean loss, followed from the best rate downwards or upwards, passes `allowed`."""
    i = best
    while 0 <= i + step < len(mean) and mean[i + step] <= allowed:
        i += step
    if not 0 <= i + step < len(mean):
        return float(RATES[i])
    part = (allowed - mean[i]) / (mean[i + step] - mean[i])
    return float(RATES[i] * (RATES[i + step] / RATES[i]) ** part)


def measured(problem: Problem, seed: int = 0) -> Curve:
    """The range test of a problem, made as in training."""
    net = problem.net(seed)
    optimizer = torch.optim.AdamW(net.parameters(), weight_decay=DECAY)
    batches = iter(problem.rows(1000 + seed, ITERATIONS))

    def step(rate: float) -> float:
        rows = next(batches)
        for group in optimizer.param_groups:
            group["lr"] = rate
        loss = F.cross_entropy(net(problem.X[rows]), problem.y[rows])
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(net.parameters(), CLIP_NORM)
        optimizer.step()
        return loss.item()

    return range_test(step)


def steepest(curve: Curve) -> float:
    """What is usually suggested: where the smoothed loss falls fastest, before its minimum."""
    mean = smoothed(curve.losses[np.isfinite(curve.losses)])
    slope = np.gradient(mean)[: max(1, mean.argmin())]
    return float(curve.rates[slope.argmin()])


def tenth(curve: Curve) -> float:
    """The other usual suggestion: a tenth of the rate where the smoothed loss is least."""
    return float(curve.rates[smoothed(curve.losses[np.isfinite(curve.losses)]).argmin()] / 10)


RULES: dict[str, Callable[[Curve], float | None]] = {
    "the finder": suggest,
    "steepest slope": steepest,
    "minimum / 10": tenth,
    "0.001": lambda _: 1e-3,
}


def study(problems: Iterable[Problem]) -> dict[str, np.ndarray]:
    """How far each rule is from the best: (problems, 3) by rule; NaN for no suggestion.

    Columns are log(suggested / best), where best is the nearest of the rates as good as the best,
    their centre (on a log scale), and the one rate of the least loss.
    """
    off: dict[str, list[list[float]]] = {name: [] for name in RULES}
    for problem in problems:
        strict, low, high = best_rates(brute_force(problem), problem.chance)
        curve = measured(problem)
        for name, rule in RULES.items():
            rate = rule(curve) or math.nan
            nearest = float(np.clip(rate, low, high))
            centre = math.sqrt(low * high)
            off[name].append([math.log(rate / best) for best in (nearest, centre, strict)])
    return {name: np.array(rows) for name, rows in off.items()}
