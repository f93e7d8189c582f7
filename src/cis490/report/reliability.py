"""Reliability diagrams: how often a detector is right when it says how sure it is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import polars as pl

from cis490.report.headline import sample
from cis490.report.results import Detector, Figure, Results
from cis490.report.style import LINE, SMALL, SOFT, WIDTH, Canvas, drawing, mode_colour
from cis490.report.svg import Picture

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_SIDE: Final = 162
_LEFT: Final = 40
_TOP: Final = 28
_BARS: Final = 32
_TICKS: Final = ([0, 0.25, 0.5, 0.75, 1], ["0", "", "0.5", "", "1"])


def reliability(results: Results) -> Picture:
    """Accuracy over confidence of the best realistic detector, before and after its temperature."""
    title = "Reliability of the best detector's probabilities"
    best = results.leader
    if best is None:
        return Picture(title, "No detector has a figure on val, so none is the best.", None)
    bins = bins_of(results, best)
    if not bins:
        reasons = results.unmeasured(best).values() or ["calibration was not computed"]
        return Picture(title, f"Not measured for {best}: {'; '.join(reasons)}.", None)
    with drawing():
        canvas = _draw(bins, mode_colour(best.mode))
    return Picture(
        f"{title}, {best}",
        f"**{best}**, {sample(results)}, all seeds; 15 bins of confidence, the largest of a "
        "window's probabilities. Bars: 95% intervals of a bootstrap over episodes. Below: windows "
        "in each bin. On the diagonal a detector is right as often as it says; below it, it is too "
        "sure. Scaled: by one temperature, fitted out of fold on the training hosts.",
        canvas.figure,
    )


def bins_of(results: Results, detector: Detector) -> list[Figure]:
    """The bins of a detector that hold windows, on the part shown; as trained, then scaled."""
    if results.reliability is None:
        return []
    name = {"model": detector.model, "mode": detector.mode, "part": results.part or ""}
    rows = results.reliability.filter(pl.col("n_windows") > 0, **name)
    return rows.sort("scaled", "bin").to_dicts()


def _draw(bins: list[Figure], colour: str) -> Canvas:
    canvas = Canvas.of(WIDTH, _TOP + _SIDE + _BARS + 48)
    most = max(row["n_windows"] for row in bins)
    small: dict[str, Any] = {"size": SMALL, "va": "center"}
    for place, (scaled, words) in enumerate(((False, "as trained"), (True, "scaled"))):
        chosen = [row for row in bins if row["scaled"] == scaled]
        left = _LEFT + place * (_SIDE + 42)
        canvas.text(left, 14, words, weight="bold", **small)
        if not chosen:
            canvas.text(left, _TOP + 16, "no temperature was found", color=SOFT, **small)
            continue
        axes = canvas.axes(left, _TOP, _SIDE, _SIDE)
        bars = canvas.axes(left, _TOP + _SIDE + 6, _SIDE, _BARS)
        _panel(axes, bars, chosen, most, colour)
        middle = left + _SIDE / 2
        canvas.text(middle, canvas.height - 12, "confidence", ha="center", color=SOFT, **small)
    canvas.text(10, _TOP + _SIDE / 2, "accuracy", rotation=90, ha="center", color=SOFT, **small)
    return canvas


def _panel(axes: Axes, bars: Axes, bins: list[Figure], most: int, colour: str) -> None:
    axes.set(xlim=(0, 1), ylim=(0, 1))
    axes.plot([0, 1], [0, 1], color=SOFT, linewidth=1, linestyle=(0, (4, 3)))
    for row in bins:
        x, width = row["confidence"], row["high_edge"] - row["low_edge"]
        if row["low"] is not None:
            axes.plot([x, x], [row["low"], row["high"]], color=colour, linewidth=1.6)
        axes.plot(x, row["accuracy"], "o", color=colour, markersize=4.5)
        height = row["n_windows"] / most
        bars.bar(row["low_edge"], height, 0.86 * width, align="edge", color=colour, alpha=0.45)
    axes.set_xticks(_TICKS[0], [""] * len(_TICKS[0]))
    axes.set_yticks(*_TICKS)
    axes.grid()
    bars.set(xlim=(0, 1), ylim=(0, 1.05))
    bars.set_xticks(*_TICKS)
    bars.set_yticks([])
    bars.spines["left"].set_visible(False)
    for side in axes.spines.values():
        side.set_color(LINE)
