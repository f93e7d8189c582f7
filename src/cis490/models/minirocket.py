"""MiniRocket and a ridge classifier: a strong baseline of its field, outside the six architectures.

After Dempster, Schmidt and Webb 2021 (MINIROCKET, and the authors' multivariate variant): fixed
kernels at several dilations; a feature is the share of a window over which a kernel's output lies
above a bias. Only the ridge is learned, in closed form.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import combinations
from typing import ClassVar, Final

import numpy as np
import torch
import torch.nn.functional as F

from cis490.models.base import Classifier, Columns
from cis490.models.measured import history_row, measured
from cis490.models.options import Presets
from cis490.models.preprocess import Standardiser
from cis490.models.views import WindowView
from cis490.models.weights import class_weights
from cis490.training.batches import Batches, ScaleJitter, SourceDropout
from cis490.training.device import computing, resolve_device, seeded
from cis490.training.run import Run

SIZE: Final = 9  # weights of a kernel
# All kernels of three weights 2 and six weights -1. They add up to 0: a level alone gives 0.
KERNELS: Final = torch.tensor(
    [[2.0 if i in twos else -1.0 for i in range(SIZE)] for twos in combinations(range(SIZE), 3)]
)
PER_KERNEL: Final = 119  # features: 84 x 119 = 9,996, the paper's "about 10,000"
MAX_DILATIONS: Final = 32
MAX_CHANNELS: Final = 9  # that a kernel looks at together
GOLDEN: Final = (5**0.5 + 1) / 2  # its multiples, modulo 1, fill [0, 1] evenly
# Values are rounded to 1/4096 of a standard deviation: float32 holds every sum of them exactly (9
# channels x 12 x 3 standard deviations < 2^9, and 12 binary places), so whether it exceeds a bias
# depends neither on the order of the terms nor on the batch, the device or how values were held.
STEPS: Final = 4096
BATCH: Final = 64  # cases convolved at once, whose series stay in a core's cache
ALPHAS: Final = np.logspace(-3, 3, 10)  # as the authors'
TEMPERATURES: Final = np.logspace(-2, 1, 61)


def dilations(n_timepoints: int) -> list[tuple[int, slice]]:
    """Each dilation, and which of a kernel's 119 features are its own.

    Dilations are the whole parts of 2^e, e evenly from 0 to where a kernel spans the window.
    """
    n = min(PER_KERNEL, MAX_DILATIONS)
    longest = np.log2((n_timepoints - 1) / (SIZE - 1))
    found, times = np.unique(np.logspace(0, longest, n, base=2).astype(int), return_counts=True)
    counts = (times * PER_KERNEL / n).astype(int)
    for i in range(PER_KERNEL - counts.sum()):
        counts[i % len(counts)] += 1
    ends = np.cumsum(counts)
    spans = zip(found.tolist(), (ends - counts).tolist(), ends.tolist(), strict=True)
    return [(dilation, slice(first, end)) for dilation, first, end in spans]


@dataclass(frozen=True)
class Transform:
    """Windows to features; c channels, each dilation with all 84 kernels.

    Attributes:
        members: (n_dilations, 84, c) float32, 1 where a kernel looks at a channel, else 0.
        bias: (84, 119) float32; `dilations` tells which columns belong to which dilation.
    """

    members: torch.Tensor
    bias: torch.Tensor

    @classmethod
    def fit(cls, x: torch.Tensor, rng: np.random.Generator) -> Transform:
        """Draw channels, and biases as quantiles of what kernels give on cases x (n, c, t)."""
        n_kernels, n_channels = len(KERNELS), x.shape[1]
        spans = dilations(x.shape[2])
        members = torch.zeros(len(spans), n_kernels, n_channels)
        most = np.log2(min(n_channels, MAX_CHANNELS) + 1)
        for own in members.view(-1, n_channels):  # 2^u channels, u evenly from 0: mostly few
            own[rng.choice(n_channels, int(2 ** rng.uniform(0, most)), replace=False)] = 1
        bias = np.empty((n_kernels, PER_KERNEL), np.float32)
        wanted = (np.arange(bias.size) + 1).reshape(bias.shape) * GOLDEN % 1
        for member, (dilation, columns) in zip(members, spans, strict=True):
            cases = x[torch.from_numpy(rng.integers(0, len(x), n_kernels))]  # one a kernel
            given = _convolved((member[:, None] @ cases)[:, 0], dilation).numpy()
            for k in range(n_kernels):
                bias[k, columns] = np.quantile(given[k], wanted[k, columns])
        return cls(members, torch.from_numpy(bias))

    def to(self, device: torch.device) -> Transform:
        """The same on a device."""
        return Transform(self.members.to(device), self.bias.to(device))

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """Features of x (n, c, t): (n, 9996) float32 in [0, 1]."""
        return torch.cat([torch.cat(list(self._parts(part)), 1) for part in x.split(BATCH)])

    def _parts(self, x: torch.Tensor) -> Iterator[torch.Tensor]:
        """Features (n, 42) of every second kernel, one dilation, parity and bias after another."""
        for i, (dilation, columns) in enumerate(dilations(x.shape[2])):
            given = _convolved(self.members[i] @ x, dilation)
            for parity in (0, 1):
                # In turn, kernels and dilations see the zeros beyond the window or keep off them.
                margin = SIZE // 2 * dilation * ((i + parity) % 2)
                shown = given[:, parity::2, margin : given.shape[2] - margin].contiguous()
                above = torch.empty_like(shown)  # the mean of floats is 6 times as fast as of bools
                for bias in self.bias[parity::2, columns].T:
                    yield torch.gt(shown, bias[:, None], out=above).mean(2)


def _convolved(series: torch.Tensor, dilation: int) -> torch.Tensor:
    """Each of series (..., 84, t) with its kernel, zeros beyond the ends: (..., 84, t)."""
    n, reach = series.shape[-1], SIZE // 2 * dilation
    padded, out = F.pad(series, (reach, reach)), torch.zeros_like(series)
    weights = KERNELS.to(series.device)
    for i in range(SIZE):
        out.addcmul_(padded[..., i * dilation : i * dilation + n], weights[:, i, None])
    return out


@dataclass(frozen=True)
class Ridge:
    """A ridge regression of ±1 targets, one a class, and its predictions without each case itself.

    Attributes:
        coef, intercept: (d, k) and (k,) float64.
        left_out: (n, k) float64: the score of each case by a ridge fitted to all others.
        alpha: the penalty chosen.
    """

    coef: torch.Tensor
    intercept: torch.Tensor
    left_out: torch.Tensor
    alpha: float

    @classmethod
    def fit(cls, features: torch.Tensor, targets: torch.Tensor, weights: torch.Tensor) -> Ridge:
        """Fit to features (n, d) float32 and targets (n, k), cases weighted by `weights` (n,).

        Features are centred and brought to unit length, the intercept is free, and of `ALPHAS` the
        one with the least squared error over left-out cases is taken. One eigendecomposition of the
        cases' products serves all: e_i / (1 - h_i) is the error of case i left out, for its error e
        and its leverage h (Golub, Heath and Wahba 1979).
        """
        share, root = weights / weights.sum(), weights.sqrt()[:, None]
        scaled = features.double()  # of this size there is no other: it decides the memory
        centre, level = share @ scaled, share @ targets
        scaled -= centre
        scaled *= root
        length = scaled.norm(dim=0)
        length[length < 1e-9] = 1  # the same in every case
        scaled /= length
        spectrum, basis = torch.linalg.eigh(scaled @ scaled.T)
        spectrum = spectrum.clamp_(min=0)
        rotated = basis.T @ ((targets - level) * root)
        errors = []
        for alpha in ALPHAS:
            kept = alpha / (spectrum + alpha)
            slack = (basis**2 @ kept - share).clamp_(min=1e-12)  # 1 - h, the intercept's too
            errors.append(basis @ (kept[:, None] * rotated) / slack[:, None])
        best = min(range(len(ALPHAS)), key=lambda i: float((errors[i] ** 2).sum()))
        alpha = float(ALPHAS[best])
        dual = basis @ (rotated / (spectrum + alpha)[:, None])
        coef = (scaled.T @ dual) / length[:, None]
        return cls(coef, level - centre @ coef, targets - errors[best] / root, alpha)


@dataclass(frozen=True)
class _Ready:
    """What every seed is fitted to."""

    standardiser: Standardiser
    train: Batches
    validation: tuple[np.ndarray | WindowView, np.ndarray] | None
    class_weights: np.ndarray


class MiniRocket(Classifier):
    """MiniRocket features and a ridge classifier, classes weighted; `embed` gives the features.

    It learns from the first `cases`, or all there are, of one epoch as the networks see it: in
    random order, windows moved, sources hidden at random. Missing values are 0, the
    training mean. Probabilities are the softmax of the scores over the temperature that makes the
    scores of left-out training cases most probable. Of `settings` it uses device (for the features;
    the ridge is fitted on the CPU), threads and source_dropout; val is only measured.

    Options: `cases` to learn from, at most; the ridge's time grows with their cube.
    """

    weighing = None  # its probabilities are too sure for a filter (docs/decisions/0007)
    presets: ClassVar[Presets] = {"small": {"cases": 4096}, "large": {"cases": 8192}}

    _standardiser: Standardiser
    _transform: Transform
    _coef: torch.Tensor  # (9996, n_classes) float64, of the scores over the temperature
    _intercept: torch.Tensor  # (n_classes,) float64; -inf for a class that training lacks

    def _prepare(
        self,
        X: np.ndarray | WindowView,
        y: np.ndarray,
        validation: tuple[np.ndarray | WindowView, np.ndarray] | None,
        columns: Columns,
        run: Run,  # noqa: ARG002
    ) -> _Ready:
        assert isinstance(X, WindowView)
        settings, device = self.settings, resolve_device(self.settings.device)
        standardiser = Standardiser.fit(X.series, columns.log)
        absent = torch.from_numpy(standardiser.transform(columns.absent[None])[0])
        scaled, deviation = columns.scaled_channels, settings.scale_jitter
        train = Batches(
            X,
            standardiser.transform(X.series),
            y,
            device,
            batch_size=self.options["cases"],
            dropout=SourceDropout(columns.groups, settings.source_dropout, absent, device),
            scaling=ScaleJitter(scaled, deviation, standardiser.scale, device),
        )
        return _Ready(standardiser, train, validation, class_weights(y, self.n_classes))

    def _fit(self, data: _Ready, run: Run) -> None:
        self._standardiser = data.standardiser
        with computing(self.settings), seeded(self.seed, data.train.device) as generator:
            batch = next(data.train.shuffled(generator))
            x, labels = next(batch.pieces(len(batch)))
            x, labels = _values(x), labels.cpu()
            transform = Transform.fit(x.cpu(), np.random.default_rng(self.seed))
            self._transform = transform.to(data.train.device)
            train_loss = self._fit_ridge(self._transform(x).cpu(), labels)
        val = None
        if data.validation is not None:
            X_val, y_val = data.validation
            val = measured(self._predict_proba(X_val), y_val, data.class_weights)
        self.history = [history_row(1, train_loss, val)]
        run.listen(self.history[0])
        self.best_epoch = 1

    @property
    def max_epochs(self) -> int:
        """It is fitted at once."""
        return 1

    def _fit_ridge(self, features: torch.Tensor, y: torch.Tensor) -> float:
        """Set coefficients and intercept; the weighted loss of training cases left out."""
        weights = torch.from_numpy(class_weights(y.numpy(), self.n_classes))
        known = torch.nonzero(weights)[:, 0]
        place = torch.searchsorted(known, y)  # of each label among the known
        targets = 2 * F.one_hot(place, len(known)).double() - 1
        ridge = Ridge.fit(features, targets, weights.double()[y])
        losses = [
            float(F.cross_entropy(ridge.left_out / t, place, weights.double()[known]))
            for t in TEMPERATURES
        ]
        temperature = TEMPERATURES[int(np.argmin(losses))]
        self._coef = torch.zeros(features.shape[1], self.n_classes, dtype=torch.float64)
        self._intercept = torch.full((self.n_classes,), -torch.inf, dtype=torch.float64)
        self._coef[:, known] = ridge.coef / temperature
        self._intercept[known] = ridge.intercept / temperature
        return min(losses)

    def _predict_proba(self, X: np.ndarray | WindowView) -> np.ndarray:
        return self._apply(
            lambda features: torch.softmax(features.double() @ self._coef + self._intercept, 1), X
        )

    def _embed(self, X: np.ndarray | WindowView) -> np.ndarray:
        return self._apply(lambda features: features, X)

    def _apply(
        self, function: Callable[[torch.Tensor], torch.Tensor], X: np.ndarray | WindowView
    ) -> np.ndarray:
        """What a function of features (b, 9996) gives, some hundred cases at a time."""
        assert isinstance(X, WindowView)
        device = resolve_device(self.settings.device)
        batches = Batches(X, self._standardiser.transform(X.series), None, device)
        with computing(self.settings), torch.inference_mode():
            parts = [function(self._transform(_values(x)).cpu()) for x, _ in batches.in_order()]
        return torch.cat(parts).numpy()

    @property
    def embedding_size(self) -> int:
        """Features."""
        return self._transform.bias.numel()

    @property
    def n_parameters(self) -> int:
        """Biases of the kernels, and coefficients and intercepts of the ridge."""
        return self._transform.bias.numel() + self._coef.numel() + self._intercept.numel()

    def _arrays(self) -> dict[str, np.ndarray]:
        standardiser = self._standardiser.state()
        return {f"standardiser.{name}": array for name, array in standardiser.items()} | {
            "transform.members": self._transform.members.cpu().numpy().astype(bool),
            "transform.bias": self._transform.bias.cpu().numpy(),
            "ridge.coef": self._coef.numpy(),
            "ridge.intercept": self._intercept.numpy(),
        }

    def _restore(self, arrays: Mapping[str, np.ndarray]) -> None:
        self._standardiser = Standardiser.from_state(
            {name: arrays[f"standardiser.{name}"] for name in ("log", "mean", "spread")}
        )
        members = torch.from_numpy(arrays["transform.members"]).float()
        transform = Transform(members, torch.from_numpy(arrays["transform.bias"]))
        self._transform = transform.to(resolve_device(self.settings.device))
        self._coef = torch.from_numpy(arrays["ridge.coef"])
        self._intercept = torch.from_numpy(arrays["ridge.intercept"])


def _values(inputs: torch.Tensor) -> torch.Tensor:
    """The values of networks' inputs (b, 2 c, t), rounded, at least 9 steps: (b, c, max(t, 9))."""
    x = inputs[:, : inputs.shape[1] // 2].mul(STEPS).round_().div_(STEPS)
    return F.pad(x, (0, max(0, SIZE - x.shape[2])))
