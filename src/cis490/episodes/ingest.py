"""Decode one batch: the only stage that opens tarballs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import polars as pl

from cis490 import files
from cis490.episodes import telemetry
from cis490.episodes.tarball import Limits
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
    rows, episodes = [], []
    for content in manifest["episodes"]:
        verdict, episode = examine(Entry.from_manifest(content), store, limits)
        rows.append(verdict.row(manifest["batch"]))
        if episode is not None:
            episodes.append(episode)
        for fault in verdict.faults:
            logger.info("%s %s: %s: %s", verdict.status, verdict.episode_id, fault.code, fault.text)
    telemetry.write(Path(folder), telemetry.collect(episodes))
    recorders = [json.loads(episode.header["meta"]).get("recorder") for episode in episodes]
    metadata = {
        "kind": "cis490.verdicts",
        "version": "1",
        "n_simulated": str(recorders.count(SIMULATED)),
    }
    files.write_parquet(verdicts, pl.DataFrame(rows, VERDICT_SCHEMA), metadata)
    logger.info("%s: %d of %d episodes usable", manifest["batch"], len(episodes), len(rows))
