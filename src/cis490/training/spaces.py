"""What the search of an architecture's settings may try, and in how large rounds.

Short lists of round numbers: val has too few episodes to tell neighbours apart, and what is chosen
should be easy to read and to write down. The values in force without a search are always among
them, so the default can win.
"""

from __future__ import annotations

from collections.abc import Container, Mapping
from dataclasses import dataclass
from typing import Any, Final

Value = float | int | str

# Trials that are asked for, tried side by side and told together. It must not depend on the number
# of cores, or the search would.
ROUND: Final = 4


@dataclass(frozen=True)
class Times:
    """A size in whole numbers, as multiples of the one in force, whatever the preset."""

    factors: tuple[float, ...]

    def of(self, size: int) -> tuple[int, ...]:
        """The sizes, none below 1."""
        return tuple(max(1, round(factor * size)) for factor in self.factors)


Space = Mapping[str, tuple[Value, ...] | Times]

_SIZE: Final = Times((0.5, 1, 1.5))
_NETWORK: Final[Space] = {
    "learning_rate": ("auto", 0.0003, 0.001, 0.003, 0.01),
    "weight_decay": (0.001, 0.01, 0.1),
    "head_dropout": (0.1, 0.3, 0.5),
}
_RECURRENT: Final[Space] = {
    **_NETWORK,
    "width": _SIZE,
    "hidden": _SIZE,
    "dropout": (0.0, 0.1, 0.3),
}

# By the names that `architectures` in config.yaml takes. What is not here is not searched.
SPACES: Final[Mapping[str, Space]] = {
    "gbt": {
        "rounds": Times((0.5, 1, 2)),
        "eta": (0.03, 0.1, 0.3),
        "max_depth": (2, 3, 4, 6, 8),
        "min_child_weight": (1.0, 2.0, 5.0, 10.0),
        "subsample": (0.6, 0.8, 1.0),
        "colsample_bytree": (0.1, 0.3, 0.6, 1.0),
    },
    "mlp": {
        **_NETWORK,
        "width": _SIZE,
        "depth": (1, 2, 3),
        "input_dropout": (0.0, 0.1, 0.3),
        "dropout": (0.1, 0.3, 0.5),
    },
    "cnn": {**_NETWORK, "branch": _SIZE, "depth": _SIZE},
    "gru": _RECURRENT,
    "lstm": _RECURRENT,
    "transformer": {**_NETWORK, "heads": _SIZE, "depth": _SIZE, "dropout": (0.0, 0.1, 0.3)},
}

# The most weights and biases that a trial may have; a preset that is not named has no bound. A
# search among larger networks would only find what fits a small val part by chance.
LARGEST: Final[Mapping[str, int]] = {"small": 150_000}


def space_of(
    architecture: str, default: Mapping[str, Any], taken: Container[str]
) -> dict[str, list[Value]]:
    """The values to try of each setting, the default first.

    Args:
        architecture: its name; one that is not in `SPACES` has nothing to try.
        default: the values in force without a search.
        taken: names of settings that are the user's own and stay as they are.
    """
    found = {}
    for name, told in SPACES.get(architecture, {}).items():
        if name not in taken:
            values = told.of(default[name]) if isinstance(told, Times) else told
            found[name] = list(dict.fromkeys([default[name], *values]))
    return found
