"""Training curves of all models of a split as one picture: every seed, the failed ones too."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import polars as pl

from cis490 import files
from cis490.channels import MODES
from cis490.files import read_json

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito (2008): told apart with any colour vision; the marks differ too, for print.
SEED_STYLES: Final = tuple(
    zip(
        ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000"),
        ("o", "s", "^", "D", "v", "P", "*"),
        strict=True,
    )
)
_VAL: Final[Any] = "solid"
_TRAIN: Final[Any] = (0, (2, 1.5))  # dots and gaps, in widths of the line
_STYLE: Final[dict[Any, Any]] = {
    "svg.hashsalt": "cis490",  # ids within the picture are the same each time
    "svg.fonttype": "none",  # text stays text
    "font.size": 8,
    "axes.titlesize": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e5e5e5",
    "lines.linewidth": 1.1,
}


@dataclass(frozen=True)
class Curves:
    """What one model tells of its training.

    Attributes:
        model: model.json; architecture, mode and seeds are used.
        history: history.parquet.
    """

    model: dict[str, Any]
    history: pl.DataFrame

    def of(self, seed: int) -> list[pl.DataFrame]:
        """The history of a seed, each attempt apart; none if it failed before its first epoch."""
        return self.history.filter(seed=seed).partition_by("attempt", maintain_order=True)

    @property
    def has_curve(self) -> bool:
        """Whether there is anything to draw: a baseline that is fitted at once has no curve."""
        failed = any(entry["status"] != "ok" for entry in self.model["seeds"])
        return failed or (self.history["epoch"] > 1).any()


def write_curves(models: Sequence[Path], histories: Sequence[Path], out: Path) -> None:
    """Draw val macro F1 and losses over the epochs: a row an architecture, columns by mode.

    The same files give the same bytes.

    Args:
        models: model.json of every model of a split.
        histories: history.parquet of each, in the same order.
        out: the picture, SVG.

    Raises:
        FormatError: a history is damaged.
    """
    pairs = zip(models, histories, strict=True)
    found = [Curves(read_json(model), files.read_parquet(history)) for model, history in pairs]
    import matplotlib as mpl

    with mpl.rc_context(), files.replacing(out) as partial:
        mpl.rcdefaults()  # not what somebody's matplotlibrc says
        mpl.rcParams.update(_STYLE)
        figure = draw([each for each in found if each.has_curve])
        figure.savefig(partial, format="svg", metadata={"Date": None, "Creator": None})


def draw(found: Sequence[Curves]) -> Figure:
    """The picture: val macro F1 to the left, losses to the right, each in every mode."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    if not found:
        figure = Figure(figsize=(4, 1))
        figure.text(0.5, 0.5, "no training has a curve", ha="center")
        return figure
    by_name = {(each.model["architecture"], each.model["mode"]): each for each in found}
    architectures = list(dict.fromkeys(architecture for architecture, _ in by_name))
    modes = [mode for mode in MODES if any(mode == own for _, own in by_name)]
    n_rows, n_columns = len(architectures), 2 * len(modes)
    figure = Figure(figsize=(2.7 * n_columns + 0.3, 1.5 * n_rows + 0.9), layout="constrained")
    grid = figure.subplots(n_rows, n_columns, sharex="row", squeeze=False)
    for row, architecture in enumerate(architectures):
        for column, mode in enumerate(modes):
            f1, loss = grid[row, column], grid[row, column + len(modes)]
            if row == 0:
                f1.set_title(f"val macro F1, {mode}")
                loss.set_title(f"loss, {mode}")
            if curves := by_name.get((architecture, mode)):
                _draw_model(f1, loss, curves)
            else:
                f1.set_axis_off()
                loss.set_axis_off()
        grid[row, 0].xaxis.set_major_locator(MaxNLocator(5, integer=True))
        grid[row, 0].set_ylabel(architecture, fontsize=10, fontweight="bold")
        for axes in grid[row, : len(modes)]:
            axes.set_ylim(0, 1)
        _scale_losses(list(grid[row, len(modes) :]))
    figure.supxlabel("epoch (of gbt: round); marks: the epoch whose weights were kept", fontsize=9)
    seeds = dict.fromkeys(entry["seed"] for each in found for entry in each.model["seeds"])
    _legend(figure, list(seeds))
    return figure


def _draw_model(f1: Axes, loss: Axes, curves: Curves) -> None:
    failed = []
    for place, entry in enumerate(curves.model["seeds"]):
        colour, mark = SEED_STYLES[place % len(SEED_STYLES)]
        attempts = curves.of(entry["seed"])
        for rows in attempts:
            f1.plot(rows["epoch"], rows["val_macro_f1"], color=colour)
            loss.plot(rows["epoch"], rows["val_loss"], color=colour, linestyle=_VAL)
            loss.plot(rows["epoch"], rows["train_loss"], color=colour, linestyle=_TRAIN)
        panels = ((f1, "val_macro_f1"), (loss, "val_loss"))
        if entry["status"] != "ok":
            failed.append(str(entry["seed"]))
            for axes, column in panels:
                _mark(axes, attempts[-1].tail(1) if attempts else None, column, "x", colour)
        else:
            kept = curves.history.filter(seed=entry["seed"], epoch=entry["best_epoch"])
            for axes, column in panels:
                _mark(axes, kept.sort("val_macro_f1").tail(1), column, mark, colour)
    if failed:
        note = f"failed: {', '.join(failed)}"
        f1.text(0.5, 0.06, note, transform=f1.transAxes, ha="center", color="#b00000")


def _mark(axes: Axes, row: pl.DataFrame | None, column: str, mark: str, colour: str) -> None:
    """Set a mark at one epoch of a curve; nowhere if there is none."""
    if row is not None:
        axes.plot(row["epoch"], row[column], mark, color=colour, markersize=4)


def _scale_losses(panels: Sequence[Axes]) -> None:
    """One logarithmic scale for the losses of an architecture, with ticks that fit its span."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    for axes in panels:
        axes.set_yscale("log")
    drawn = [axes.get_ylim() for axes in panels if axes.has_data() and axes.get_ylim()[0] > 0]
    low, high = min((a for a, _ in drawn), default=0.1), max((b for _, b in drawn), default=1.0)
    ticks: tuple[float, ...] = (1,) if high > 100 * low else (1, 2, 5)
    if high < 8 * low:
        ticks = (1, 1.5, 2, 3, 5, 7)
    for axes in panels:
        axes.set_ylim(low, high)
        axes.yaxis.set_major_locator(LogLocator(subs=ticks))
        axes.yaxis.set_minor_locator(NullLocator())
        axes.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{y:g}"))


def _legend(figure: Figure, seeds: Sequence[int]) -> None:
    from matplotlib.lines import Line2D

    handles = [
        Line2D([], [], color=colour, marker=mark, label=f"seed {seed}")
        for seed, (colour, mark) in zip(seeds, SEED_STYLES * len(seeds), strict=False)
    ]
    kinds: list[tuple[str, Any, str]] = [("val", _VAL, ""), ("train", _TRAIN, "")]
    for label, line, mark in [*kinds, ("failed", "none", "x")]:
        handles.append(Line2D([], [], color="#555555", linestyle=line, marker=mark, label=label))
    figure.legend(handles=handles, loc="outside upper center", ncols=len(handles), frameon=False)
