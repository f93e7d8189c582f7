"""gbt as probes retrain it: with the settings of the real training, under its first seed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np

from cis490.evaluation.metrics import K
from cis490.models.base import Classifier, FitSettings, InputError
from cis490.models.registry import create
from cis490.probes.data import NotMeasurable, told_of
from cis490.training.settings import settings_of

NAME: Final = "gbt"
FOLDS: Final = 5


@dataclass(frozen=True)
class Booster:
    """How to train.

    Attributes:
        settings, made: as `training.settings.settings_of` gives them.
        seed: the first of the settings.
    """

    settings: FitSettings
    made: Mapping[str, Any]
    seed: int

    @classmethod
    def of(cls, config: Mapping[str, Any], tuned: Mapping[str, Any] | None = None) -> Booster:
        """From resolved settings, and what a search of gbt's chose."""
        settings, made = settings_of(config, NAME, tuned)
        return cls(settings, made, config["seeds"][0])

    def at_one_scale(self) -> Booster:
        """Without copies of windows at other scales, which quadruple what a fit costs."""
        return replace(self, settings=replace(self.settings, scale_jitter=0.0))

    def fit(
        self,
        X: np.ndarray,
        y: np.ndarray,
        kept: np.ndarray,
        *,
        X_val: np.ndarray | None = None,
        y_val: np.ndarray | None = None,
        n_classes: int = K,
    ) -> Classifier:
        """Train on X, (n_cases, len(kept)), which are the columns `kept` of `Windows.X`.

        Raises:
            NotMeasurable: there is too little to train on.
        """
        columns = told_of(kept)
        model = create(
            NAME,
            n_classes,
            seed=self.seed,
            settings=self.settings,
            columns=columns,
            **self.made,
        )
        try:
            return model.fit(X, y, X_val=X_val, y_val=y_val)
        except InputError as error:
            raise NotMeasurable(f"gbt cannot be trained: {error}") from None

    def out_of_fold(
        self,
        X: np.ndarray,
        y: np.ndarray,
        fold: np.ndarray,
        kept: np.ndarray,
        *,
        n_classes: int = K,
    ) -> np.ndarray:
        """(n_cases,) int64 predictions, each by a model that did not see its fold.

        Of `FOLDS` folds one is predicted, the next one says when to stop, the others train.
        """
        predicted = np.empty(len(y), np.int64)
        for k in range(FOLDS):
            test, val = fold == k, fold == (k + 1) % FOLDS
            train = ~(test | val)
            model = self.fit(
                X[train], y[train], kept, X_val=X[val], y_val=y[val], n_classes=n_classes
            )
            predicted[test] = model.predict_proba(X[test]).argmax(1)
        return predicted
