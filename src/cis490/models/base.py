"""The one class behind every architecture. Checks live here, once; an architecture computes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Self, final

import numpy as np

from cis490.errors import Cis490Error, FormatError
from cis490.models.options import Presets, resolve_options
from cis490.models.views import CodedSeries, WindowView
from cis490.training.run import History, Run


class InputError(Cis490Error, ValueError):
    """An array that a model cannot take: wrong shape, wrong labels, infinite, or not fitted yet."""


@dataclass(frozen=True)
class FitSettings:
    """How to train; the names are those under `training` in config.yaml, which says why.

    Attributes:
        micro_batch: cases whose gradients are computed at once; "auto": as many as fit.
        learning_rate: the peak; "auto": what a range test suggests (`training.finder`).
        precision: of the networks' arithmetic, a name in `training.step.TYPES`; "auto": what suits
            the device.
        deterministic: on a card, only algorithms that give the same bits each time.
        graphs: on a card, record steps and play them (`training.graphs`); the same bits, sooner.
        imbalance: one of `training.losses.IMBALANCE`.
        focal_gamma, label_smoothing: of the focal loss and of label smoothing, where chosen.
        source_dropout: chance that a whole source is hidden from a training case, by its name in
            `Columns.groups`; names without columns are passed over.
        scale_jitter: in training each channel whose scale is a machine's own (`Columns.scaled`) is
            multiplied by exp of a normal number of this deviation, anew for each case; 0: never.
    """

    device: str = "cpu"
    epochs: int = 60
    patience: int = 8
    batch_size: int = 64
    micro_batch: int | str = "auto"
    learning_rate: float | str = "auto"
    weight_decay: float = 0.01
    clip_norm: float = 1.0
    precision: str = "auto"
    deterministic: bool = True
    graphs: bool = True
    threads: int = 1
    imbalance: str = "weighted"
    focal_gamma: float = 2.0
    label_smoothing: float = 0.1
    source_dropout: Mapping[str, float] = field(default_factory=dict)
    scale_jitter: float = 0.0


@dataclass(frozen=True)
class Columns:
    """What is known of the columns of X: channels where X is 3-D, features where it is 2-D.

    Attributes:
        log: (n_columns,) bool: the values span decades, so networks see their signed log1p.
        absent: (n_columns,) float32: what a column reads where its channel was not measured: NaN,
            but 1 for a column that tells the share of missing values.
        channel: (n_columns,) int: columns with the same number tell of the same channel.
        groups: columns of each source; `FitSettings.source_dropout` hides them together.
        scaled: (n_columns,) bool: a rate or an amount, of which another machine has more or less of
            the same; `FitSettings.scale_jitter` moves those of a channel together.
    """

    log: np.ndarray
    absent: np.ndarray
    channel: np.ndarray
    groups: Mapping[str, Sequence[int]] = field(default_factory=dict)
    scaled: np.ndarray | None = None

    @classmethod
    def plain(
        cls,
        n_columns: int,
        *,
        log: Sequence[bool] | None = None,
        groups: Mapping[str, Sequence[int]] | None = None,
        scaled: Sequence[bool] | None = None,
    ) -> Columns:
        """Each column a channel of its own, NaN where not measured."""
        flags = np.zeros(n_columns, bool) if log is None else np.asarray(log, bool)
        absent = np.full(n_columns, np.nan, np.float32)
        scales = None if scaled is None else np.asarray(scaled, bool)
        return cls(flags, absent, np.arange(n_columns), dict(groups or {}), scales)

    @property
    def scaled_channels(self) -> tuple[np.ndarray, np.ndarray]:
        """Columns (m,) whose scale may differ, and the place of each one's channel, from 0."""
        columns = np.flatnonzero(np.zeros(0) if self.scaled is None else self.scaled)
        return columns, np.unique(self.channel[columns], return_inverse=True)[1]


