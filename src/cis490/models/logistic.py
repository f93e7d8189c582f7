"""Logistic regression: what a weighted sum of the features can tell, as company."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
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
from cis490.training.device import computing, seeded
from cis490.training.run import Run

CPU: Final = torch.device("cpu")
# Tried from strong to weak, each from where the last one ended.
STRENGTHS: Final = (1.0, 0.3, 0.1, 0.03, 0.01, 0.003, 0.001)
BLIND: Final = 0.03  # where no val can choose


@dataclass(frozen=True)
class _Ready:
    """What every seed is fitted to."""

    standardiser: Standardiser
    train: Batches
    validation: tuple[np.ndarray | WindowView, np.ndarray] | None
    class_weights: np.ndarray


class Logistic(Classifier):
    """Multinomial logistic regression with a ridge, classes weighted; `embed` gives its inputs.

    Inputs are the networks': features as z-scores of training, cut to ±3, 0 where missing, then as
    many indicators, 1 where measured. It minimises the weighted mean cross-entropy plus strength /
    2 times the sum of squared coefficients, intercepts free, by L-BFGS in float64 (D. C. Liu and J.
    Nocedal, On the limited memory BFGS method, 1989). Of `STRENGTHS` the one with the highest
    macro F1 on val is kept, of equals the strongest; each is a row of the history. It learns from
    the first `cases`, or all there are, of one epoch as the networks see it: in random order,
    sources hidden and scales moved at random. Of `settings` it uses threads, source_dropout and
    scale_jitter; it stays on the CPU.

    Options: `cases` to learn from, at most, and `iterations` of L-BFGS a strength, at most.
    """

    tabular = True
    weighing = "weighted"
    presets: ClassVar[Presets] = {
        "small": {"cases": 8192, "iterations": 200},
        "large": {"cases": 32768, "iterations": 200},
    }

    _standardiser: Standardiser
    _coef: torch.Tensor  # (2 n_columns, n_classes) float64
    _intercept: torch.Tensor  # (n_classes,) float64; -inf for a class that training lacks

    def _prepare(
        self,
        X: np.ndarray | WindowView,
        y: np.ndarray,
        validation: tuple[np.ndarray | WindowView, np.ndarray] | None,
        columns: Columns,
        run: Run,  # noqa: ARG002
    ) -> _Ready:
        assert isinstance(X, np.ndarray)
        standardiser = Standardiser.fit(X, columns.log)
        absent = torch.from_numpy(standardiser.transform(columns.absent[None])[0])
        view, settings = WindowView.from_array(X[:, :, None]), self.settings
        scaled, deviation = columns.scaled_channels, settings.scale_jitter
        train = Batches(
            view,
            standardiser.transform(view.series),
            y,
            CPU,
            batch_size=self.options["cases"],
            dropout=SourceDropout(columns.groups, settings.source_dropout, absent, CPU),
            scaling=ScaleJitter(scaled, deviation, standardiser.scale, CPU),
        )
        return _Ready(standardiser, train, validation, class_weights(y, self.n_classes))

    def _fit(self, data: _Ready, run: Run) -> None:
        self._standardiser, self.history = data.standardiser, []
        strengths = STRENGTHS if data.validation is not None else (BLIND,)
        with computing(self.settings), seeded(self.seed, CPU) as generator:
            batch = next(data.train.shuffled(generator))
            x, y = next(batch.pieces(len(batch)))
            x = x[:, :, 0].double()
            known = torch.unique(y)
            place = torch.searchsorted(known, y)  # of each label among the known
            weights = torch.from_numpy(class_weights(y.numpy(), self.n_classes)).double()[known]
            fits = [torch.zeros(x.shape[1] + 1, len(known), dtype=torch.float64)]
            for epoch, strength in enumerate(strengths, 1):
                fits.append(_minimised(x, place, weights, strength, fits[-1], self.options))
                self._set(fits[-1], known)
                loss = float(_loss(x, place, weights, fits[-1]))
                self.history.append(history_row(epoch, loss, self._measured(data)))
                run.listen(self.history[-1])
            scores = [row["val_macro_f1"] or 0.0 for row in self.history]
            self.best_epoch = 1 + int(np.argmax(scores))
            self._set(fits[self.best_epoch], known)

    @property
    def max_epochs(self) -> int:
        """Strengths."""
        return len(STRENGTHS)

    def _set(self, fit: torch.Tensor, known: torch.Tensor) -> None:
        """Take coefficients and, in the last row, intercepts of the classes that training has."""
        self._coef = torch.zeros(len(fit) - 1, self.n_classes, dtype=torch.float64)
        self._intercept = torch.full((self.n_classes,), -torch.inf, dtype=torch.float64)
        self._coef[:, known], self._intercept[known] = fit[:-1], fit[-1]

    def _measured(self, data: _Ready) -> tuple[float, float] | None:
        if data.validation is None:
            return None
        X, y = data.validation
        return measured(self._predict_proba(X), y, data.class_weights)

    def _predict_proba(self, X: np.ndarray | WindowView) -> np.ndarray:
        return self._apply(lambda x: torch.softmax(x.double() @ self._coef + self._intercept, 1), X)

    def _embed(self, X: np.ndarray | WindowView) -> np.ndarray:
        return self._apply(lambda x: x, X)

    def _apply(
        self, function: Callable[[torch.Tensor], torch.Tensor], X: np.ndarray | WindowView
    ) -> np.ndarray:
        """What a function of inputs (b, 2 n_columns) gives, some hundred cases at a time."""
        assert isinstance(X, np.ndarray)
        view = WindowView.from_array(X[:, :, None])
        batches = Batches(view, self._standardiser.transform(view.series), None, CPU)
        with computing(self.settings), torch.inference_mode():
            return torch.cat([function(x[:, :, 0]) for x, _ in batches.in_order()]).numpy()

    @property
    def embedding_size(self) -> int:
        """Inputs."""
        return len(self._coef)

    @property
    def n_parameters(self) -> int:
        """Coefficients and intercepts."""
        return self._coef.numel() + self._intercept.numel()

    def _arrays(self) -> dict[str, np.ndarray]:
        standardiser = self._standardiser.state()
        return {f"standardiser.{name}": array for name, array in standardiser.items()} | {
            "coef": self._coef.numpy(),
            "intercept": self._intercept.numpy(),
        }

    def _restore(self, arrays: Mapping[str, np.ndarray]) -> None:
        self._standardiser = Standardiser.from_state(
            {name: arrays[f"standardiser.{name}"] for name in ("log", "mean", "spread")}
        )
        self._coef = torch.from_numpy(arrays["coef"])
        self._intercept = torch.from_numpy(arrays["intercept"])


def _loss(
    x: torch.Tensor, y: torch.Tensor, weights: torch.Tensor, fit: torch.Tensor
) -> torch.Tensor:
    """The weighted mean cross-entropy of coefficients and intercepts `fit` (d + 1, k)."""
    return F.cross_entropy(x @ fit[:-1] + fit[-1], y, weight=weights)


def _minimised(
    x: torch.Tensor,
    y: torch.Tensor,
    weights: torch.Tensor,
    strength: float,
    start: torch.Tensor,
    options: Mapping[str, int],
) -> torch.Tensor:
    """Coefficients and intercepts (d + 1, k) of one strength, from a start of the same shape."""
    fit = start.clone().requires_grad_()
    optimiser = torch.optim.LBFGS(
        [fit],
        max_iter=options["iterations"],
        tolerance_grad=1e-5,
        tolerance_change=1e-10,
        line_search_fn="strong_wolfe",
    )

    def closure() -> torch.Tensor:
        optimiser.zero_grad()
        loss = _loss(x, y, weights, fit) + strength / 2 * (fit[:-1] ** 2).sum()
        loss.backward()
        return loss

    optimiser.step(closure)
    return fit.detach()
