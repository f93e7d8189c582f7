"""What config.yaml, and a search of settings, say of how an architecture is made and trained."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any, Final

from cis490.models.base import FitSettings

SETTINGS: Final = frozenset(field.name for field in fields(FitSettings))


def settings_of(
    config: Mapping[str, Any], architecture: str, tuned: Mapping[str, Any] | None = None
) -> tuple[FitSettings, dict[str, Any]]:
    """How to train an architecture, and the `preset` and `options` that it is created with.

    What `architectures.<architecture>` says comes first, then `tuned`: names of `FitSettings` there
    override `training`, other names are options of the architecture and override its preset.

    Args:
        config: resolved settings.
        tuned: what a search chose (`training.search`).
    """
    own = {**(tuned or {}), **config["architectures"].get(architecture, {})}
    general = {name: value for name, value in config["training"].items() if name in SETTINGS}
    settings = {name: value for name, value in own.items() if name in SETTINGS}
    options = {name: value for name, value in own.items() if name not in SETTINGS}
    made = {"preset": config["training"]["preset"], "options": options}
    return FitSettings(**(general | settings)), made
