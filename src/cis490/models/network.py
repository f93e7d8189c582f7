"""What the five networks share: standardised input with its mask, the loop, and their state."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import nn

from cis490.errors import FormatError
from cis490.models.base import Classifier, Columns
from cis490.models.preprocess import Standardiser
from cis490.models.views import WindowView
from cis490.training.batches import Batches, ScaleJitter, SourceDropout
from cis490.training.device import computing, resolve_device
from cis490.training.fit import Ready, Training
from cis490.training.losses import Loss
from cis490.training.memory import series_budget
from cis490.training.run import Run


class Backbone(nn.Module):
    """Turns inputs (b, n_inputs, n_timepoints) into embeddings (b, width).

    Inputs are values, 0 where missing, followed by as many mask channels, 1 where measured.
    """

    width: int


class Network(nn.Module):
    """A backbone and a linear head: (b, n_inputs, n_timepoints) to logits (b, n_classes)."""

    def __init__(self, backbone: Backbone, n_classes: int, dropout: float) -> None:
        super().__init__()
        self.backbone = backbone
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(backbone.width, n_classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.head(self.dropout(self.backbone(x)))
        return logits


class NetworkClassifier(Classifier):
    """A classifier whose architecture is a torch backbone; subclasses say which (`_backbone`).

    Each preset has `head_dropout`, the share of an embedding that the linear head does not see.
    """

    _net: Network
    _standardiser: Standardiser

    @abstractmethod
    def _backbone(self, n_inputs: int, n_timepoints: int) -> Backbone:
        """An untrained backbone for inputs (b, n_inputs, n_timepoints), as `options` say."""

    @property
    def _backbone_options(self) -> dict[str, Any]:
        return {name: value for name, value in self.options.items() if name != "head_dropout"}

    def _prepare(
        self,
        X: np.ndarray | WindowView,
        y: np.ndarray,
        validation: tuple[np.ndarray | WindowView, np.ndarray] | None,
        columns: Columns,
        run: Run,
    ) -> Ready:
        settings, device = self.settings, resolve_device(self.settings.device)
        view = _view(X)
        standardiser = Standardiser.fit(view.series, columns.log)
        absent = torch.from_numpy(standardiser.transform(columns.absent[None])[0])
        train = Batches(
            view,
            standardiser.transform(view.series),
            y,
            device,
            batch_size=settings.batch_size,
            dropout=SourceDropout(columns.groups, settings.source_dropout, absent, device),
            scaling=ScaleJitter(
                columns.scaled_channels, settings.scale_jitter, standardiser.scale, device
            ),
            balanced=settings.imbalance == "balanced",
            budget=series_budget(device),
        )
        val = None
        if validation is not None:
            seen = _view(validation[0])
            series = standardiser.transform(seen.series)
            budget = series_budget(device)  # of what the training series leaves
            val = Batches(seen, series, validation[1], device, budget=budget)
        loss = Loss(y, self.n_classes, settings).to(device)
        counts = np.bincount(y, minlength=self.n_classes)
        ready = Ready(standardiser, train, val, loss, counts, {})
        return self._training(ready, run).suited(ready)

    def _fit(self, data: Ready, run: Run) -> None:
        training = self._training(data, run)
        self.chosen = dict(data.chosen)
        try:
            self._net, self.best_epoch, self.chosen = training.train(data, self.seed)
        finally:  # a training that failed has something to show as well
            self.history, self.events = training.history, training.events
        self._standardiser = data.standardiser

    def _training(self, data: Ready, run: Run) -> Training[Network]:
        n_columns = len(data.standardiser.mean)
        make = {
            "architecture": type(self).__name__,
            "options": self.options,
            "n_classes": self.n_classes,
            "input_shape": self._input_shape,
        }
        return Training(lambda: self._build(n_columns), make, self.settings, run)

    def _predict_proba(self, X: np.ndarray | WindowView) -> np.ndarray:
        return self._apply(lambda x: torch.softmax(self._net(x).double(), 1), X)

    def _embed(self, X: np.ndarray | WindowView) -> np.ndarray:
        return self._apply(self._net.backbone, X)

    @property
    def embedding_size(self) -> int:
        """Width of the backbone's last layer."""
        return self._net.backbone.width

    @property
    def n_parameters(self) -> int:
        """Weights and biases."""
        return sum(parameter.numel() for parameter in self._net.parameters())

    def size_for(self, input_shape: tuple[int, ...]) -> int:
        """Weights and biases for cases of a shape, (n_features,) if tabular."""
        n_columns, n_timepoints = (*input_shape, 1)[:2]
        with torch.device("meta"):  # shapes alone, without numbers
            net = self._untrained(n_columns, n_timepoints)
        return sum(parameter.numel() for parameter in net.parameters())

    def _arrays(self) -> dict[str, np.ndarray]:
        standardiser = self._standardiser.state()
        return {f"standardiser.{name}": array for name, array in standardiser.items()} | {
            f"net.{name}": tensor.detach().cpu().numpy()
            for name, tensor in self._net.state_dict().items()
        }

    def _restore(self, arrays: Mapping[str, np.ndarray]) -> None:
        def under(prefix: str) -> dict[str, np.ndarray]:
            return {k.removeprefix(prefix): a for k, a in arrays.items() if k.startswith(prefix)}

        self._standardiser = Standardiser.from_state(under("standardiser."))
        self._net = self._build(len(self._standardiser.mean))
        state = {name: torch.from_numpy(array) for name, array in under("net.").items()}
        try:
            self._net.load_state_dict(state)
        except RuntimeError as error:
            raise FormatError(f"weights do not fit the architecture: {error}") from None
        self._net.to(resolve_device(self.settings.device))

    def _build(self, n_columns: int) -> Network:
        return self._untrained(n_columns, 1 if self.tabular else self._input_shape[1])

    def _untrained(self, n_columns: int, n_timepoints: int) -> Network:
        backbone = self._backbone(2 * n_columns, n_timepoints)
        return Network(backbone, self.n_classes, self.options["head_dropout"])

    def _batches(self, X: np.ndarray | WindowView, y: np.ndarray | None = None) -> Batches:
        view, device = _view(X), resolve_device(self.settings.device)
        series, budget = self._standardiser.transform(view.series), series_budget(device)
        return Batches(view, series, y, device, budget=budget)

    def _apply(
        self, function: Callable[[torch.Tensor], torch.Tensor], X: np.ndarray | WindowView
    ) -> np.ndarray:
        self._net.eval()
        with computing(self.settings), torch.inference_mode():
            parts = [function(x).float().cpu() for x, _ in self._batches(X).in_order()]
        return torch.cat(parts).numpy()


def _view(X: np.ndarray | WindowView) -> WindowView:
    """Features (n_cases, n_features) are windows of one step."""
    return X if isinstance(X, WindowView) else WindowView.from_array(X[:, :, None])
