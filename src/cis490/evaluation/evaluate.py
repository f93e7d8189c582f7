"""Evaluate all detectors of one split on the same windows and the same bootstrap replicates."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import polars as pl

from cis490.channels import MODES, PHASES
from cis490.errors import Cis490Error
from cis490.evaluation.baselines import MODE, TRAINED, predict_baselines
from cis490.evaluation.breakdowns import ALL, COMPARED, Scored, cells, in_groups, replicate
from cis490.evaluation.coverage import covering
from cis490.evaluation.inputs import (
    SHOWN,
    Detector,
    read_detector,
    read_episodes,
    read_windows,
    silent_sources,
)
from cis490.evaluation.metrics import K, confusion
from cis490.evaluation.tables import (
    SILENT,
    Entrant,
    Provenance,
    best_rows,
    coverage_rows,
    metric_rows,
    metrics_frame,
    pairwise_frame,
    pairwise_rows,
)
from cis490.files import read_json, to_compact_json, to_json, write_json, write_parquet
from cis490.logs import logger

KIND: Final = "cis490.evaluation"
VERSION: Final = 1


def evaluate(
    *,
    split_file: Path,
    split_json: Path,
    features: Sequence[Path],
    predictions: Sequence[Path],
    latencies: Sequence[Path],
    models: Sequence[Path],
    metrics: Path,
    pairwise: Path,
    evals: Sequence[Path],
    replicates: int,
) -> None:
    """Write metrics.parquet, pairwise.parquet and one eval.json a model.

    Args:
        split_file, split_json: splits/<split>.parquet and .json.
        features: features/<batch>.parquet of at least the split's train, val and test episodes.
        predictions, latencies, models, evals: one each a model, in the same order: its
            predictions, their timing, its model.json, and the eval.json to write.
        metrics, pairwise: the tables to write.
        replicates: of the bootstrap.

    Raises:
        Cis490Error: the lists differ in length, or predictions do not fit the split's windows.
    """
    if not len(predictions) == len(latencies) == len(models) == len(evals):
        raise Cis490Error("evaluate: predictions, latencies, models and evals must be as many")
    split = read_json(split_json)
    windows = read_windows(split_file, features)
    scored = windows.filter(pl.col("part") != "train")
    detectors = [
        read_detector(*files, scored) for files in zip(models, predictions, latencies, strict=True)
    ]
    entrants, predicted = _entrants(detectors, windows.filter(part="train"), scored)
    origin = Provenance(split["name"], split["sha256"], replicates)
    part_shown = next((part for part in SHOWN if part in set(scored["part"])), None)

    known = read_episodes(split_file)

    rows: list[dict[str, Any]] = []
    pairs: list[dict[str, Any]] = []
    parts: dict[str, Scored] = {}
    for part in SHOWN:
        chosen = (scored["part"] == part).to_numpy()
        if not chosen.any():
            continue
        parts[part] = _scored(scored.filter(chosen), known, predicted[:, chosen])
        figures, of_part = score(part, parts[part], entrants, origin, paired=part == part_shown)
        rows += figures
        pairs += of_part
    if headline := _headline(entrants, rows):
        for part, whole in parts.items():
            covered = covering(whole.confusion(headline.runs), whole.profile)
            rows += coverage_rows(part, headline, covered, rows, origin)
    table = metrics_frame(rows)
    silent = silent_sources(split_file, features)
    write_parquet(metrics, table, {SILENT: to_compact_json(silent)})
    shown = scored.filter(part=part_shown or "")
    rests_on = {
        "split_sha256": split["sha256"],
        "part": str(part_shown),
        "n_windows": str(len(shown)),
        "n_episodes": str(shown["episode_id"].n_unique()),
        "checkpoints": to_json({entrant.name: entrant.checkpoint for entrant in entrants}),
    }
    write_parquet(pairwise, pairwise_frame(pairs), rests_on)
    counted = {part: _by_phase(windows.filter(part=part)["phase"]) for part in ("train", *SHOWN)}
    told = {
        "phases": {part: list(by_phase) for part, by_phase in counted.items()},
        "n_windows_by_phase": counted,
    }
    for detector, path in zip(detectors, evals, strict=True):
        write_json(path, _summary(detector, split, table, scored, part_shown) | told)


def score(
    part: str, scored: Scored, entrants: Sequence[Entrant], origin: Provenance, *, paired: bool
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Every figure of a part, and if `paired` every pair of entrants.

    Returns:
        Rows of metrics.parquet and of pairwise.parquet.
    """
    rows: list[dict[str, Any]] = []
    pairs: list[dict[str, Any]] = []
    n_figures = 0
    for group in in_groups(cells(scored), origin.replicates):
        scores = replicate(scored, origin.replicates, group)
        rows += metric_rows(part, scores, entrants, origin)
        n_figures += len(scores.rows)
        if part == "val":  # which chooses
            rivals = [each for each in entrants if each.mode != MODE and each.model not in TRAINED]
            rows += best_rows(part, scores, rivals, origin)
        if paired and scores.find(*ALL, COMPARED) is not None:
            pairs = pairwise_rows(scores, entrants, origin)
    logger.info("%s: %d figures of %d runs", part, n_figures, len(scored.predicted))
    return rows, pairs


def _by_phase(phase: pl.Series) -> dict[str, int]:
    """Windows of each phase that occurs, in the order of PHASES."""
    counts = np.bincount(phase.to_numpy(), minlength=K)
    return {name: int(n) for name, n in zip(PHASES, counts, strict=True) if n}


