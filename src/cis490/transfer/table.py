"""transfer.parquet: each host's macro F1 by models that know the host and that do not, paired."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import reduce
from pathlib import Path
from typing import Any, Final

import numpy as np
import polars as pl

from cis490 import files
from cis490.channels import PHASES
from cis490.errors import FormatError
from cis490.evaluation.breakdowns import Cell, Replicated, Scored, replicate
from cis490.evaluation.tables import Entrant, Provenance, change_row, metric_rows, metrics_frame
from cis490.files import read_json, to_json
from cis490.logs import logger
from cis490.transfer import SIDES

SCOPE: Final = "transfer"
ALL_HOSTS: Final = "all"
CHANGE: Final = "macro_f1_change"

_WINDOW: Final = ["episode_id", "window"]


def tabulate(*, split_json: Path, predictions: Sequence[Path], replicates: int, out: Path) -> None:
    """Write transfer.parquet.

    Args:
        split_json: splits/<split>.json.
        predictions: as `predict.transfer` wrote them; files of one name are the two sides of one
            model.
        replicates: of the bootstrap over episodes; both sides, all hosts and models share them.
        out: Parquet in METRICS_SCHEMA, scope `transfer`, the side as part, a host (or `all`) as
            key: `macro_f1` of each side, and of cross_host `macro_f1_change`, it less that of
            in_host. Only windows that both sides of every model predicted count. Metadata:
            split_sha256, n_drawn and n_usable (episodes), n_scored, `sizes` (by model and side the
            episodes learned from, least and most) and `failed` (by model why a training failed).

    Raises:
        FormatError: predictions are of different episodes.
    """
    split = read_json(split_json)
    models = [
        _read([path for path in predictions if path.name == name])
        for name in sorted({path.name for path in predictions})
    ]
    if len({told["episodes_sha256"] for _, told in models}) > 1:
        raise FormatError(
            f"{predictions[0]} is not of the episodes of the others: run the workflow again"
        )
    shown = [(frame, told) for frame, told in models if len(frame)]
    entrants = [
        Entrant(told["architecture"], told["mode"], (int(told["seed"]),), (run,))
        for run, (_, told) in enumerate(shown)
    ]
    origin = Provenance(split["name"], split["sha256"], replicates)
    rows, n_scored = _rows([frame for frame, _ in shown], entrants, origin)
    told = models[0][1] if models else {"n_drawn": "0", "n_usable": "0"}
    metadata = {
        "split_sha256": split["sha256"],
        **{name: told[name] for name in ("n_drawn", "n_usable")},
        "n_scored": str(n_scored),
        "sizes": to_json({_name(told): _sizes(told) for _, told in shown}),
        "failed": to_json({_name(told): why for _, told in models if (why := _failed(told))}),
    }
    files.write_parquet(out, metrics_frame(rows), metadata)
    logger.info("%s: %d models, %d episodes scored", split["name"], len(shown), n_scored)


def _read(sides: Sequence[Path]) -> tuple[pl.DataFrame, dict[str, Any]]:
    """What a model predicted, and what its files tell: `folds` by side as that of each."""
    told: list[dict[str, Any]] = [dict(files.read_parquet_metadata(path)) for path in sides]
    folds = {each.pop("side"): json.loads(each.pop("folds")) for each in told}
    if sorted(folds) != sorted(SIDES) or any(each != told[0] for each in told):
        raise FormatError(
            f"{', '.join(map(str, sides))} are not the two sides of one model: run the workflow "
            "again"
        )
    return pl.concat(files.read_parquet(path) for path in sides), told[0] | folds


def _rows(
    frames: Sequence[pl.DataFrame], entrants: Sequence[Entrant], origin: Provenance
) -> tuple[list[dict[str, Any]], int]:
    """All rows, and of how many episodes."""
    sides = [side for side in SIDES if all(len(frame.filter(side=side)) for frame in frames)]
    if not frames or not sides:
        return [], 0
    wanted = [frame.filter(side=side).select(_WINDOW) for frame in frames for side in sides]
    both = reduce(lambda a, b: a.join(b, on=_WINDOW, how="semi"), wanted).sort(_WINDOW)
    rows: list[dict[str, Any]] = []
    before: Replicated | None = None
    for side in sides:
        scored = _scored([_aligned(frame, side, both) for frame in frames])
        counts, host = scored.counts(), np.array(scored.host)
        cells = [Cell.of((SCOPE, name), counts, host == name) for name in sorted(set(scored.host))]
        everything = np.ones(len(host), bool)
        cells.append(Cell.of((SCOPE, ALL_HOSTS), counts, everything))
        scores = replicate(scored, origin.replicates, cells)
        rows += metric_rows(side, scores, entrants, origin)
        if before is not None:
            rows += [
                change_row(CHANGE, side, f, scores, before, entrant, origin)
                for entrant in entrants
                for f in range(len(scores.rows))
            ]
        before = scores
    return rows, both["episode_id"].n_unique()


def _aligned(frame: pl.DataFrame, side: str, windows: pl.DataFrame) -> pl.DataFrame:
    of_side = frame.filter(side=side)
    return windows.join(of_side, on=_WINDOW, how="left", maintain_order="left")


def _scored(models: Sequence[pl.DataFrame]) -> Scored:
    """The windows of one side; every model's frame has the same ones in the same order."""
    windows = models[0]
    episodes = windows.unique("episode_id", maintain_order=True)
    place = {name: i for i, name in enumerate(episodes["episode_id"])}
    scores = [frame.select(f"p_{phase}" for phase in PHASES).to_numpy() for frame in models]
    truth = windows["phase"].cast(pl.Enum(PHASES)).to_physical().to_numpy().astype(np.int64)
    return Scored(
        profile=episodes["profile"].to_list(),
        host=episodes["host_id"].to_list(),
        unit=np.array([place[name] for name in windows["episode_id"]]),
        truth=truth,
        phase_share=np.ones(len(windows)),
        predicted=np.stack([score.argmax(1) for score in scores]),
    )


def _name(told: dict[str, Any]) -> str:
    return f"{told['architecture']}_{told['mode']}"


def _sizes(told: dict[str, Any]) -> dict[str, list[int]]:
    """By side the least and the most episodes that a training learned from."""
    n = {side: [each["n_episodes"]["train"] for each in told[side]] for side in SIDES}
    return {side: [min(of), max(of)] for side, of in n.items() if of}


def _failed(told: dict[str, Any]) -> list[str]:
    if not told["architecture"]:
        return ["every candidate failed, or there is no val part to choose by"]
    return [
        f"{side}, {each['fold']}: {each['reason']}"
        for side in SIDES
        for each in told[side]
        if each["status"] != "ok"
    ]
