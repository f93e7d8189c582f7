"""Single episodes in time: what happened, what the detector said, and when it raised an alarm."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import polars as pl

from cis490 import files
from cis490.channels import PHASES
from cis490.evaluation.alarms import Rule, alarm_score, raised
from cis490.report.blocks import Table
from cis490.report.names import RANKS
from cis490.report.results import Results
from cis490.report.style import (
    ALARM,
    INK,
    PHASE_COLOURS,
    SMALL,
    SOFT,
    WIDTH,
    Canvas,
    drawing,
    mode_colour,
    text_width,
)
from cis490.report.svg import Picture
from cis490.report.text import NOTHING, near_one
from cis490.words import count

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_LEFT: Final = 66
_HEIGHT: Final = 96


@dataclass(frozen=True)
class Episode:
    """An infected episode as one run of a detector saw it.

    Attributes:
        row: of alarms.parquet.
        end_s: (n,) seconds after the start at which each window ends.
        phase: of each window.
        score: (n,) alarm score of each window.
        alarm: (n,) bool, whether an alarm stands at its end.
        threshold: at which an alarm begins.
        length_s, stride_s: of windows.
        rank: its place among the n infected episodes, by delay.
        n: infected episodes.
    """

    row: dict[str, Any]
    end_s: np.ndarray
    phase: list[str]
    score: np.ndarray
    alarm: np.ndarray
    threshold: float
    length_s: float
    stride_s: float
    rank: int
    n: int

    @property
    def delay_s(self) -> float | None:
        """Seconds from the infection to the first alarm; None: missed."""
        first = self.row["first_alarm_s"]
        return None if first is None else float(first - self.row["onset_s"])

    @property
    def table(self) -> Table:
        """Every window."""
        rows = [
            [f"{end:g}", phase, near_one(score), "alarm" if alarm else NOTHING]
            for end, phase, score, alarm in zip(
                self.end_s, self.phase, self.score, self.alarm, strict=True
            )
        ]
        return Table(["window's end, s", "phase", "alarm score", "alarm"], rows, align="rlrl")


def pick(
    results: Results, alarms: Path, predictions: Path, window: Mapping[str, float]
) -> dict[str, Episode]:
    """The best, the median and the worst infected episode of the best realistic detector.

    By seconds from infection to alarm under the seed that is best by val, missed ones last; a tie
    goes to the first id.

    Args:
        results: of the split.
        alarms: alarms.parquet.
        predictions: of the detector.
        window: length_s and stride_s.

    Returns:
        By `RANKS`; empty where nothing can be shown. With few episodes, names may share one.
    """
    best = results.leader
    rule = results.threshold(best).get("rule") if best else None
    if best is None or rule is None:
        return {}
    seed = results.trained(best)["best_seed"]
    run = {"seed": seed, "part": results.part or ""}
    said = files.read_parquet(predictions).filter(**run)
    last = said.group_by("episode_id").agg(pl.col("window").max())
    rows = files.read_parquet(alarms).filter(model=best.model, mode=best.mode, **run)
    rows = rows.join(last, on="episode_id").with_columns(
        end_s=pl.col("window") * window["stride_s"] + window["length_s"],
        delay_s=pl.col("first_alarm_s") - pl.col("onset_s"),
    )
    # No window can see an infection that begins after the last one ends; null has none.
    rows = rows.filter(pl.col("onset_s") <= pl.col("end_s"))
    rows = rows.sort("delay_s", "episode_id", nulls_last=True)
    if rows.is_empty():
        return {}
    places = dict(zip(RANKS, (0, (len(rows) - 1) // 2, len(rows) - 1), strict=True))
    return {
        rank: _episode(rows.row(place, named=True), said, Rule(**rule), window, place, len(rows))
        for rank, place in places.items()
    }


def _episode(
    row: dict[str, Any],
    said: pl.DataFrame,
    rule: Rule,
    window: Mapping[str, float],
    place: int,
    n: int,
) -> Episode:
    own = said.filter(episode_id=row["episode_id"]).sort("window")
    score = alarm_score(own.select(f"p_{phase}" for phase in PHASES).to_numpy())
    first = np.arange(len(own)) == 0
    length_s, stride_s = window["length_s"], window["stride_s"]
    return Episode(
        row,
        own["window"].to_numpy() * stride_s + length_s,
        own["phase"].to_list(),
        score,
        raised(score, first, rule),
        rule.threshold,
        length_s,
        stride_s,
        place + 1,
        n,
    )


def timeline(results: Results, rank: str, episode: Episode | None) -> Picture:
    """One episode: the phases, the alarm score of each window, and the alarms."""
    title = f"The {rank} episode in time"
    best = results.leader
    if episode is None or best is None:
        return Picture(title, why_none(results), None)
    row = episode.row
    with drawing():
        canvas = _draw(episode, mode_colour(best.mode))
    false = count(row["n_false"], "false alarm")
    found = (
        "the infection is missed"
        if episode.delay_s is None
        else f"an alarm {episode.delay_s:.1f} s after the infection"
    )
    return Picture(
        f"{title}: {row['episode_id']}",
        f"**{rank.capitalize()}** of {count(episode.n, 'infected episode')} (place {episode.rank} "
        f"by delay) for {best}, seed {row['seed']}: `{row['episode_id']}`, {row['profile']} on "
        f"{row['host_id']}; {found}, {false} before it. The strip: the phase of each window; the "
        "line: its alarm score, at its end; dashed: the threshold; both on a scale of "
        "log-odds. One episode, so no interval.",
        canvas.figure,
        (episode.table,),
    )


def why_none(results: Results) -> str:
    """Why there is no episode to show."""
    best = results.leader
    if best is None:
        return "No detector has a figure on val, so none is the best."
    if "detection" not in results.told:
        return "Alarms were not computed."
    if reason := results.threshold(best).get("reason"):
        return f"No alarms of {best}: {reason}."
    return f"No episode of {results.part} has an infection that a window sees."


def _draw(episode: Episode, colour: str) -> Canvas:
    canvas = Canvas.of(WIDTH, 44 + _HEIGHT + 40)
    last = float(episode.end_s[-1]) + episode.stride_s / 2
    strip = canvas.axes(_LEFT, 26, WIDTH - _LEFT - 8, 16)
    axes = canvas.axes(_LEFT, 48, WIDTH - _LEFT - 8, _HEIGHT)
    for each in (strip, axes):
        each.set_xlim(0, last)
    _strip(strip, episode, (WIDTH - _LEFT - 8) / last)
    score, threshold = _log_odds(episode.score), float(_log_odds(episode.threshold))
    low = 3 * math.floor(min(-3, threshold, *score) / 3)
    high = 3 * math.ceil(max(3, threshold, *score) / 3)
    axes.set_ylim(low - 0.3, high + 0.3)
    ticks = range(low, high + 1, 3)
    axes.set_yticks(ticks, [_share_of(tick) for tick in ticks])
    axes.grid(axis="y")
    axes.spines["left"].set_visible(False)
    onset = episode.row["onset_s"]
    axes.axvline(onset, color=INK, linewidth=1.2)
    first = episode.row["first_alarm_s"]
    words = f"infection at {onset:.1f} s"
    canvas.text(_LEFT, 12, words, va="center", size=SMALL, color=INK)
    told = "no alarm after it" if first is None else f"first alarm at {first:.1f} s"
    x = _LEFT + text_width(words, SMALL) + 16
    canvas.text(x, 12, told, va="center", size=SMALL, weight="bold", color=ALARM)
    for end in episode.end_s[episode.alarm]:
        axes.axvspan(end, end + episode.stride_s, color=ALARM, alpha=0.16, linewidth=0)
    if first is not None:
        axes.axvline(first, color=ALARM, linewidth=1.6)
    axes.axhline(threshold, color=SOFT, linewidth=1, linestyle=(0, (4, 3)))
    axes.plot(episode.end_s, score, color=colour, marker="o", markersize=4)
    middle = _LEFT + (WIDTH - _LEFT - 8) / 2
    about = "seconds after the episode's start"
    canvas.text(middle, canvas.height - 9, about, ha="center", va="center", size=SMALL, color=SOFT)
    return canvas


def _log_odds(score: np.ndarray | float) -> np.ndarray:
    """Decimal logarithm of score / (1 - score), as far as 9: thresholds lie near 1."""
    share = np.clip(score, 1e-9, 1 - 1e-9)
    return np.asarray(np.log10(share / (1 - share)))


def _share_of(log_odds: int) -> str:
    """The share, about, that has these decimal log-odds, a multiple of 3."""
    known = {-3: "0.001", 0: "0.5", 3: "0.999"}
    end = f"1e-{abs(log_odds)}"
    return known.get(log_odds, f"1 - {end}" if log_odds > 0 else end)


def _strip(axes: Axes, episode: Episode, scale: float) -> None:
    """A band for each run of windows of one phase, around the windows' middles."""
    axes.set_ylim(0, 1)
    axes.set_axis_off()
    middle = episode.end_s - episode.length_s / 2
    for start, stop in _runs(episode.phase):
        low = middle[start] - episode.stride_s / 2 if start else 0.0
        high = middle[stop - 1] + episode.stride_s / 2
        phase = episode.phase[start]
        axes.axvspan(low, high, color=PHASE_COLOURS[phase], linewidth=0)
        if text_width(phase, SMALL) < (high - low) * scale:
            style: dict[str, Any] = {"ha": "center", "va": "center", "size": SMALL - 0.5}
            axes.text((low + high) / 2, 0.46, phase, **style)


def _runs(values: Sequence[str]) -> list[tuple[int, int]]:
    """Where equal neighbours begin and end."""
    edges = [i for i in range(1, len(values)) if values[i] != values[i - 1]]
    return list(zip([0, *edges], [*edges, len(values)], strict=True))
