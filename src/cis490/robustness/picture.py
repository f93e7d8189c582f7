"""One picture of robustness.parquet: macro F1 over what is lost and skewed, and other changes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import polars as pl

from cis490 import files
from cis490.channels import MODES
from cis490.evaluation.baselines import TRAINED
from cis490.evaluation.breakdowns import ALL, COMPARED
from cis490.report.style import (
    LINE,
    ROW,
    SMALL,
    SOFT,
    WIDTH,
    Canvas,
    drawing,
    mode_colour,
    spread,
    text_width,
)
from cis490.report.svg import Picture, write_picture
from cis490.robustness.conditions import UNPERTURBED, Condition
from cis490.robustness.table import CHANGE

if TYPE_CHECKING:
    from matplotlib.axes import Axes

TITLE: Final = "Robustness: macro F1 when telemetry gets worse"
_AXES: Final = {
    "loss": "share of rows lost",
    "skew": "clock skew of at most, s",
}
_CURVED: Final = (UNPERTURBED, *_AXES)
_HEIGHT: Final = 150
_LEFT: Final = 46
_APART: Final = 12  # units between two labels, at least
_SPACE: Final = 44  # below a row of panels
Figure = dict[str, Any]


@dataclass(frozen=True)
class _Table:
    """What is drawn of robustness.parquet: rows over all seeds, and the best of each mode."""

    rows: dict[tuple[str, str, str, str], Figure]
    best: dict[str, str]

    @property
    def modes(self) -> list[str]:
        """Modes that have a model, realistic first."""
        return [mode for mode in MODES if any(key[1] == mode for key in self.rows)]

    def models(self, mode: str) -> list[str]:
        """The models of a mode, the best one last, so that it is drawn over the others."""
        names = {model for model, of, *_ in self.rows if of == mode}
        return sorted(names, key=lambda name: (name == self.best.get(mode), name))

    def figure(self, model: str, mode: str, condition: str, metric: str) -> Figure | None:
        """A row, if it holds a figure."""
        row = self.rows.get((model, mode, condition, metric))
        return row if row and row["estimate"] is not None else None


def best_by_val(metrics: pl.DataFrame) -> dict[str, str]:
    """Each mode's best architecture by macro F1 on val, of metrics.parquet; none without val."""
    scope, key = ALL
    rows = metrics.filter(
        pl.col("seed").is_null(),
        ~pl.col("model").is_in(TRAINED),
        part="val",
        scope=scope,
        key=key,
        metric=COMPARED,
    ).sort("estimate", "model", descending=[True, False])
    found: dict[str, str] = {}
    for model, mode in rows.select("model", "mode").rows():
        found.setdefault(mode, model)
    return found


def write_robustness(
    robustness: Path,
    conditions: Sequence[Condition],
    *,
    metrics: Path,
    out: Path,
) -> None:
    """Draw the picture of a split and write it as SVG.

    Args:
        robustness: robustness.parquet (`table.tabulate`).
        conditions: of the settings.
        metrics: eval/<split>/metrics.parquet, which says who is best by val.
        out: the SVG; a picture of words where nothing was scored.
    """
    table, told = files.read_parquet(robustness), files.read_parquet_metadata(robustness)
    best = best_by_val(files.read_parquet(metrics))
    write_picture(picture(table, told, conditions, best), out)


def picture(
    table: pl.DataFrame,
    told: Mapping[str, str],
    conditions: Sequence[Condition],
    best: Mapping[str, str],
) -> Picture:
    """Macro F1 over the level of loss and of skew, a line a model; and other conditions' changes.

    Args:
        table, told: robustness.parquet and its metadata.
        conditions: of the settings.
        best: mode -> the model that is drawn with its intervals.
    """
    rows = table.filter(pl.col("seed").is_null()).iter_rows(named=True)
    drawn = _Table(
        {(row["model"], row["mode"], row["key"], row["metric"]): row for row in rows}, dict(best)
    )
    if not drawn.rows:
        return Picture(TITLE, "Not measured: no model could be trained, or nothing is shown.", None)
    n_windows = next(iter(drawn.rows.values()))["n_windows"]
    with drawing():
        canvas = _draw(drawn, conditions)
    return Picture(
        TITLE,
        f"**{told['part']}**, {n_windows:,} windows of {told['n_drawn']} of {told['n_shown']} "
        "episodes; nothing is trained again. Lines are means over seeds, a model each; the best by "
        "val of each mode is bold, with 95% intervals of a bootstrap over episodes. Below: what "
        "the other conditions change in its macro F1, paired.",
        canvas.figure,
    )


def _draw(table: _Table, conditions: Sequence[Condition]) -> Canvas:
    curves = [kind for kind in _AXES if any(c.kind == kind for c in conditions)]
    others = [c for c in conditions if c.kind not in _CURVED]
    below = 26 + len(curves) * (_HEIGHT + _SPACE)
    canvas = Canvas.of(WIDTH, below + 26 + len(others) * ROW + 40)
    ends = _ends(table)
    for column, mode in enumerate(table.modes):
        room = (WIDTH - _LEFT) / len(table.modes)
        left = _LEFT + column * room
        style: dict[str, Any] = {"size": SMALL, "weight": "bold", "va": "center"}
        canvas.text(left, 12, mode, color=mode_colour(mode), **style)
        for i, kind in enumerate(curves):
            points = [c for c in conditions if c.kind in (kind, UNPERTURBED)]
            at = left, 26 + i * (_HEIGHT + _SPACE), room
            axes = _panel(canvas, table, mode, points, at, ends)
            if column:
                axes.tick_params(labelleft=False)
            middle = left + axes.get_position().width * WIDTH / 2
            y = at[1] + _HEIGHT + 26
            canvas.text(middle, y, _AXES[kind], ha="center", va="center", **_SOFT)
    for i in range(len(curves)):
        side = 26 + i * (_HEIGHT + _SPACE) + _HEIGHT / 2
        canvas.text(9, side, "macro F1", rotation=90, ha="center", va="center", **_SOFT)
    _changes(canvas, table, others, below)
    return canvas


