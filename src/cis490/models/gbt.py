"""Gradient-boosted trees (XGBoost) on summary features; missing values stay NaN."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any, ClassVar, Final

import numpy as np
import xgboost

from cis490.errors import FormatError
from cis490.models.base import Classifier, Columns, FitSettings
from cis490.models.options import Presets
from cis490.models.views import WindowView
from cis490.models.weights import class_weights
from cis490.training.run import History, Run
from cis490.training.schedule import macro_f1

# The options that are XGBoost's own, under its names.
TREE: Final = (
    "eta",
    "max_depth",
    "min_child_weight",
    "subsample",
    "colsample_bytree",
    "max_bin",
)
COPIES: Final = 3  # of each case at other scales; six were no better (docs/decisions/0007)
MANY: Final = 50_000  # cases of which copies would only take memory


class GBT(Classifier):
    """XGBoost with early stopping on val mlogloss; class weights are case weights.

    Of `settings` it uses threads, source_dropout and imbalance. `embed` gives the margins: the
    summed log-odds of each class before softmax, (n_cases, n_classes).

    Options: `rounds` at most, `rounds_blind` where no val says when to stop, `patience` in rounds
    without a better val mlogloss; the others are XGBoost's, by its names.
    """

    tabular = True
    presets: ClassVar[Presets] = {
        # Shallow trees, each on a part of cases and features: few episodes, many related features.
        "small": {
            "rounds": 400,
            "rounds_blind": 100,
            "patience": 20,
            "eta": 0.1,
            "max_depth": 4,
            "min_child_weight": 2.0,
            "subsample": 0.8,
            "colsample_bytree": 0.3,
            "max_bin": 128,
        },
        "large": {
            "rounds": 2000,
            "rounds_blind": 500,
            "patience": 50,
            "eta": 0.1,
            "max_depth": 8,
            "min_child_weight": 2.0,
            "subsample": 0.8,
            "colsample_bytree": 0.3,
            "max_bin": 256,
        },
    }

    _booster: xgboost.Booster

    def _prepare(
        self,
        X: np.ndarray | WindowView,
        y: np.ndarray,
        validation: tuple[np.ndarray | WindowView, np.ndarray] | None,
        columns: Columns,
        run: Run,  # noqa: ARG002
    ) -> list[tuple[xgboost.DMatrix, str]]:
        assert isinstance(X, np.ndarray)
        weights = _class_weights(y, self.n_classes, self.settings.imbalance)
        scaled = scaled_copies(X, columns, self.settings)
        copies, chances = [], []
        for each in scaled:
            masked, chance = masked_copies(each, columns, self.settings)
            copies += masked
            chances.append(chance / len(scaled))
        train = xgboost.DMatrix(
            np.concatenate(copies),
            np.tile(y, len(copies)),
            weight=np.outer(np.concatenate(chances), weights[y]).ravel(),
            nthread=self.settings.threads,
        )
        if validation is None:
            return [(train, "train")]
        X_val, y_val = validation
        case_weights = weights[y_val]
        val = xgboost.DMatrix(X_val, y_val, weight=case_weights, nthread=self.settings.threads)
        return [(train, "train"), (val, "val")]

    def _fit(self, data: list[tuple[xgboost.DMatrix, str]], run: Run) -> None:
        history = _History(self.options["eta"], run)
        callbacks: list[xgboost.callback.TrainingCallback] = [history]
        if len(data) > 1:
            stop = xgboost.callback.EarlyStopping(
                rounds=self.options["patience"],
                metric_name="mlogloss",
                data_name="val",
                save_best=True,
            )
            callbacks.append(stop)
        self._booster = xgboost.train(
            self._parameters(),
            data[0][0],
            num_boost_round=self.options["rounds" if len(data) > 1 else "rounds_blind"],
            evals=data,
            callbacks=callbacks,
            custom_metric=_macro_f1,
            verbose_eval=False,
        )
        self.history = history.rows
        self.best_epoch = self._booster.num_boosted_rounds()

    @property
    def max_epochs(self) -> int:
        """Rounds."""
        return int(self.options["rounds"])

    def _parameters(self) -> dict[str, Any]:
        return {name: self.options[name] for name in TREE} | {
            "tree_method": "hist",
            "objective": "multi:softprob",
            "num_class": self.n_classes,
            "eval_metric": "mlogloss",
            "base_score": 0.5,  # fixed, for versions differ in how they estimate it
            "seed": self.seed,
            "nthread": self.settings.threads,
        }

    def _predict_proba(self, X: np.ndarray | WindowView) -> np.ndarray:
        return self._boosted(X, margin=False)

    def _embed(self, X: np.ndarray | WindowView) -> np.ndarray:
        return self._boosted(X, margin=True)

    def _boosted(self, X: np.ndarray | WindowView, *, margin: bool) -> np.ndarray:
        cases = xgboost.DMatrix(X, nthread=self.settings.threads)
        return np.asarray(self._booster.predict(cases, output_margin=margin))

    @property
    def embedding_size(self) -> int:
        """A margin for each class."""
        return self.n_classes

    @property
    def n_parameters(self) -> int:
        """Nodes of all trees, leaves included."""
        return sum(len(tree.splitlines()) for tree in self._booster.get_dump())

    def _arrays(self) -> dict[str, np.ndarray]:
        return {"booster": np.frombuffer(self._booster.save_raw("ubj"), np.uint8)}

    def _restore(self, arrays: Mapping[str, np.ndarray]) -> None:
        try:
            self._booster = xgboost.Booster(model_file=bytearray(arrays["booster"].tobytes()))
        except xgboost.core.XGBoostError as error:
            reason = str(error).splitlines()[0]
            raise FormatError(f"weights do not hold an XGBoost model: {reason}") from None
        self._booster.set_param({"nthread": self.settings.threads})


def scaled_copies(X: np.ndarray, columns: Columns, settings: FitSettings) -> list[np.ndarray]:
    """X, and `COPIES` of it whose channels are of another scale, in each case anew.

    Beyond `MANY` cases one such copy stands for X: so many show as many scales. The copies are
    drawn once, from a seed of their own, for seeds of a model share their data.
    """
    which, channel = columns.scaled_channels
    if not settings.scale_jitter or not len(which):
        return [X]
    rng, few = np.random.default_rng(0), len(X) <= MANY

    def moved() -> np.ndarray:
        drawn = rng.normal(0, settings.scale_jitter, (len(X), channel.max() + 1))
        copy = X.copy()
        copy[:, which] *= np.exp(drawn.astype(np.float32))[:, channel]
        return copy

    return [X, *(moved() for _ in range(COPIES))] if few else [moved()]


def masked_copies(
    X: np.ndarray, columns: Columns, settings: FitSettings
) -> tuple[list[np.ndarray], np.ndarray]:
    """X with every combination of sources hidden, and the chance of each combination.

    Trees see a case once, so the mix that the networks meet by chance is laid out in full: with one
    source of chance p, the originals at weight 1 - p and the masked copies at p.

    Returns:
        Arrays shaped like X, the first unmasked, and their weights, which add up to 1.
    """
    chances = settings.source_dropout
    sources = [s for s in sorted(columns.groups) if columns.groups[s] and chances.get(s, 0) > 0]
    copies, weights = [], []
    for hidden in itertools.product((False, True), repeat=len(sources)):
        copy, weight = X.copy(), 1.0
        for source, lost in zip(sources, hidden, strict=True):
            weight *= chances[source] if lost else 1 - chances[source]
            if lost:
                members = list(columns.groups[source])
                copy[:, members] = columns.absent[members]
        copies.append(copy)
        weights.append(weight)
    return copies, np.array(weights)


class _History(xgboost.callback.TrainingCallback):
    """A row a round, in the columns of the networks' history."""

    def __init__(self, eta: float, run: Run) -> None:
        self.eta, self.run = eta, run
        self.rows: History = []

    def after_iteration(self, model: Any, epoch: int, evals_log: Any) -> bool:  # noqa: ARG002
        """Take note of a round; never ask for an end."""
        val = evals_log.get("val", {})
        row = {
            "attempt": 1,
            "epoch": epoch + 1,
            "step": epoch + 1,
            "train_loss": evals_log["train"]["mlogloss"][-1],
            "val_loss": val["mlogloss"][-1] if val else None,
            "val_macro_f1": val["macro_f1"][-1] if val else None,
            "learning_rate": self.eta,
            "grad_norm": None,
            "skipped_steps": 0,
        }
        self.rows.append(row)
        self.run.listen(row)
        return False


def _class_weights(y: np.ndarray, n_classes: int, imbalance: str) -> np.ndarray:
    """Weights of the classes (n_classes,): as the networks' loss has them, or as sampling would.

    Trees have neither a focal loss nor label smoothing: where the networks use one, cases of all
    classes weigh alike.
    """
    if imbalance == "weighted":
        return class_weights(y, n_classes)
    counts = np.bincount(y, minlength=n_classes)
    if imbalance == "balanced":
        weights = len(y) / np.count_nonzero(counts) / np.maximum(counts, 1)
        return np.where(counts > 0, weights, 0).astype(np.float32)
    return np.ones(n_classes, np.float32)


def _macro_f1(probabilities: np.ndarray, cases: xgboost.DMatrix) -> tuple[str, float]:
    y = cases.get_label().astype(np.int64)
    return "macro_f1", macro_f1(y, probabilities.argmax(1), probabilities.shape[1])
