"""What is in one episode, for people: as text, and as a picture."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from cis490.channels import CHANNELS, PHASES
from cis490.episodes.telemetry import Episode, Rows, collect
from cis490.episodes.validate import Verdict
from cis490.errors import StoreError
from cis490.markdown import table
from cis490.schema import Schema
from cis490.windows.build import windows_of
from cis490.windows.codes import to_raw
from cis490.windows.shards import TensorShard

_PALE = ("#f2f2f2", "#fdf0cd", "#fbdcbd", "#f7cdc6", "#d9e4f3")
_PHASE_COLOURS = dict(zip(PHASES, _PALE, strict=True))
_SOURCE_COLOURS = {"proc": "#1b6ca8", "qmp": "#3b7d3b", "guest": "#8a4f9e", "netflow": "#b0562f"}


def describe(path: Path, verdict: Verdict, episode: Episode | None, schema: Schema) -> str:
    """What is in an episode: verdict, phases, sources and channels, as Markdown tables."""
    title = f"# {verdict.host_id}/{verdict.episode_id}\n"
    parts = [title, f"{path}\n", f"Verdict: {verdict.status}"]
    parts += [f"- {fault.code}: {fault.text}" for fault in verdict.faults]
    if episode is None:
        return "\n".join(parts) + "\n"
    meta = json.loads(episode.header["meta"])
    about = [f"profile {verdict.profile}", f"sample {verdict.sample_name}"]
    if background := meta.get("background"):
        about.append(f"background {', '.join(map(str, background))}")
    _, _, shard = windows_of(collect([episode]), schema)
    parts += [
        f"\n{'; '.join(about)}\n",
        "## Phases\n",
        *table(["phase", "from s", "to s"], _phases(episode)),
        "\n## Sources\n",
        *table(["source", "rows", "rows/s", "largest gap s"], _sources(episode)),
        f"\n## Channels on the {schema.hz} Hz grid (counters and flows per second)\n",
        *table(
            ["channel", "kind", "trust", "min", "mean", "max", "missing %"],
            _channels(shard),
            align="lll",
        ),
    ]
    return "\n".join(parts) + "\n"


def _seconds(episode: Episode, rows: Rows) -> Any:
    return (rows.t_wall_ns - episode.header["started_wall_ns"]) / 1e9


def _phases(episode: Episode) -> list[list[str]]:
    labels = episode.tables["labels"]
    begins = [max(float(t), 0.0) for t in _seconds(episode, labels)]
    end = (episode.header["ended_wall_ns"] - episode.header["started_wall_ns"]) / 1e9
    ends = [*begins[1:], end]
    return [
        [phase, f"{begin:.1f}", f"{stop:.1f}"]
        for phase, begin, stop in zip(labels.column("phase"), begins, ends, strict=True)
    ]


def _sources(episode: Episode) -> list[list[Any]]:
    duration = (episode.header["ended_wall_ns"] - episode.header["started_wall_ns"]) / 1e9
    found: list[list[Any]] = []
    for source, rows in episode.tables.items():
        if source == "labels":
            continue
        gaps = np.diff(_seconds(episode, rows))
        largest = f"{gaps.max():.2f}" if gaps.size else "-"
        found.append([source, len(rows), f"{len(rows) / duration:.1f}", largest])
    return found


def _channels(shard: TensorShard) -> list[list[str]]:
    rows = []
    for channel, values in zip(CHANNELS, to_raw(shard.decoded()).T, strict=True):
        there = values[~np.isnan(values)]
        levels = (
            [f"{v:.4g}" for v in (there.min(), there.mean(dtype=np.float64), there.max())]
            if there.size
            else ["-"] * 3
        )
        missing = 100 * (1 - there.size / max(values.size, 1))
        rows.append([channel.key, channel.kind, channel.trust, *levels, f"{missing:.0f}"])
    return rows


def plot(episode: Episode, schema: Schema, out: Path) -> None:
    """Draw all channels of an episode over its phases into a picture.

    Args:
        episode: a usable episode.
        schema: the grid.
        out: the picture; its suffix says the format (.png, .svg, .pdf).

    Raises:
        StoreError: the picture cannot be written.
    """
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt
    from matplotlib.patches import Patch
    from matplotlib.ticker import EngFormatter

    _, _, shard = windows_of(collect([episode]), schema)
    columns = 4
    figure, axes = plt.subplots(
        -(-len(CHANNELS) // columns), columns, figsize=(16, 20), sharex=True, squeeze=False
    )
    grids = to_raw(shard.decoded()).T
    seconds = np.arange(grids.shape[1]) / schema.hz
    phases = [(name, float(a), float(b)) for name, a, b in _phases(episode)]
    for axis in axes.flat[len(CHANNELS) :]:
        axis.axis("off")
    for axis, channel, values in zip(axes.flat, CHANNELS, grids, strict=False):
        for phase, begin, end in phases:
            axis.axvspan(begin, end, color=_PHASE_COLOURS[phase], lw=0)
        unit = "/s" if channel.kind in ("counter", "sum") else ""
        axis.set_title(f"{channel.key}{unit}", fontsize=9, loc="left")
        axis.tick_params(labelsize=7)
        axis.yaxis.set_major_formatter(EngFormatter(sep=""))
        axis.margins(x=0)
        there = values[~np.isnan(values)]
        if there.size:
            axis.plot(seconds, values, lw=0.9, color=_SOURCE_COLOURS[channel.source])
            # From zero, and never so tight that a level line lies on the frame.
            low, high = min(0.0, float(there.min())), float(there.max())
            axis.set_ylim(low, high + 0.1 * (high - low) if high > low else low + 1)
        else:
            axis.text(0.5, 0.5, "missing", transform=axis.transAxes, ha="center", color="#555555")
            axis.set_yticks([])
    header = episode.header
    figure.suptitle(
        f"{header['host_id']}/{header['episode_id']}: {header['profile']} "
        f"({header['sample_name']}), {header['status']}",
        fontsize=14,
    )
    shown_phases = list(dict.fromkeys(phase for phase, _, _ in phases))
    figure.legend(
        handles=[Patch(color=_PHASE_COLOURS[phase], label=phase) for phase in shown_phases],
        loc="upper right",
        ncols=len(shown_phases),
        fontsize=10,
    )
    figure.supxlabel("seconds after the start of the episode", fontsize=10)
    figure.tight_layout(rect=(0, 0, 1, 0.985))
    try:
        figure.savefig(out, dpi=90)
    except (OSError, ValueError) as error:
        raise StoreError(f"cannot write the picture {out}: {error}") from None
    finally:
        plt.close(figure)
