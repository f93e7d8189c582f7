"""How the numbers were made, and what they can be traced to."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from cis490.report.blocks import Block, Table
from cis490.report.results import Results
from cis490.report.text import NOTHING, listing

TERMS: Final = (
    "**Macro F1:** the mean of F1 over the phases that the whole truth of the part has.",
    "**Interval:** 95% percentile interval of a bootstrap that draws whole episodes, "
    "stratified by profile, the same for all detectors, and, where there are several, seeds "
    "within each detector. A figure of exactly 0 or 1 has a Clopper-Pearson interval with "
    "episodes as trials (of a macro figure, the mean of its phases' ends).",
    "**Val** was seen by early stopping and chose the best, so its figures flatter.",
    "**Best** is by macro F1 on val, never on test.",
    "**Clears the clock:** the paired difference to window index alone has its whole 95% "
    "interval above 0.",
    "**Replicates** in a table counts those in which no phase had to be skipped because the "
    "drawn episodes lack it.",
)


def provenance(found: Sequence[Results]) -> list[Block]:
    """What each split's figures rest on."""
    rows = [
        [results.name, str(results.split["sha256"])[:12], _seeds(results), _signature(results)]
        for results in found
    ]
    return [
        Table(["split", "hash", "seeds", "signature of the headline"], rows, align="llll"),
        "Every number here stands in metrics.parquet, pairwise.parquet, detection.parquet, "
        "alarms.parquet, calibration.parquet, reliability.parquet, probes.parquet, "
        "robustness.parquet, transfer.parquet, summary.json and the eval.json files of its split, "
        "in the split's json, or in validation.parquet.",
    ]


def _seeds(results: Results) -> str:
    return listing([str(seed) for seed in results.all_seeds])


def _signature(results: Results) -> str:
    shown = [results.leader] if results.leader else []
    for detector in [*shown, *results.everyone]:
        figure = results.figure(detector, "macro_f1")
        if figure:
            return f"`{figure['signature'].replace('|', ' ')}`"
    return NOTHING
