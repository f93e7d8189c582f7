"""Hyper-parameters: a preset of an architecture with some of its entries overridden."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from cis490.errors import ConfigError

Presets = Mapping[str, Mapping[str, Any]]  # the entries of each preset, by its name


def resolve_options(
    architecture: str, presets: Presets, preset: str, overrides: Mapping[str, Any] | None
) -> dict[str, Any]:
    """The entries of a preset, each replaced by its override where there is one.

    Args:
        architecture: its name, for messages.
        presets: all with the same entries; the type of an entry is what an override must be.
        preset: which of them.
        overrides: new values of some entries; a whole number passes for a float.

    Raises:
        ConfigError: no such preset or entry, or a value of another type or out of range.
    """
    if preset not in presets:
        known = ", ".join(presets)
        raise ConfigError(f"{architecture} has no preset {preset}; there are {known}")
    options = dict(presets[preset])
    for name, value in (overrides or {}).items():
        if name not in options:
            known = ", ".join(options)
            raise ConfigError(f"{architecture} has no option {name}; there are {known}")
        options[name] = _checked(f"{architecture}: option {name}", options[name], value)
    return options


def _checked(what: str, default: Any, value: Any) -> Any:
    """`value` as the type of `default`."""
    if isinstance(default, float) and type(value) is int:
        value = float(value)
    if type(value) is not type(default):
        raise ConfigError(f"{what} is {value!r}; it must be of type {type(default).__name__}")
    if type(value) is int and value < 1:
        raise ConfigError(f"{what} is {value}; it must be at least 1")
    if isinstance(value, float) and not (math.isfinite(value) and value >= 0):
        raise ConfigError(f"{what} is {value}; it must be finite and not negative")
    if what.endswith("dropout") and value >= 1:
        raise ConfigError(f"{what} is {value}; a chance of dropout must be below 1")
    return value
