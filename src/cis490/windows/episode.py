"""One episode, the same windows: for a live sensor, without torch and without a store."""

from __future__ import annotations

from pathlib import Path

import polars as pl

from cis490.episodes.tarball import Limits
from cis490.episodes.telemetry import collect
from cis490.episodes.validate import examine_file
from cis490.errors import StoreError
from cis490.schema import Schema
from cis490.windows.build import Floats, windows_of
from cis490.windows.shards import TensorShard


def episode_windows(
    path: Path, schema: Schema, limits: Limits | None = None
) -> tuple[pl.DataFrame, Floats, TensorShard]:
    """Features and tensor of one episode, equal to the bit to what its batch gives.

    Args:
        path: an episode's file, `….tar.zst`.
        schema: grid, windows and statistics; a model's must be the same.
        limits: how large the episode may be; None: the defaults.

    Returns:
        A row a window (`windows.build.HEADER_SCHEMA`); the features, float32
        (n_windows, 276) in the order of `schema.feature_names("oracle")`, NaN where nothing was
        measured; and the grid as a shard of one episode.

    Raises:
        StoreError: there is no such file, or the episode is rejected or errored; it says why.
    """
    verdict, episode = examine_file(Path(path), limits or Limits())
    if episode is None:
        reasons = "; ".join(f"{fault.code}: {fault.text}" for fault in verdict.faults)
        raise StoreError(f"{path} is {verdict.status}: {reasons}")
    return windows_of(collect([episode]), schema)
