"""Architectures and trained baselines by name. A new one is a file with a class and a line here."""

from __future__ import annotations

import importlib
from typing import Any, Final

from cis490.errors import Cis490Error, ConfigError
from cis490.models.base import Classifier

# As text, so that gbt does not import torch and the networks do not import xgboost.
ARCHITECTURES: Final[dict[str, str]] = {
    "gbt": "cis490.models.gbt:GBT",
    "mlp": "cis490.models.mlp:MLP",
    "cnn": "cis490.models.cnn:CNN",
    "gru": "cis490.models.gru:GRU",
    "lstm": "cis490.models.lstm:LSTM",
    "transformer": "cis490.models.transformer:Transformer",
}
# Trained and scored like them, but reported among the baselines (docs/statistics.md).
BASELINES: Final[dict[str, str]] = {
    "minirocket": "cis490.models.minirocket:MiniRocket",
    "logistic": "cis490.models.logistic:Logistic",
    "threshold": "cis490.models.threshold:Threshold",
}


def get_class(name: str) -> type[Classifier]:
    """The class of an architecture or a trained baseline.

    Raises:
        ConfigError: neither has that name.
        Cis490Error: the package that the architecture stands on is not installed.
    """
    known = ARCHITECTURES | BASELINES
    if name not in known:
        raise ConfigError(f"no architecture is called {name}; there are {', '.join(known)}")
    module, _, attribute = known[name].partition(":")
    try:
        found: type[Classifier] = getattr(importlib.import_module(module), attribute)
    except ModuleNotFoundError as error:
        raise Cis490Error(
            f"{name} needs the package {error.name}, which is not installed here: "
            "install the packages that envs/ lists"
        ) from error
    return found


def create(name: str, n_classes: int, **arguments: Any) -> Classifier:
    """An untrained classifier; `arguments` are those of `Classifier`: seed, settings, columns,
    preset and options."""
    return get_class(name)(n_classes, **arguments)
