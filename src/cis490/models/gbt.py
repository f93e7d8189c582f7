"""Gradient-boosted trees (XGBoost) on summary features; missing values stay NaN."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import xgboost

from cis490.errors import FormatError
from cis490.models.base import Classifier, Columns, FitSettings
from cis490.models.views import WindowView
from cis490.models.weights import class_weights
from cis490.training.schedule import macro_f1

logger = logging.getLogger("cis490")

ROUNDS: Final = 400  # at most; val mlogloss usually ends it sooner
ROUNDS_BLIND: Final = 100  # where no val says when to stop
PATIENCE: Final = 20  # rounds without a better val mlogloss
# Shallow trees, each on a part of cases and features: few episodes, many related features.
TREE: Final[dict[str, Any]] = {
    "tree_method": "hist",
    "eta": 0.1,
    "max_depth": 4,
    "min_child_weight": 2,
    "subsample": 0.8,
    "colsample_bytree": 0.3,
    "max_bin": 128,
}


class GBT(Classifier):
    """XGBoost with early stopping on val mlogloss; class weights are case weights.

    Of `settings` it uses threads and source_dropout. `embed` gives the margins: the summed
    log-odds of each class before softmax, (n_cases, n_classes).
    """

    tabular = True

    _booster: xgboost.Booster

    def _fit(
        self,
        X: np.ndarray | WindowView,
        y: np.ndarray,
        validation: tuple[np.ndarray | WindowView, np.ndarray] | None,
        columns: Columns,
    ) -> None:
        assert isinstance(X, np.ndarray)
        weights = class_weights(y, self.n_classes)
        copies, chance = masked_copies(X, columns, self.settings)
        train = xgboost.DMatrix(
            np.concatenate(copies),
            np.tile(y, len(copies)),
            weight=np.outer(chance, weights[y]).ravel(),
            nthread=self.settings.threads,
        )
        evals = [(train, "train")]
        callbacks: list[xgboost.callback.TrainingCallback] = [_Progress()]
        if validation is not None:
            X_val, y_val = validation
            case_weights = weights[y_val]
            val = xgboost.DMatrix(X_val, y_val, weight=case_weights, nthread=self.settings.threads)
            evals.append((val, "val"))
            stop = xgboost.callback.EarlyStopping(
                rounds=PATIENCE, metric_name="mlogloss", data_name="val", save_best=True
            )
            callbacks.append(stop)
        results: dict[str, dict[str, list[float]]] = {}
        self._booster = xgboost.train(
            self._parameters(),
            train,
            num_boost_round=ROUNDS if len(evals) > 1 else ROUNDS_BLIND,
            evals=evals,
            evals_result=results,
            callbacks=callbacks,
            custom_metric=_macro_f1,
            verbose_eval=False,
        )
        self.history = _history(results)
        self.best_epoch = self._booster.num_boosted_rounds()

    def _parameters(self) -> dict[str, Any]:
        return TREE | {
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


class _Progress(xgboost.callback.TrainingCallback):
    """Logs a line every 25 rounds."""

    def after_iteration(self, model: Any, epoch: int, evals_log: Any) -> bool:  # noqa: ARG002
        if epoch % 25 == 0:
            losses = {name: metrics["mlogloss"][-1] for name, metrics in evals_log.items()}
            logger.info("round %d, mlogloss %s", epoch + 1, losses)
        return False


def _macro_f1(probabilities: np.ndarray, cases: xgboost.DMatrix) -> tuple[str, float]:
    y = cases.get_label().astype(np.int64)
    return "macro_f1", macro_f1(y, probabilities.argmax(1), probabilities.shape[1])


def _history(results: Mapping[str, Mapping[str, list[float]]]) -> list[dict[str, Any]]:
    """A row a round, in the columns of the networks' history."""
    train = results["train"]["mlogloss"]
    val = results.get("val", {})
    none = [None] * len(train)
    rows = zip(train, val.get("mlogloss", none), val.get("macro_f1", none), strict=True)
    return [
        {
            "epoch": i,
            "step": i,
            "train_loss": loss,
            "val_loss": val_loss,
            "val_macro_f1": f1,
            "learning_rate": TREE["eta"],
            "grad_norm": None,
        }
        for i, (loss, val_loss, f1) in enumerate(rows, start=1)
    ]
