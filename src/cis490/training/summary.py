"""What the seeds of a model, and the models of a split, come to on val."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from cis490.files import write_json
from cis490.seeds import UNSTABLE, deviation
from cis490.training.checkpoint import read_description

KIND: Final = "cis490.models"
VERSION: Final = 1


def aggregate(seeds: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What a model's seeds come to; those that failed are listed and never averaged.

    Args:
        seeds: an entry of model.json each: seed, status, reason, val_macro_f1.

    Returns:
        status and reason ("failed" if no seed succeeded); seeds, as given; best_seed, by val, the
        first of equals, and the first that succeeded where there is no val; val_macro_f1 with mean,
        sd (of a sample; None of fewer than two) and n_seeds; unstable, None where there is no sd.
    """
    good = [entry for entry in seeds if entry["status"] == "ok"]
    f1 = [entry["val_macro_f1"] for entry in good if entry["val_macro_f1"] is not None]
    sd = deviation(f1)
    best = max(good, key=lambda entry: entry["val_macro_f1"] or 0.0, default=None)
    return {
        "status": "ok" if good else "failed",
        "reason": None if good else seeds[0]["reason"],
        "seeds": list(seeds),
        "best_seed": best and best["seed"],
        "val_macro_f1": {
            "mean": statistics.fmean(f1) if f1 else None,
            "sd": sd,
            "n_seeds": len(f1),
        },
        "unstable": None if sd is None else sd > UNSTABLE,
    }


def best_by_val(models: Sequence[Mapping[str, Any]]) -> str | None:
    """The architecture that is best on val as the report shows it, of model.json each of one mode.

    A tie goes to the first name; None if all failed or there is no val.
    """
    mean = {model["architecture"]: model["val_macro_f1_filtered"] for model in models}
    good = [name for name in sorted(mean) if mean[name] is not None]
    return max(good, key=lambda name: mean[name], default=None)


def summarise(models: Sequence[Path], out: Path) -> None:
    """Write models/<split>/summary.json: every model's figures on val, with what they rest on.

    Args:
        models: the model.json of each model of a split.
        out: the file to write.

    Raises:
        FormatError: a model.json is damaged.
    """
    shown = (
        *("architecture", "mode", "status", "reason", "best_seed", "val_macro_f1", "unstable"),
        *("n_windows", "n_episodes", "fit_sha256", "data_sha256", "weights_sha256"),
    )
    told = (
        *("seed", "status", "reason", "epochs", "best_epoch", "val_macro_f1"),
        *("chosen", "collapses"),
    )
    found = []
    for path in sorted(models):
        content = read_description(path)
        seeds = [{key: seed.get(key) for key in told} for seed in content["seeds"]]
        found.append({key: content[key] for key in shown} | {"seeds": seeds})
    write_json(out, {"kind": KIND, "version": VERSION, "models": found})
