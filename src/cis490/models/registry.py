"""The architectures by name. A new one is a file with a class and a line here."""

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


def get_class(name: str) -> type[Classifier]:
    """The class of an architecture.

    Raises:
        ConfigError: no architecture has that name.
        Cis490Error: the package that the architecture stands on is not installed.
    """
    if name not in ARCHITECTURES:
        raise ConfigError(f"no architecture is called {name}; there are {', '.join(ARCHITECTURES)}")
    module, _, attribute = ARCHITECTURES[name].partition(":")
    try:
        found: type[Classifier] = getattr(importlib.import_module(module), attribute)
    except ModuleNotFoundError as error:
        raise Cis490Error(
            f"{name} needs the package {error.name}, which is not installed here: "
            "install the packages that envs/ lists"
        ) from error
    return found


def create(name: str, n_classes: int, **options: Any) -> Classifier:
    """An untrained classifier; `options` are those of `Classifier` (seed, settings, columns)."""
    return get_class(name)(n_classes, **options)
