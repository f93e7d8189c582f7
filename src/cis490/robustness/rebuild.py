"""Draw some episodes of the part shown, and make their windows anew under each condition."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np
import polars as pl

from cis490 import files, splits
from cis490.episodes import telemetry
from cis490.episodes.telemetry import TABLES
from cis490.errors import FormatError
from cis490.evaluation.inputs import SHOWN
from cis490.logs import logger
from cis490.robustness.conditions import Condition
from cis490.robustness.perturb import Tables, perturb
from cis490.schema import Schema
from cis490.windows.build import Floats, joined, windows_of, write_windows
from cis490.windows.shards import TensorShard

KIND: Final = "cis490.perturbed"
VERSION: Final = "1"
EPISODES_SCHEMA: Final = pl.Schema(
    {
        "batch": pl.String,
        "episode_id": pl.String,
        "host_id": pl.String,
        "profile": pl.String,
        "part": pl.String,
        "changed": pl.Boolean,
    }
)


def draw(split: pl.DataFrame, most: int) -> tuple[str | None, pl.DataFrame]:
    """At most so many episodes of the part shown (`splits.draw`), the same ones each time.

    Args:
        split: splits/<split>.parquet.
        most: episodes.

    Returns:
        The part shown, test or else val; None without either, and then no episode. The rows of
        the episodes drawn, sorted by episode_id.
    """
    parts = set(split["part"].unique())
    part = next((part for part in SHOWN if part in parts), None)
    return part, splits.draw(split.filter(part=part or ""), most).sort("episode_id")


def rebuild(
    *,
    split_file: Path,
    schema_file: Path,
    telemetry_dirs: Sequence[Path],
    conditions: Sequence[Condition],
    most: int,
    features: Sequence[Path],
    tensors: Sequence[Path],
    episodes: Path,
) -> None:
    """Write features and tensors under each condition, by the code that makes the real ones.

    Args:
        split_file, schema_file: splits/<split>.parquet and schema.json.
        telemetry_dirs: telemetry/<batch> of at least the part shown.
        conditions: what is done.
        most: episodes that are drawn.
        features, tensors: a file to write each condition, in the same order.
        episodes: Parquet to write: a row a condition and episode with its `part`, `host_id`,
            `profile`, the condition as `batch`, so that `training.data.load_split` reads it as a
            split, and `changed`: whether any of the 46 channels is other than unperturbed. Its
            metadata has `part`, `n_drawn` and `n_shown` (episodes).

    Raises:
        FormatError: a file is damaged, or an episode drawn is in no telemetry.
    """
    schema = Schema.from_dict(files.read_json(schema_file))
    columns = ["episode_id", "host_id", "profile", "part", "batch"]
    split = files.read_parquet(split_file, columns=columns)
    part, drawn = draw(split, most)
    pieces = [
        _of(drawn, frames)
        for folder in telemetry_dirs
        if Path(folder).name in set(drawn["batch"])
        for frames in telemetry.read_pieces(folder)
    ]
    found = {name for piece in pieces for name in piece["episodes"]["episode_id"]}
    if lacking := [name for name in drawn["episode_id"] if name not in found]:
        raise FormatError(f"no telemetry of episode {lacking[0]}: run the workflow again")
    table = [pl.DataFrame(schema=EPISODES_SCHEMA)]
    unperturbed: dict[str, str] = {}
    for condition, *paths in zip(conditions, features, tensors, strict=True):
        made = [windows_of(perturb(piece, condition), schema) for piece in pieces]
        windows = joined(made or [windows_of(telemetry.collect([]), schema)])
        write_windows(windows, schema, features=paths[0], tensors=paths[1])
        digests = _digests(windows)
        unperturbed = unperturbed or digests
        changed = [digests[name] != unperturbed[name] for name in drawn["episode_id"]]
        of_condition = drawn.with_columns(
            pl.Series("changed", changed, pl.Boolean), batch=pl.lit(condition.name)
        )
        table.append(of_condition.select(list(EPISODES_SCHEMA)))
        logger.info("%s: %d of %d episodes changed", condition.name, sum(changed), len(changed))
    metadata = {
        "kind": KIND,
        "version": VERSION,
        "part": str(part),
        "n_drawn": str(len(drawn)),
        "n_shown": str(int((split["part"] == part).sum()) if part else 0),
    }
    files.write_parquet(episodes, pl.concat(table), metadata)


def _of(drawn: pl.DataFrame, frames: Tables) -> Tables:
    """The telemetry of those episodes that were drawn, with positions of their own."""
    episodes = frames["episodes"]
    wanted = episodes["episode_id"].is_in(drawn["episode_id"].implode())
    place = (wanted.cum_sum() - 1).cast(pl.UInt32).to_numpy()
    mask = wanted.to_numpy()
    some = {"episodes": episodes.filter(wanted)}
    for table in TABLES[1:]:
        of = frames[table]["episode"].to_numpy()
        kept = frames[table].filter(pl.Series(mask[of]))
        some[table] = kept.with_columns(episode=pl.Series(place[of[mask[of]]], dtype=pl.UInt32))
    return some


def _digests(windows: tuple[pl.DataFrame, Floats, TensorShard]) -> dict[str, str]:
    """A hash of all that models may see of each episode: features, and the grid with its codes."""
    _, features, shard = windows
    first = np.append(0, np.cumsum(shard.n_windows))
    found = {}
    for i, name in enumerate(shard.episode_id):
        rows, steps = slice(*first[i : i + 2]), slice(*shard.offset[i : i + 2])
        seen = (features[rows], shard.codes[steps], shard.scale[i], shard.base[i])
        found[name] = hashlib.sha256(b"".join(a.tobytes() for a in seen)).hexdigest()
    return found