def _headline(entrants: Sequence[Entrant], rows: Sequence[dict[str, Any]]) -> Entrant | None:
    """The detector whose figure the report leads with: the best by val of the first mode."""
    on_val = {
        (row["model"], row["mode"]): row["estimate"]
        for row in rows
        if row["part"] == "val" and row["seed"] is None and row["metric"] == "macro_f1"
        if (row["scope"], row["key"]) == ALL and row["mode"] != MODE
    }
    for mode in MODES:
        asked = [each for each in entrants if each.mode == mode and each.model not in TRAINED]
        known = [entrant for entrant in asked if (entrant.model, mode) in on_val]
        if known:
            return min(known, key=lambda entrant: (-on_val[entrant.model, mode], entrant.model))
    return None


def _entrants(
    detectors: Sequence[Detector], train: pl.DataFrame, scored: pl.DataFrame
) -> tuple[list[Entrant], np.ndarray]:
    """Models that can predict, then baselines, sorted by name; and their runs, (R, n_windows)."""
    runs: list[np.ndarray] = []
    entrants = []
    named = [
        ((d.architecture, d.mode), d.seeds, d.predicted, d.checkpoint) for d in detectors if d.seeds
    ]
    company = predict_baselines(
        train["phase"].to_numpy(), train["window"].to_numpy(), scored["window"].to_numpy()
    )
    named += [((name, MODE), (), said[None], "-") for name, said in company.items()]
    for (model, mode), seeds, predicted, checkpoint in sorted(named, key=lambda item: item[0]):
        own = tuple(range(len(runs), len(runs) + len(predicted)))
        entrants.append(Entrant(model, mode, seeds, own, checkpoint))
        runs += list(predicted)
    return entrants, np.stack(runs)


def _scored(windows: pl.DataFrame, known: pl.DataFrame, predicted: np.ndarray) -> Scored:
    episodes = windows.unique("episode_id", maintain_order=True)
    episodes = episodes.join(known, on="episode_id", how="left", maintain_order="left")
    place = {name: i for i, name in enumerate(episodes["episode_id"])}
    return Scored(
        profile=episodes["profile"].to_list(),
        host=episodes["host_id"].to_list(),
        unit=np.array([place[name] for name in windows["episode_id"]]),
        truth=windows["phase"].to_numpy(),
        phase_share=windows["phase_share"].to_numpy(),
        predicted=predicted,
        sample=episodes["sample_name"].to_list(),
        status=episodes["status"].to_list(),
        background=episodes["background"].to_list(),
    )


def _summary(
    detector: Detector,
    split: dict[str, Any],
    table: pl.DataFrame,
    scored: pl.DataFrame,
    part: str | None,
) -> dict[str, Any]:
    """The content of a model's eval.json, on the part shown; nulls where nothing was measured."""
    mine = table.filter(
        pl.col("seed").is_null(),
        model=detector.architecture,
        mode=detector.mode,
        part=part or "",
    )
    overall = mine.filter(scope=ALL[0], key=ALL[1], metric="macro_f1").to_dicts()
    shown = scored.filter(part=part or "")
    return {
        "kind": KIND,
        "version": VERSION,
        "split": split["name"],
        "architecture": detector.architecture,
        "mode": detector.mode,
        "status": detector.status,
        "reason": detector.reason,
        "failed_seeds": detector.failed_seeds,
        "part": part,
        "n": {
            "windows": len(shown),
            "episodes": shown["episode_id"].n_unique(),
            "hosts": shown["host_id"].n_unique(),
            "seeds": list(detector.seeds),
        },
        "macro_f1": _ends(overall[0]) if overall else None,
        "per_phase": _by_key(mine, "phase") if overall else None,
        "per_profile": _by_key(mine, "profile") if overall else None,
        "per_host": _by_key(mine, "host") if overall else None,
        "confusion": _confusion(detector, scored, part) if overall else None,
        "untested_profiles": split["untested_profiles"],
        "latency": detector.latency,
        "size": detector.size,
        "tuning": detector.tuning,
        "signature": overall[0]["signature"] if overall else None,
    }


def _ends(row: dict[str, Any]) -> dict[str, Any]:
    return {key: row[key] for key in ("estimate", "low", "high", "n_valid_replicates")}


def _by_key(table: pl.DataFrame, scope: str) -> dict[str, dict[str, Any]]:
    by_key: dict[str, dict[str, Any]] = {}
    for row in table.filter(scope=scope).to_dicts():
        n = {"n_windows": row["n_windows"], "n_episodes": row["n_episodes"]}
        by_key.setdefault(row["key"], n)[row["metric"]] = _ends(row)
    return by_key


def _confusion(detector: Detector, scored: pl.DataFrame, part: str | None) -> dict[str, Any]:
    """Counts summed over seeds, so that they stay whole; truth in rows, prediction in columns."""
    chosen = (scored["part"] == part).to_numpy()
    truth = scored["phase"].to_numpy()[chosen]
    one = np.zeros(len(truth), dtype=np.int64)
    counts = np.zeros((K, K), dtype=np.int64)
    for run in detector.predicted:
        counts += confusion(truth, run[chosen], one, 1)[0]
    return {"labels": PHASES, "counts": counts, "n_seeds": len(detector.seeds)}
