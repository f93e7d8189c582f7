"""Decode one batch: the only stage that opens tarballs."""

from __future__ import annotations

import gc
import json
from collections.abc import Iterator, Mapping
from typing import Any

import polars as pl

from cis490 import files
from cis490.episodes import telemetry
from cis490.episodes.tarball import Limits
from cis490.episodes.telemetry import Episode
from cis490.episodes.validate import SIMULATED, VERDICT_SCHEMA, Entry, examine
from cis490.files import StrPath
from cis490.logs import logger


def ingest(
    manifest: Mapping[str, Any],
    *,
    store: StrPath,
    limits: Limits,
    verdicts: StrPath,
    folder: StrPath,
) -> None:
    """Judge and decode the episodes of one batch.

    Args:
        manifest: a batch's manifest, as `plan` wrote it.
        store: the store's folder, only read.
        limits: how large an episode may be.
        verdicts: Parquet file to write, a row an episode in the columns of validation.parquet.
        folder: where to write the telemetry of the usable episodes, a file a table.
    """
    rows: list[dict[str, Any]] = []
    recorders: list[Any] = []

    def usable() -> Iterator[Episode]:
        for content in manifest["episodes"]:
            verdict, episode = examine(Entry.from_manifest(content), store, limits)
            rows.append(verdict.row(manifest["batch"]))
            for fault in verdict.faults:
                what = f"{verdict.status} {verdict.episode_id}"
                logger.info("%s: %s: %s", what, fault.code, fault.text)
            if episode is not None:
                recorders.append(json.loads(episode.header["meta"]).get("recorder"))
                yield episode

    gc.disable()  # thousands of small tuples, and not one cycle among them
    try:
        telemetry.write(folder, usable())
    finally:
        gc.enable()
    metadata = {
        "kind": "cis490.verdicts",
        "version": "1",
        "n_simulated": str(recorders.count(SIMULATED)),
    }
    files.write_parquet(verdicts, pl.DataFrame(rows, VERDICT_SCHEMA), metadata)
    logger.info("%s: %d of %d episodes usable", manifest["batch"], len(recorders), len(rows))
