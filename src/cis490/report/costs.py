"""What each detector costs: time a window, bytes on disk, memory of its training.

These were measured on the machine of the run, so they differ from run to run, as nothing else in
the report does: they stand on the page and not in its text twin.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cis490.report.blocks import Block, Table
from cis490.report.results import Detector, Results
from cis490.report.text import NOTHING

Metadata = Mapping[Detector, Mapping[str, Any]]


def costs(results: Results, metadata: Metadata) -> list[Block]:
    """A row a trained model.

    Args:
        results: of the split.
        metadata: training_metadata.json of each model.
    """
    rows = []
    for detector in [*results.asked, *(d for d in results.baselines if d in metadata)]:
        summary = results.summary(detector)
        latency, size = summary["latency"], summary["size"]
        memory = metadata.get(detector, {}).get("peak_memory", {})
        rows.append(
            [
                *detector,
                *(_number(latency.get(name), ".2f") for name in ("p50_ms", "p95_ms")),
                *(_number(size.get(name), ",") for name in ("n_parameters", "bytes_on_disk")),
                _mebibytes(memory.get("process_bytes")),
                _mebibytes(memory.get("gpu_bytes")),
            ]
        )
    header = [
        *("detector", "mode", "p50, ms", "p95, ms", "parameters", "bytes on disk"),
        *("peak memory, MiB", "on the card, MiB"),
    ]
    return [
        "Time from a window's input to its probabilities: 200 single windows, batch 1, one thread "
        "of the CPU, the seed that is best by val. Bytes on disk: weights and model.json of all "
        "seeds. Peak memory: of the training process, all seeds and data included. Measured on the "
        "machine of the run, without an interval.",
        Table(header, rows, align="ll"),
    ]


def _number(value: float | None, how: str) -> str:
    return NOTHING if value is None else format(value, how)


def _mebibytes(n: int | None) -> str:
    return NOTHING if n is None else f"{n / 2**20:,.0f}"
