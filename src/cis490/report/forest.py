"""The forest plot: macro F1 of every detector and of its company, with intervals, and the clock."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from cis490.evaluation.baselines import CLOCK, MODE, TRAINED
from cis490.report.headline import sample
from cis490.report.results import Detector, Figure, Results
from cis490.report.style import (
    FAINT,
    LINE,
    PAPER,
    ROW,
    SMALL,
    SOFT,
    WIDTH,
    Canvas,
    drawing,
    mode_colour,
    text_width,
)
from cis490.report.svg import Picture
from cis490.report.text import NOTHING

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_BEST: Final = "best by val"
_TOP: Final = 46
_COLUMN: Final = 54  # of numbers, one a mode
_APART: Final = 0.17  # of a row: how far the modes' marks lie from its middle


def forest(results: Results) -> Picture:
    """Macro F1 on the part shown: a row a detector, realistic beside oracle."""
    title = "Macro F1 of every detector and of its company"
    company = list(dict.fromkeys(detector.model for detector in results.baselines))
    if results.part is None or not (results.architectures or company):
        return Picture(title, "Nothing was scored.", None)
    clock = results.figure(Detector(CLOCK, MODE), "macro_f1")
    with drawing():
        canvas = _draw(results, results.architectures, company, clock)
    line = " The dashed line and its band are **window index alone**." if clock else ""
    return Picture(
        title,
        f"Macro F1 on {sample(results)}. Points are means over seeds, bars 95% intervals of a "
        f"bootstrap over episodes. Below the rule stands the company.{line}",
        canvas.figure,
    )


def _draw(results: Results, models: list[str], company: list[str], clock: Figure | None) -> Canvas:
    names = [*models, *company]
    best = results.leader
    marked = best.model if best else None
    beside = text_width(_BEST, SMALL) + 8
    left = 14 + max(
        text_width(name, weight="bold") + beside if name == marked else text_width(name)
        for name in names
    )
    numbers = _COLUMN * max(len(results.modes), 1)
    rows = len(names) + 0.5 * bool(models and company)
    canvas = Canvas.of(WIDTH, _TOP + ROW * rows + 24)
    axes = canvas.axes(left, _TOP, WIDTH - left - numbers - 6, ROW * rows)
    axes.set_xlim(0, 1)
    axes.set_ylim(rows, 0)
    axes.set_xticks([0, 0.25, 0.5, 0.75, 1], ["0", "0.25", "0.5", "0.75", "1"])
    axes.grid(axis="x")
    axes.set_yticks([])
    for side in ("left", "bottom"):
        axes.spines[side].set_visible(False)
    if clock:
        _clock(axes, clock)
    for column, mode in enumerate(results.modes):
        x = WIDTH - numbers + _COLUMN * (column + 1) - 4
        style = {"color": mode_colour(mode), "weight": "bold", "size": SMALL}
        canvas.text(x, _TOP - 12, mode, ha="right", va="center", **style)
    for row, name in enumerate(names):
        y = row + (1.0 if row >= len(models) > 0 else 0.5)
        weight = "bold" if name == marked else "normal"
        canvas.text(left - 10, _TOP + ROW * y, name, ha="right", va="center", weight=weight)
        if name == marked:
            at = left - 16 - text_width(name, weight="bold"), _TOP + ROW * y
            canvas.text(*at, _BEST, ha="right", va="center", size=SMALL, color=SOFT)
            axes.axhspan(y - 0.5, y + 0.5, color=FAINT, zorder=0)
        if name in models or name in TRAINED:
            found = [Detector(name, mode) for mode in results.modes]
            for place, detector in enumerate(found):
                off = _APART * (2 * place - 1) if len(found) > 1 else 0.0
                right = WIDTH - numbers + _COLUMN * (place + 1) - 4
                _mark(axes, results, detector, y + off)
                _number(canvas, results, detector, (right, _TOP + ROW * y), "right")
        else:
            _mark(axes, results, Detector(name, MODE), y)
            middle = (WIDTH - numbers / 2, _TOP + ROW * y)
            _number(canvas, results, Detector(name, MODE), middle, "center")
    if models and company:
        axes.axhline(len(models) + 0.25, color=LINE, linewidth=1)
    return canvas


def _clock(axes: Axes, clock: Figure) -> None:
    if clock["low"] is not None:
        axes.axvspan(clock["low"], clock["high"], color=SOFT, alpha=0.12, linewidth=0)
    axes.axvline(clock["estimate"], color=SOFT, linewidth=1, linestyle=(0, (4, 3)))
    x, side = min(max(clock["estimate"], 0.02), 0.98), "center"
    if x < 0.3 or x > 0.7:
        side = "left" if x < 0.3 else "right"
    axes.annotate(
        "window index alone",
        (x, 1),
        xycoords=("data", "axes fraction"),
        xytext=(0, 7),
        textcoords="offset points",
        ha=side,
        size=SMALL,
        color=SOFT,
    )


def _mark(axes: Axes, results: Results, detector: Detector, y: float) -> None:
    figure = results.figure(detector, "macro_f1")
    if figure is None:
        return
    colour = mode_colour(detector.mode)
    if figure["low"] is not None:
        axes.plot([figure["low"], figure["high"]], [y, y], color=colour, linewidth=2)
    face = colour if detector.mode == results.modes[0] else PAPER
    axes.plot(figure["estimate"], y, "o", color=colour, markerfacecolor=face, markersize=6)


def _number(
    canvas: Canvas, results: Results, detector: Detector, at: tuple[float, float], side: str
) -> None:
    figure = results.figure(detector, "macro_f1")
    failed = detector in [failure for failure, _ in results.failed]
    text = f"{figure['estimate']:.3f}" if figure else "failed" if failed else NOTHING
    colour = mode_colour(detector.mode) if figure else SOFT
    canvas.text(*at, text, ha=side, va="center", size=SMALL, color=colour)
