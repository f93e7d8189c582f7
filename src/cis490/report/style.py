"""How pictures look: sizes, colours and fonts, the same in all of them.

A picture is drawn in the light colours of `PALETTE`; where it stands within a page, each of them
becomes a CSS variable (`report.svg`), so that one drawing serves a light page and a dark one.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, Final, TypeVar

from cis490.markdown import one_line
from cis490.report.blocks import legal

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# One unit of a drawing is a CSS pixel on a page; a phone of 390 pixels shows this width at 6/7.
WIDTH: Final = 420
TEXT: Final = 11.5
SMALL: Final = 10.5
ROW: Final = 24  # of a list or a matrix, with its air
_LONGEST: Final = 24  # characters of a name

# Name: on white, on dark. The hues are those of Okabe and Ito (2008), told apart with any colour
# vision; where they also colour text they are darkened to a contrast of 4.5 on white.
PALETTE: Final[dict[str, tuple[str, str]]] = {
    "paper": ("#ffffff", "#14171b"),
    "ink": ("#1b1f24", "#e9ebee"),
    "soft": ("#5b636d", "#a8b0ba"),
    "line": ("#dfe3e8", "#363d46"),
    "faint": ("#f2f4f6", "#1e2329"),
    "realistic": ("#0068a6", "#5cb8ee"),
    "oracle": ("#b84a00", "#ff9248"),
    "alarm": ("#a3195b", "#ff7fb5"),
    # Phases, from harmless to harmful.
    "clean": ("#cfd5dc", "#48505a"),
    "armed": ("#f3d573", "#76631b"),
    "infecting": ("#eda247", "#8f570d"),
    "infected": ("#d9744f", "#9c4020"),
    "dormant": ("#c79bbd", "#84587a"),
    # Shades of a matrix, from nothing to all, and text on the three strongest.
    "shade0": ("#eef4fa", "#1f2832"),
    "shade1": ("#ceddeb", "#2e3e4e"),
    "shade2": ("#adc6dd", "#3c556a"),
    "shade3": ("#8dafce", "#4b6b85"),
    "shade4": ("#6c98c0", "#4f748f"),
    "shade5": ("#4c81b1", "#6898bd"),
    "shade6": ("#2b6aa3", "#77afd8"),
    "shade7": ("#0b5394", "#86c5f4"),
    "over": ("#fffffe", "#0f1318"),
    # Seeds and lines of the training curves, which have a legend of their own.
    "black": ("#000000", "#e9ebee"),
    "seed1": ("#0072b2", "#5cb8ee"),
    "seed2": ("#d55e00", "#ff8a3d"),
    "seed3": ("#009e73", "#2cc799"),
    "seed4": ("#cc79a7", "#e29bc2"),
    "seed5": ("#e69f00", "#f5bd3d"),
    "seed6": ("#56b4e9", "#a5dcf8"),
    "grid": ("#e5e5e5", "#30363e"),
    "legend": ("#555555", "#b0b6be"),
    "failed": ("#b00000", "#ff8080"),
}
INK, SOFT, LINE, FAINT = (PALETTE[name][0] for name in ("ink", "soft", "line", "faint"))
PAPER, OVER, ALARM = (PALETTE[name][0] for name in ("paper", "over", "alarm"))
SHADES: Final = tuple(PALETTE[f"shade{i}"][0] for i in range(8))
PHASE_COLOURS: Final = {
    "clean": PALETTE["clean"][0],
    "armed": PALETTE["armed"][0],
    "infecting": PALETTE["infecting"][0],
    "infected_running": PALETTE["infected"][0],
    "dormant": PALETTE["dormant"][0],
}


def mode_colour(mode: str) -> str:
    """The colour of a mode; company without one is grey."""
    return PALETTE[mode][0] if mode in PALETTE else SOFT


def shade(share: float) -> tuple[str, str]:
    """Fill and text colour of a matrix cell, for a value in [0, 1]."""
    level = min(int(share * len(SHADES)), len(SHADES) - 1)
    return SHADES[level], INK if level < 5 else OVER


_RC: Final[dict[Any, Any]] = {
    "svg.hashsalt": "cis490",  # ids within a picture are the same each time
    "text.parse_math": False,  # a profile's name may hold a dollar sign
    "svg.fonttype": "none",  # text stays text: read aloud, found, and in the page's own font
    "figure.dpi": 72,  # so that a point is one unit of the SVG
    "figure.facecolor": PAPER,
    "axes.facecolor": "none",
    "font.size": TEXT,
    "text.color": INK,
    "axes.labelcolor": SOFT,
    "axes.labelsize": TEXT,
    "axes.edgecolor": LINE,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "grid.color": LINE,
    "grid.linewidth": 0.8,
    "xtick.color": LINE,
    "ytick.color": LINE,
    "xtick.labelcolor": SOFT,
    "ytick.labelcolor": SOFT,
    "xtick.labelsize": SMALL,
    "ytick.labelsize": SMALL,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "xtick.major.pad": 5,
    "ytick.major.pad": 5,
    "lines.linewidth": 1.8,
    "lines.solid_capstyle": "round",
}


@contextmanager
def drawing() -> Iterator[None]:
    """Within it pictures are drawn and written in this style, whatever a matplotlibrc says."""
    import matplotlib as mpl

    with mpl.rc_context(), warnings.catch_warnings():
        # A letter that matplotlib's font lacks has no measure; the page's font may have it.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        mpl.rcdefaults()
        mpl.rcParams.update(_RC)
        yield


@dataclass(frozen=True)
class Canvas:
    """A figure measured in units from its upper left corner."""

    width: float
    height: float
    figure: Figure

    @classmethod
    def of(cls, width: float, height: float) -> Canvas:
        """An empty one."""
        from matplotlib.figure import Figure

        return cls(width, height, Figure(figsize=(width / 72, height / 72)))

    def axes(self, left: float, top: float, width: float, height: float) -> Axes:
        """Axes at a place."""
        w, h = self.width, self.height
        return self.figure.add_axes((left / w, 1 - (top + height) / h, width / w, height / h))

    def text(self, x: float, y: float, text: str, **style: Any) -> None:
        """Text at a place."""
        self.figure.text(x / self.width, 1 - y / self.height, text, **style)


def label(name: str) -> str:
    """A name from outside as pictures show it: on one line, not too long."""
    line = legal(one_line(name))
    return line if len(line) <= _LONGEST else f"{line[: _LONGEST - 1]}…"


@cache
def text_width(text: str, size: float = TEXT, weight: str = "normal") -> float:
    """How wide a text is in matplotlib's own font, which is wider than most that a page has."""
    from matplotlib.font_manager import FontProperties
    from matplotlib.textpath import text_to_path

    font = FontProperties(family="DejaVu Sans", size=size, weight=weight)
    width, *_ = text_to_path.get_text_width_height_descent(text, font, ismath=False)
    return float(width)


T = TypeVar("T")


def spread(ends: Sequence[tuple[float, T]], step: float) -> list[tuple[float, T]]:
    """Labels beside the ends of their lines, in [0, 1], moved apart as little as may be.

    Args:
        ends: where each line ends, and its name; a tie goes by name.
        step: how far apart two labels are, at least.

    Returns:
        As `ends`, rising.
    """
    import numpy as np
    from scipy.optimize import isotonic_regression

    ordered = sorted(ends, key=lambda end: (end[0], str(end[1])))
    room = step * np.arange(len(ordered))
    # What is left of each place without the room that it keeps must not fall: the nearest such
    # places in the sense of least squares are those of isotonic regression.
    free = isotonic_regression([y for y, _ in ordered] - room).x if ordered else room
    places = np.clip(free, 0, max(0.0, 1 - step * (len(ordered) - 1))) + room
    return [(float(y), name) for y, (_, name) in zip(places, ordered, strict=True)]