@dataclass(frozen=True)
class Prepared:
    """Checked training data, as an architecture made it ready; every seed trains on the same.

    Attributes:
        n_cases: of training.
        input_shape: of a case, as the caller gave it.
        absent: (n_columns,) what a column reads where its channel was not measured.
        unseen: (n_columns,) bool, columns of channels that training never saw.
        data: what `Classifier._prepare` made.
    """

    n_cases: int
    input_shape: tuple[int, ...]
    absent: np.ndarray
    unseen: np.ndarray
    data: Any


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
        preset: a name in `presets`: `small` for tens of episodes, `large` for tens of thousands.
        options: entries of the preset to override; the result is the attribute `options`.

    Raises:
        InputError: fewer than two classes.
        ConfigError: no such preset or option, or an option of another type or out of range.
    """

    tabular: ClassVar[bool] = False
    # How it weighs classes, a name in `training.losses.IMBALANCE`, "" for what the settings say;
    # None: its probabilities are not fit to pass a filter of phases.
    weighing: ClassVar[str | None] = ""
    presets: ClassVar[Presets]

    def __init__(
        self,
        n_classes: int,
        *,
        seed: int = 42,
        settings: FitSettings | None = None,
        columns: Columns | None = None,
        preset: str = "small",
        options: Mapping[str, Any] | None = None,
    ) -> None:
        if n_classes < 2:
            raise InputError(f"n_classes is {n_classes}; a classifier needs at least 2")
        self.n_classes = n_classes
        self.seed = seed
        self.settings = settings or FitSettings()
        self.columns = columns
        self.options = resolve_options(type(self).__name__, self.presets, preset, options)
        self.history: History = []  # a row an epoch, after fit
        self.best_epoch = 0  # the one whose weights were kept, from 1
        self.events: list[dict[str, Any]] = []  # collapses and what was done (training.collapse)
        self.chosen: dict[str, Any] = {"device": "cpu"}  # what `auto` settings came to
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
            TrainingFailed: the training collapsed, and nothing helped (`training.collapse`).
        """
        return self.fit_prepared(self.prepare(X, y, X_val=X_val, y_val=y_val))

    @final
    def prepare(
        self,
        X: np.ndarray | WindowView,
        y: np.ndarray,
        *,
        X_val: np.ndarray | WindowView | None = None,
        y_val: np.ndarray | None = None,
        run: Run | None = None,
    ) -> Prepared:
        """Check training data and make them ready, once for all seeds; arguments as of `fit`.

        Args:
            run: where to keep a learning rate that is found.

        Raises:
            InputError: X or y cannot be used.
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
        absent, unseen = columns.absent.astype(np.float32), _unseen(X, columns)
        validation = None
        if X_val is not None and y_val is not None and len(X_val) > 0:
            X_val = self._checked(X_val)
            self._check_shape(X_val)
            y_val = self._checked_labels(y_val, len(X_val))
            if unseen.any():  # val is judged by what prediction will see
                X_val = _hidden(X_val, unseen, absent)
            if np.isin(y_val, y).any():
                validation = (self._inner(X_val), y_val)
        inner = self._inner(X)
        inner_columns = self._inner_columns(columns, inner.shape[1])
        data = self._prepare(inner, y, validation, inner_columns, run or Run())
        return Prepared(len(y), self._input_shape, absent, unseen, data)

    @final
    def fit_prepared(self, prepared: Prepared, run: Run | None = None) -> Self:
        """Train on what `prepare` of a classifier of the same class, settings and options made.

        Args:
            run: who listens, and where to keep the state of a training that may be killed.

        Raises:
            TrainingFailed: the training collapsed, and nothing helped (`training.collapse`).
        """
        self._input_shape = prepared.input_shape
        self._absent, self._unseen = prepared.absent, prepared.unseen
        self._fit(prepared.data, run or Run())
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
    def _prepare(
        self,
        X: np.ndarray | WindowView,
        y: np.ndarray,
        validation: tuple[np.ndarray | WindowView, np.ndarray] | None,
        columns: Columns,
        run: Run,
    ) -> Any:
        """What `_fit` trains on, of checked input; the same for every seed. X is 2-D if tabular."""

    @abstractmethod
    def _fit(self, data: Any, run: Run) -> None:
        """Train on what `_prepare` made; set `history` and `best_epoch`."""

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

    def size_for(self, input_shape: tuple[int, ...]) -> int | None:  # noqa: ARG002
        """Weights and biases before any training, for cases of a shape; None: training decides."""
        return None

    @property
    def max_epochs(self) -> int:
        """Rows that the history has at most."""
        return self.settings.epochs

    @property
    def best(self) -> dict[str, float | int | None]:
        """The row of the history whose weights were kept."""
        return next(row for row in reversed(self.history) if row["epoch"] == self.best_epoch)

    @final
    def state(self) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """A JSON-able description and arrays, which together rebuild the model (`from_state`)."""
        if not self._input_shape:
            raise InputError("this model is not fitted: call fit first")
        description = {
            "n_classes": self.n_classes,
            "input_shape": list(self._input_shape),
            "options": self.options,
        }
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
        """Rebuild a trained model; `settings` matter only for its device and threads.

        Raises:
            FormatError: the model has other options than this version's, or arrays do not fit.
        """
        options = description.get("options")
        if not isinstance(options, Mapping) or options.keys() != cls.presets["small"].keys():
            raise FormatError(f"the model lacks options that {cls.__name__} has: train again")
        model = cls(int(description["n_classes"]), seed=seed, settings=settings, options=options)
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
