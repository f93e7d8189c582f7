"""The one class behind every architecture. Checks live here, once; an architecture computes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Self, final

import numpy as np

from cis490.errors import Cis490Error
from cis490.models.views import CodedSeries, WindowView


class InputError(Cis490Error, ValueError):
    """An array that a model cannot take: wrong shape, wrong labels, infinite, or not fitted yet."""


@dataclass(frozen=True)
class FitSettings:
    """How to train; the names are those under `training` in config.yaml, which says why.

    Attributes:
        source_dropout: chance that a whole source is hidden from a training case, by its name in
            `Columns.groups`; names without columns are passed over.
    """

    device: str = "cpu"
    epochs: int = 60
    patience: int = 8
    batch_size: int = 64
    learning_rate: float = 0.001
    weight_decay: float = 0.01
    clip_norm: float = 1.0
    threads: int = 1
    source_dropout: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Columns:
    """What is known of the columns of X: channels where X is 3-D, features where it is 2-D.

    Attributes:
        log: (n_columns,) bool: the values span decades, so networks see their signed log1p.
        absent: (n_columns,) float32: what a column reads where its channel was not measured: NaN,
            but 1 for a column that tells the share of missing values.
        channel: (n_columns,) int: columns with the same number tell of the same channel.
        groups: columns of each source; `FitSettings.source_dropout` hides them together.
    """

    log: np.ndarray
    absent: np.ndarray
    channel: np.ndarray
    groups: Mapping[str, Sequence[int]] = field(default_factory=dict)

    @classmethod
    def plain(
        cls,
        n_columns: int,
        *,
        log: Sequence[bool] | None = None,
        groups: Mapping[str, Sequence[int]] | None = None,
    ) -> Columns:
        """Each column a channel of its own, NaN where not measured."""
        flags = np.zeros(n_columns, bool) if log is None else np.asarray(log, bool)
        absent = np.full(n_columns, np.nan, np.float32)
        return cls(flags, absent, np.arange(n_columns), dict(groups or {}))


class Classifier(ABC):
    """A classifier of (n_cases, n_channels, n_timepoints) arrays, NaN where missing.

    Tabular architectures (`tabular`) also take features, (n_cases, n_features); a 3-D array they
    summarise first with `cis490.windows.features.summarise`. Sequence architectures also take a
    `WindowView`. Any number of channels, steps and classes will do; the same seed gives the same
    model on the CPU.

    Args:
        n_classes: labels are 0 .. n_classes - 1; training need not show all of them.
        seed: of everything random.
        settings: how to train.
        columns: what is known of X's columns; by default nothing (`Columns.plain`).
    """

    tabular: ClassVar[bool] = False

    def __init__(
        self,
        n_classes: int,
        *,
        seed: int = 42,
        settings: FitSettings | None = None,
        columns: Columns | None = None,
    ) -> None:
        if n_classes < 2:
            raise InputError(f"n_classes is {n_classes}; a classifier needs at least 2")
        self.n_classes = n_classes
        self.seed = seed
        self.settings = settings or FitSettings()
        self.columns = columns
        self.history: list[dict[str, float | int | None]] = []  # a row an epoch, after fit
        self.best_epoch = 0  # the one whose weights were kept, from 1
        self._input_shape: tuple[int, ...] = ()
        self._absent = np.empty(0, np.float32)
        self._unseen = np.empty(0, bool)

    @final
    def fit(
        self,
        X: np.ndarray | WindowView,
        y: np.ndarray,
        *,
        X_val: np.ndarray | WindowView | None = None,
        y_val: np.ndarray | None = None,
    ) -> Self:
        """Train on X, (n_cases, n_channels, n_timepoints) or, if tabular, (n_cases, n_features).

        Args:
            X: float, NaN where missing.
            y: (n_cases,) integer labels.
            X_val, y_val: the same of other cases, for early stopping. Without them, or if they
                hold no class that y holds, training runs to its end.

        Raises:
            InputError: X or y cannot be used.
            TrainingFailed: the loss ceased to be finite.
        """
        X = self._checked(X)
        y = self._checked_labels(y, len(X))
        if len(X) == 0:
            raise InputError("there is not one case to train on")
        if len(np.unique(y)) < 2:
            raise InputError(f"training labels hold a single class, {y[0]}; it takes at least 2")
        columns = self.columns or Columns.plain(X.shape[1])
        if len(columns.log) != X.shape[1]:
            raise InputError(f"columns tell of {len(columns.log)} columns, but X has {X.shape[1]}")
        self._input_shape = tuple(X.shape[1:])
        self._absent = columns.absent.astype(np.float32)
        self._unseen = _unseen(X, columns)
        validation = None
        if X_val is not None and y_val is not None and len(X_val) > 0:
            X_val = self._checked(X_val)
            self._check_shape(X_val)
            y_val = self._checked_labels(y_val, len(X_val))
            if self._unseen.any():  # val is judged by what prediction will see
                X_val = _hidden(X_val, self._unseen, self._absent)
            if np.isin(y_val, y).any():
                validation = (self._inner(X_val), y_val)
        inner = self._inner(X)
        self._fit(inner, y, validation, self._inner_columns(columns, inner.shape[1]))
        return self

    @final
    def predict_proba(self, X: np.ndarray | WindowView) -> np.ndarray:
        """Probabilities (n_cases, n_classes) float32; each row sums to 1.

        Raises:
            InputError: not fitted, or X has another number of channels or steps than in training.
        """
        inner = self._known(X)
        if len(inner) == 0:
            return np.empty((0, self.n_classes), np.float32)
        return self._predict_proba(inner).astype(np.float32, copy=False)

    @final
    def embed(self, X: np.ndarray | WindowView) -> np.ndarray:
        """What the model makes of each case before it decides: (n_cases, d) float32.

        Raises:
            InputError: as `predict_proba`.
        """
        inner = self._known(X)
        if len(inner) == 0:
            return np.empty((0, self.embedding_size), np.float32)
        return self._embed(inner).astype(np.float32, copy=False)

    @abstractmethod
    def _fit(
        self,
        X: np.ndarray | WindowView,
        y: np.ndarray,
        validation: tuple[np.ndarray | WindowView, np.ndarray] | None,
        columns: Columns,
    ) -> None:
        """Train on checked input; set `history` and `best_epoch`. If tabular, X is always 2-D."""

    @abstractmethod
    def _predict_proba(self, X: np.ndarray | WindowView) -> np.ndarray: ...

    @abstractmethod
    def _embed(self, X: np.ndarray | WindowView) -> np.ndarray: ...

    @property
    @abstractmethod
    def embedding_size(self) -> int:
        """d of `embed`."""

    @property
    @abstractmethod
    def n_parameters(self) -> int:
        """Numbers that training sets: weights and biases, or nodes of trees."""

    @abstractmethod
    def _arrays(self) -> dict[str, np.ndarray]:
        """Everything learned, as arrays."""

    @abstractmethod
    def _restore(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Take what `_arrays` gave; `_input_shape` is set already."""

    @final
    def state(self) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """A JSON-able description and arrays, which together rebuild the model (`from_state`)."""
        if not self._input_shape:
            raise InputError("this model is not fitted: call fit first")
        description = {"n_classes": self.n_classes, "input_shape": list(self._input_shape)}
        own = {"input.absent": self._absent, "input.unseen": self._unseen}
        return description, own | self._arrays()

    @classmethod
    @final
    def from_state(
        cls,
        description: Mapping[str, Any],
        arrays: Mapping[str, np.ndarray],
        *,
        seed: int = 42,
        settings: FitSettings | None = None,
    ) -> Self:
        """Rebuild a trained model; `settings` matter only for its device and threads."""
        model = cls(int(description["n_classes"]), seed=seed, settings=settings)
        model._input_shape = tuple(int(size) for size in description["input_shape"])
        model._absent, model._unseen = arrays["input.absent"], arrays["input.unseen"]
        model._restore(arrays)
        return model

    def _checked(self, X: np.ndarray | WindowView) -> np.ndarray | WindowView:
        if isinstance(X, WindowView):
            series = X.series
            told = (series.scale, series.base) if isinstance(series, CodedSeries) else (series,)
            if any(np.isinf(values).any() for values in told):
                raise InputError("X holds infinite values; say NaN where a value is missing")
            return X.to_array() if self.tabular else X
        X = np.asarray(X, np.float32)
        wanted = "(n_cases, n_channels, n_timepoints)"
        if self.tabular:
            wanted += " or (n_cases, n_features)"
        if X.ndim not in ((2, 3) if self.tabular else (3,)):
            raise InputError(f"X must be {wanted}, not of shape {X.shape}")
        if 0 in X.shape[1:]:
            raise InputError(f"X of shape {X.shape} has nothing to learn from")
        if np.isinf(X).any():
            raise InputError("X holds infinite values; say NaN where a value is missing")
        return X

    def _checked_labels(self, y: np.ndarray, n_cases: int) -> np.ndarray:
        y = np.asarray(y)
        if y.shape != (n_cases,):
            raise InputError(f"X has {n_cases} cases, but y is of shape {y.shape}")
        if not np.issubdtype(y.dtype, np.integer):
            raise InputError(f"y must be integer labels, not {y.dtype}")
        if n_cases and (y.min() < 0 or y.max() >= self.n_classes):
            raise InputError(
                f"labels must lie in 0 .. {self.n_classes - 1}, but y holds {y.min()} .. {y.max()}"
            )
        return y.astype(np.int64)

    def _check_shape(self, X: np.ndarray | WindowView) -> None:
        if tuple(X.shape[1:]) != self._input_shape:
            names = ("features",) if len(self._input_shape) == 1 else ("channels", "timepoints")
            trained = " x ".join(map(str, self._input_shape))
            given = " x ".join(map(str, X.shape[1:]))
            raise InputError(
                f"the model was trained on {trained} ({' x '.join(names)}), but X has {given}"
            )

    def _known(self, X: np.ndarray | WindowView) -> np.ndarray | WindowView:
        """Check X, hide from it what training never saw, and give it the inner form."""
        if not self._input_shape:
            raise InputError("this model is not fitted: call fit first")
        X = self._checked(X)
        self._check_shape(X)
        if self._unseen.any():
            X = _hidden(X, self._unseen, self._absent)
        return self._inner(X) if len(X) else X

    def _inner(self, X: np.ndarray | WindowView) -> np.ndarray | WindowView:
        """What the architecture sees: features (2-D) if tabular, else windows."""
        if self.tabular:
            assert isinstance(X, np.ndarray)
            return X if X.ndim == 2 else _summarised(X)
        return WindowView.from_array(X) if isinstance(X, np.ndarray) else X

    def _inner_columns(self, columns: Columns, n_inner: int) -> Columns:
        """`columns` told of the features that 3-D cases are summarised to."""
        if not self.tabular or len(self._input_shape) == 1:
            return columns
        each = n_inner // len(columns.log)  # summaries of a channel stand together
        empty = np.full((1, *self._input_shape), np.nan, np.float32)
        groups = {
            name: [each * c + i for c in members for i in range(each)]
            for name, members in columns.groups.items()
        }
        return Columns(
            np.repeat(columns.log, each),
            _summarised(empty)[0],
            np.repeat(columns.channel, each),
            groups,
        )