_SOFT: Final[dict[str, Any]] = {"size": SMALL, "color": SOFT}


def _ends(table: _Table) -> tuple[float, float]:
    """The ends of the macro F1 axis: whole tenths around all curves and their intervals."""
    rows = [
        row
        for (*_, name, metric), row in table.rows.items()
        if metric == COMPARED and row["estimate"] is not None and name.startswith(_CURVED)
    ]
    least = min((row["low"] or row["estimate"] for row in rows), default=0.0)
    most = max((row["high"] or row["estimate"] for row in rows), default=1.0)
    return math.floor(least * 10) / 10, min(1.0, math.floor(most * 10 + 1) / 10)


def _panel(
    canvas: Canvas,
    table: _Table,
    mode: str,
    points: Sequence[Condition],
    at: tuple[float, float, float],
    ends: tuple[float, float],
) -> Axes:
    """Axes with a line a model of a mode; `at`: their left and top, and the room with labels."""
    left, top, room = at
    names = table.models(mode)
    label = 10 + max(text_width(name, SMALL, "bold") for name in names)
    width = room - label - 8
    axes = canvas.axes(left, top, width, _HEIGHT)
    levels = [condition.level or 0.0 for condition in points]
    span = max(levels) or 1.0
    low, high = ends
    axes.set(xlim=(-0.03 * span, 1.03 * span), ylim=ends)
    axes.set_xticks(levels, [f"{level:g}" for level in levels])
    tenths = range(round(low * 10), round(high * 10) + 1, 2)
    axes.set_yticks([tenth / 10 for tenth in tenths])
    axes.grid(axis="y")
    axes.spines["left"].set_visible(False)
    last = []
    for name in names:
        found = [table.figure(name, mode, condition.name, COMPARED) for condition in points]
        line = [(x, row) for x, row in zip(levels, found, strict=True) if row]
        _line(axes, line, mode, bold=name == table.best.get(mode))
        if line:
            last.append(((line[-1][1]["estimate"] - low) / (high - low), name))
    for y, name in spread(last, _APART / _HEIGHT):
        bold = name == table.best.get(mode)
        colour, weight = (mode_colour(mode), "bold") if bold else (SOFT, "normal")
        where = left + width + 6, top + _HEIGHT * (1 - y)
        canvas.text(*where, name, size=SMALL, weight=weight, color=colour, va="center")
    return axes


def _line(axes: Axes, line: Sequence[tuple[float, Figure]], mode: str, *, bold: bool) -> None:
    colour = mode_colour(mode) if bold else SOFT
    x, y = [at for at, _ in line], [row["estimate"] for _, row in line]
    axes.plot(x, y, color=colour, linewidth=2 if bold else 1, alpha=1 if bold else 0.55)
    for at, row in line if bold else ():
        if row["low"] is not None:
            axes.plot([at, at], [row["low"], row["high"]], color=colour, linewidth=1.4, alpha=0.6)
        axes.plot(at, row["estimate"], "o", color=colour, markersize=4.5)


def _changes(canvas: Canvas, table: _Table, others: Sequence[Condition], top: float) -> None:
    """What each other condition changes in macro F1 of the best of each mode."""
    best = [(model, mode) for mode, model in table.best.items() if mode in table.modes]
    best.sort(key=lambda name: list(MODES).index(name[1]))
    if not best or not others:
        return
    words = [condition.name.replace("_", " ") for condition in others]
    left = 20 + max(text_width(text, SMALL) for text in words)
    height = len(others) * ROW
    canvas.text(10, top + 8, "change of macro F1", weight="bold", size=SMALL, va="center")
    axes = canvas.axes(left, top + 22, WIDTH - left - 16, height)
    axes.set_ylim(len(others) - 0.5, -0.5)
    axes.set_yticks([])
    axes.axvline(0, color=SOFT, linewidth=1)
    axes.grid(axis="x")
    for side in ("left", "bottom"):
        axes.spines[side].set_color(LINE)
    for i, (condition, text) in enumerate(zip(others, words, strict=True)):
        y = top + 22 + (i + 0.5) * ROW
        canvas.text(left - 8, y, text, ha="right", va="center", **_SOFT)
        rows = [table.figure(*name, condition.name, CHANGE) for name in best]
        if not any(rows):
            axes.text(
                0, i, "not measurable: changes no episode  ", ha="right", va="center", **_SOFT
            )
        for place, ((_, mode), row) in enumerate(zip(best, rows, strict=True)):
            if row:
                _dot(axes, row, i + 0.3 * (place - (len(best) - 1) / 2), mode)
    axes.margins(x=0.06)
    names = ", ".join(f"{model} {mode}" for model, mode in best)
    canvas.text(WIDTH - 16, top + 8, f"best by val: {names}", ha="right", va="center", **_SOFT)


def _dot(axes: Axes, row: Figure, y: float, mode: str) -> None:
    colour = mode_colour(mode)
    if row["low"] is not None:
        axes.plot([row["low"], row["high"]], [y, y], color=colour, linewidth=1.6, alpha=0.7)
    axes.plot(row["estimate"], y, "o", color=colour, markersize=5)
