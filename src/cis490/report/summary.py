"""production_summary.json: what the report says, for machines.

Its shape is schemas/production_summary.schema.yaml. Latency and memory, which differ from run to
run, are no part of it: eval.json and training_metadata.json have them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Final

import polars as pl

from cis490 import __version__
from cis490.episodes.summary import STATUSES, downgraded_hosts
from cis490.evaluation.baselines import MODE
from cis490.report.headline import answer, caveats, question, simulated
from cis490.report.results import Detector, Results

KIND: Final = "cis490.production_summary"
VERSION: Final = 1
# What stands for a delay that lies among the infections missed; JSON has no infinity.
MISSED: Final = "missed"


def summary(found: Sequence[Results], verdicts: pl.DataFrame) -> dict[str, Any]:
    """The content of production_summary.json.

    Args:
        found: of every split, the primary one first.
        verdicts: the rows of validation.parquet.
    """
    status = verdicts["status"]
    return {
        "kind": KIND,
        "version": VERSION,
        "cis490": __version__,
        "simulated_episodes": found[0].n_simulated,
        "episodes": {name: int((status == name).sum()) for name in STATUSES},
        "downgraded_hosts": downgraded_hosts(verdicts),
        "splits": [_split(results) for results in found],
    }


def _split(results: Results) -> dict[str, Any]:
    split, best = results.split, results.leader
    return {
        "name": results.name,
        "recipe": split["recipe"],
        "sha256": split["sha256"],
        "train_hosts": split["train_hosts"],
        "test_hosts": split["test_hosts"],
        "part": results.part,
        "question": question(results),
        "answer": (simulated if results.n_simulated else answer)(results).replace("**", ""),
        "caveats": [text.replace("**", "") for text in caveats(results)],
        "untested_profiles": split["untested_profiles"],
        "best": best and {"architecture": best.model, "mode": best.mode},
        "detectors": [_detector(results, each) for each in _everyone(results)],
    }


def _everyone(results: Results) -> list[Detector]:
    """All that was asked for, then baselines."""
    trained = [Detector(each["architecture"], each["mode"]) for each in results.evals]
    others = [each for each in results.baselines if each.mode == MODE]
    return [*sorted(trained), *sorted(others)]


def _detector(results: Results, detector: Detector) -> dict[str, Any]:
    named = {
        "architecture": detector.model,
        "mode": detector.mode,
        "baseline": detector not in results.asked,
    }
    figures = {"figures": _figures(results, detector)}
    if detector.mode == MODE:
        return named | figures
    own, training = results.summary(detector), results.trained(detector)
    choice = results.threshold(detector)
    return (
        named
        | {
            "status": own["status"],
            "reason": own["reason"],
            "seeds": own["n"]["seeds"],
            "best_seed": training["best_seed"],
            "weights_sha256": training.get("weights_sha256"),
            "bytes_on_disk": own["size"].get("bytes_on_disk"),
            "n_parameters": own["size"].get("n_parameters"),
            "signature": own["signature"],
            "threshold": choice.get("rule"),
            "threshold_reason": choice.get("reason"),
        }
        | figures
    )


def _figures(results: Results, detector: Detector) -> dict[str, Any]:
    """Every figure over all seeds: part -> scope -> key -> metric."""
    tree: dict[str, Any] = {}
    rows = results.metrics.filter(
        pl.col("seed").is_null(), model=detector.model, mode=detector.mode
    )
    for row in rows.iter_rows(named=True):
        place = tree
        for name in ("part", "scope", "key"):
            place = place.setdefault(row[name], {})
        ends = {name: _number(row[name]) for name in ("estimate", "low", "high")}
        n = {name: row[name] for name in ("n_windows", "n_episodes")}
        place[row["metric"]] = ends | n
    return tree


def _number(value: float | None) -> float | str | None:
    return MISSED if value is not None and math.isinf(value) else value