def _summarised(X: np.ndarray) -> np.ndarray:
    """(n_cases, n_channels, n_timepoints) to (n_cases, n_features) float32."""
    from cis490.windows.features import summarise

    mask = ~np.isnan(X)
    return np.asarray(summarise(np.where(mask, X, 0), mask), np.float32).reshape(len(X), -1)


def _unseen(X: np.ndarray | WindowView, columns: Columns) -> np.ndarray:
    """(n_columns,) bool: columns of channels that never had a value in X."""
    if isinstance(X, WindowView):
        values = X.series.base if isinstance(X.series, CodedSeries) else X.series
        valued = ~np.isnan(values).all(0)
    else:
        valued = ~np.isnan(X).all((0, 2) if X.ndim == 3 else 0)
    valued &= np.isnan(columns.absent)  # a share missing has a value even where nothing was seen
    seen = np.bincount(columns.channel, valued) > 0
    return np.asarray(~seen[columns.channel])


def _hidden(
    X: np.ndarray | WindowView, columns: np.ndarray, absent: np.ndarray
) -> np.ndarray | WindowView:
    """X with the flagged columns as if they had not been measured."""
    if isinstance(X, WindowView):
        series = X.series
        hidden = (
            series.hidden(columns)
            if isinstance(series, CodedSeries)
            else np.where(columns, absent, series)
        )
        return WindowView(hidden, X.start, X.length)
    shape = (-1, 1) if X.ndim == 3 else (-1,)
    return np.where(columns.reshape(shape), absent.reshape(shape), X)
