"""robustness.parquet: macro F1 under each condition, and its paired change, with intervals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import polars as pl

from cis490 import files
from cis490.errors import FormatError
from cis490.evaluation.breakdowns import Cell, Replicated, Scored, replicate
from cis490.evaluation.families import NOT_MEASURABLE
from cis490.evaluation.tables import Entrant, Provenance, change_row, metric_rows, metrics_frame
from cis490.files import read_json, to_json
from cis490.logs import logger
from cis490.robustness.conditions import UNPERTURBED

SCOPE: Final = "robustness"
CHANGE: Final = "macro_f1_change"
MOVED: Final = "inputs_moved"

_WINDOW: Final = ["episode_id", "window"]
Rows = list[dict[str, Any]]


@dataclass(frozen=True)
class Repredicted:
    """What one model says under every condition.

    Attributes:
        entrant: the model; its runs are its seeds' positions among all runs of all models.
        predicted: condition -> (len(seeds), n_windows) index into PHASES.
        moved: condition -> (n_windows,) bool, `repredict.REPREDICTED_SCHEMA`.
    """

    entrant: Entrant
    predicted: dict[str, np.ndarray]
    moved: dict[str, np.ndarray]


def tabulate(
    *,
    split_json: Path,
    episodes: Path,
    repredicted: Sequence[Path],
    replicates: int,
    out: Path,
) -> None:
    """Write robustness.parquet.

    Args:
        split_json: splits/<split>.json.
        episodes: as `rebuild.rebuild` wrote it.
        repredicted: as `repredict.repredict` wrote them, one a model.
        replicates: of the bootstrap; all models and conditions share them.
        out: Parquet in METRICS_SCHEMA, scope `robustness`, a condition as key: `macro_f1` over all
            seeds and of each; over all seeds `macro_f1_change`, it less that of the unperturbed
            windows, and `inputs_moved`, the share of windows whose input the condition moved, a
            count without interval. A condition that changed no episode is not measurable: its
            macro F1 and change are null. Metadata: split_sha256, part, n_drawn and n_shown
            episodes, and `not_measurable`, condition -> why.

    Raises:
        FormatError: predictions are not of the episodes drawn.
    """
    split, told = read_json(split_json), files.read_parquet_metadata(episodes)
    drawn = files.read_parquet(episodes)
    changed = drawn.group_by("batch", maintain_order=True).agg(pl.col("changed").any())
    untouched = [
        name for name in changed.filter(~pl.col("changed"))["batch"] if name != UNPERTURBED
    ]
    models, windows = _read(sorted(repredicted), drawn.filter(batch=UNPERTURBED))
    origin = Provenance(split["name"], split["sha256"], replicates)
    rows = _rows(told["part"], models, windows, untouched, origin) if models else []
    n = f"{told['n_drawn']}/{told['n_shown']}"
    for row in rows:
        row["signature"] += f"|drawn={n}"
    table = metrics_frame(rows)
    reason = f"it changes nothing in any of the {told['n_drawn']} episodes"
    metadata = {
        "split_sha256": split["sha256"],
        **{name: told[name] for name in ("part", "n_drawn", "n_shown")},
        "not_measurable": to_json(dict.fromkeys(untouched, reason)),
    }
    files.write_parquet(out, table, metadata)
    logger.info("%s: %d models, %s episodes drawn", split["name"], len(models), n)


def _read(paths: Sequence[Path], drawn: pl.DataFrame) -> tuple[list[Repredicted], pl.DataFrame]:
    """Models that can predict, sorted by name, and the windows with their truth and profile."""
    models: list[Repredicted] = []
    windows = pl.DataFrame()
    n_runs = 0
    for path in paths:
        frame, told = files.read_parquet(path), files.read_parquet_metadata(path)
        if not len(frame):
            continue
        seeds = tuple(frame["seed"].unique().sort().to_list())
        first = frame.filter(condition=UNPERTURBED, seed=seeds[0]).select(*_WINDOW, "phase")
        if models and not first.equals(windows):
            raise FormatError(f"{path} has other windows than {paths[0]}: run the workflow again")
        windows = first
        runs = tuple(range(n_runs, n_runs + len(seeds)))
        n_runs += len(seeds)
        entrant = Entrant(told["architecture"], told["mode"], seeds, runs, told["weights_sha256"])
        models.append(_repredicted(entrant, frame, len(windows)))
    if not models:
        return [], windows
    known = windows.join(drawn, on="episode_id", how="left", maintain_order="left")
    if known["profile"].null_count():
        raise FormatError(f"{paths[0]} is not of the episodes drawn: run the workflow again")
    return models, known


def _repredicted(entrant: Entrant, frame: pl.DataFrame, n_windows: int) -> Repredicted:
    predicted, moved = {}, {}
    for (name,), of_condition in frame.partition_by(
        "condition", as_dict=True, maintain_order=True
    ).items():
        shape = (len(entrant.seeds), n_windows)
        phase = of_condition["predicted"].to_physical().to_numpy().astype(np.int64)
        predicted[name] = phase.reshape(shape)
        moved[name] = of_condition["moved"].to_numpy().reshape(shape)[0]
    return Repredicted(entrant, predicted, moved)


def _scored(windows: pl.DataFrame, models: Sequence[Repredicted], condition: str) -> Scored:
    episodes = windows.unique("episode_id", maintain_order=True)
    place = {name: i for i, name in enumerate(episodes["episode_id"])}
    return Scored(
        profile=episodes["profile"].to_list(),
        host=episodes["host_id"].to_list(),
        unit=np.array([place[name] for name in windows["episode_id"]]),
        truth=windows["phase"].to_physical().to_numpy().astype(np.int64),
        phase_share=np.ones(len(windows)),
        predicted=np.concatenate([model.predicted[condition] for model in models]),
    )


def _rows(
    part: str,
    models: Sequence[Repredicted],
    windows: pl.DataFrame,
    untouched: Sequence[str],
    origin: Provenance,
) -> Rows:
    rows: Rows = []
    before: Replicated | None = None
    for name in models[0].predicted:
        scored = _scored(windows, models, name)
        everything = np.ones(len(scored.profile), bool)
        cell = Cell.of((SCOPE, name), scored.counts(), everything)
        scores = replicate(scored, origin.replicates, [cell])
        before = before or scores
        found = metric_rows(part, scores, [model.entrant for model in models], origin)
        for model in models if name != UNPERTURBED else ():
            change = change_row(CHANGE, part, 0, scores, before, model.entrant, origin)
            found += [change, _moved(change, model, name, origin)]
        if name in untouched:
            found = [_unmeasured(row, origin, models) for row in found if row["seed"] is None]
        rows += found
    return rows


def _moved(
    row: dict[str, Any], model: Repredicted, condition: str, origin: Provenance
) -> dict[str, Any]:
    """The share of windows whose input moved: a count of what was done, so without an interval."""
    n = row["n_windows"], row["n_episodes"]
    share = float(model.moved[condition].mean())
    signature = origin.signature(MOVED, "none", model.entrant, n)
    nothing = {"low": None, "high": None, "n_valid_replicates": 0}
    return row | nothing | {"metric": MOVED, "estimate": share, "signature": signature}


def _unmeasured(
    row: dict[str, Any], origin: Provenance, models: Sequence[Repredicted]
) -> dict[str, Any]:
    """A row of a condition that changed nothing: no figure, but for how many inputs moved."""
    if row["metric"] == MOVED:
        return row
    (entrant,) = (
        model.entrant
        for model in models
        if (model.entrant.model, model.entrant.mode) == (row["model"], row["mode"])
    )
    n = row["n_windows"], row["n_episodes"]
    signature = origin.signature(row["metric"], NOT_MEASURABLE, entrant, n)
    nothing = {"estimate": None, "low": None, "high": None, "n_valid_replicates": 0}
    return row | nothing | {"signature": signature}
