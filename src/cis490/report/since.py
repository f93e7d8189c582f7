"""How the share of infected windows that raise an alarm grows with the time since infection."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from cis490.report.headline import sample
from cis490.report.results import Detector, Figure, Results
from cis490.report.style import (
    PAPER,
    SMALL,
    SOFT,
    WIDTH,
    Canvas,
    drawing,
    mode_colour,
    spread,
    text_width,
)
from cis490.report.svg import Picture
from cis490.report.text import FEW_IN_CELL

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SCOPE: Final = "since_infection"
_HEIGHT: Final = 210
_APART: Final = 14  # units between two labels, at least


def seconds_of(results: Results) -> list[str]:
    """The bins that any detector was measured in, rising; seconds since infection as text."""
    return sorted(results.keys(SCOPE, "recall"), key=float)


def recall_since_infection(results: Results) -> Picture:
    """Recall by seconds since infection: the best of each mode, and trained company."""
    title = "Recall by seconds since infection"
    keys = seconds_of(results)
    if not keys:
        reason = (
            "alarms were not computed"
            if "detection" not in results.told
            else "no infection is seen"
        )
        return Picture(title, f"Not measured: {reason}, or no threshold could be chosen.", None)
    best = [detector for mode in results.modes if (detector := results.best(mode))]
    others = [each for each in results.baselines if each in results.company]
    lines = [
        (detector, points)
        for detector in [*others, *best]
        if (points := _points(results, detector, keys))
    ]
    if not lines:
        return Picture(title, "Not measured: none of those shown has a threshold.", None)
    with drawing():
        canvas = _draw(lines, best)
    return Picture(
        title,
        f"Share of windows in which an alarm stands, by seconds from the infection to the window's "
        f"end; {sample(results)}. Coloured: the best of each mode by val, with 95% intervals of a "
        "bootstrap over episodes; grey: company. Hollow points rest on fewer than "
        f"{FEW_IN_CELL} episodes. Thresholds were chosen out of fold on the training hosts.",
        canvas.figure,
    )


def _points(results: Results, detector: Detector, keys: list[str]) -> list[tuple[float, Figure]]:
    found = [(float(key), results.figure(detector, "recall", SCOPE, key)) for key in keys]
    return [(x, figure) for x, figure in found if figure and figure["estimate"] is not None]


def _draw(lines: list[tuple[Detector, list[tuple[float, Figure]]]], best: list[Detector]) -> Canvas:
    weights = {detector: "bold" if detector in best else "normal" for detector, _ in lines}
    right = max(text_width(str(each), SMALL, weight) for each, weight in weights.items()) + 16
    left, top = 42, 12
    canvas = Canvas.of(WIDTH, top + _HEIGHT + 42)
    axes = canvas.axes(left, top, WIDTH - left - right, _HEIGHT)
    axes.set_ylim(0, 1)
    axes.set_yticks([0, 0.25, 0.5, 0.75, 1], ["0", "", "0.5", "", "1"])
    axes.grid(axis="y")
    axes.spines["left"].set_visible(False)
    last = max(points[-1][0] for _, points in lines)
    first = min(points[0][0] for _, points in lines)
    span = last - first or 1.0
    axes.set_xlim(first - 0.02 * span, last + 0.02 * span)
    ends = []
    for detector, points in lines:
        # The modes stand a little apart, so that their intervals do not cover each other.
        off = 0.006 * span * (2 * best.index(detector) - 1) if detector in best else 0.0
        _line(axes, detector, points, thin=detector not in best, off=off)
        ends.append((points[-1][1]["estimate"], detector))
    for y, detector in spread(ends, _APART / _HEIGHT):
        colour = mode_colour(detector.mode) if detector in best else SOFT
        at = WIDTH - right + 8, top + _HEIGHT * (1 - y)
        label: dict[str, Any] = {"size": SMALL, "color": colour, "weight": weights[detector]}
        canvas.text(*at, str(detector), va="center", **label)
    middle = left + (WIDTH - left - right) / 2
    style: dict[str, Any] = {"ha": "center", "va": "center", "size": SMALL, "color": SOFT}
    about = "seconds from the infection to the window's end"
    canvas.text(middle, canvas.height - 10, about, **style)
    canvas.text(10, top + _HEIGHT / 2, "recall", rotation=90, **style)
    return canvas


def _line(
    axes: Axes, detector: Detector, points: list[tuple[float, Figure]], *, thin: bool, off: float
) -> None:
    colour = SOFT if thin else mode_colour(detector.mode)
    x = [at + off for at, _ in points]
    y = [figure["estimate"] for _, figure in points]
    axes.plot(x, y, color=colour, linewidth=1 if thin else 2, alpha=0.6 if thin else 1)
    for at, (_, figure) in zip(x, points, strict=True) if not thin else ():
        if figure["low"] is not None:
            ends = [figure["low"], figure["high"]]
            axes.plot([at, at], ends, color=colour, linewidth=1.2, alpha=0.55)
        face = PAPER if figure["n_episodes"] < FEW_IN_CELL else colour
        axes.plot(at, figure["estimate"], "o", color=colour, markerfacecolor=face, markersize=5)
