"""What config.yaml, and a search of settings, say of how an architecture is made and trained."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, fields
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


def as_told(settings: FitSettings, made: dict[str, Any] | None = None) -> dict[str, Any]:
    """What decides a training, as the files it leaves tell it; the device is not of that."""
    told = {name: value for name, value in asdict(settings).items() if name != "device"}
    return told | (made or {})


def since_trained(
    metadata: Mapping[str, Any],
    model: Mapping[str, Any],
    config: Mapping[str, Any],
    fit_sha256: str,
) -> list[str]:
    """What has another value now than when a model was trained: `epochs 60, now 90`.

    Args:
        metadata, model: its training_metadata.json and model.json.
        config: resolved settings, as they are now.
        fit_sha256: of the file of training and val episodes, as it is now.
    """
    tuned = model["tuning"]["parameters"] if config["tune"] and model["tuning"] else None
    now = as_told(*settings_of(config, model["architecture"], tuned))
    now["seeds"] = list(config["seeds"])
    then = {**metadata["settings"], "seeds": metadata["seeds"]}
    changed = [
        f"{name} {then.get(name)}, now {value}"
        for name, value in now.items()
        if then.get(name) != value
    ]
    return changed + ["the episodes to train on"] * (metadata["split"] != fit_sha256)
