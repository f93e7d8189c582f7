"""Numbers and tables as text that reads well in a terminal and as rendered Markdown."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Final

from cis490.evaluation.breakdowns import CONTROL
from cis490.words import count

NO_INTERVAL: Final = "no interval"
NOTHING: Final = "-"
NOT_MEASURABLE: Final = "not measurable"
# With fewer hosts than this there is no bootstrap over hosts (docs/statistics.md): each is named.
FEW_HOSTS: Final = 10
# With fewer episodes than this, paired tests on exchanged predictions called a fifth to a third of
# the pairs different at 5% (docs/decisions/log.md): no verdict is given.
FEW_EPISODES: Final = 20
# A cell of a breakdown with fewer episodes is shown, marked and greyed.
FEW_IN_CELL: Final = 5
FEW_MARK: Final = " (few)"
# The benign controls, as a profile's name: "none" alone would read as "no profile".
CONTROLS: Final = "controls (profile none)"


def interval(figure: dict[str, Any] | None) -> str:
    """`0.873 [0.861, 0.884]`; a dash for what was not measured."""
    if figure is None or figure["estimate"] is None:
        return NOTHING
    if figure["low"] is None:
        return f"{figure['estimate']:.3f} [{NO_INTERVAL}]"
    return f"{figure['estimate']:.3f} [{figure['low']:.3f}, {figure['high']:.3f}]"


def difference(pair: dict[str, Any] | None) -> str:
    """`+0.213 [+0.150, +0.280]`; a dash where two detectors were not compared."""
    if pair is None:
        return NOTHING
    if pair["low"] is None:
        return f"{pair['diff']:+.3f} [{NO_INTERVAL}]"
    return f"{pair['diff']:+.3f} [{pair['low']:+.3f}, {pair['high']:+.3f}]"


def signed(figure: dict[str, Any] | None) -> str:
    """As `difference`, of a row whose estimate is one; it may be not measurable."""
    if figure is not None and figure["estimate"] is None:
        return NOT_MEASURABLE
    return difference(figure and {**figure, "diff": figure["estimate"]})


def near_one(share: float) -> str:
    """A share to three digits, and near 1 its distance from it to two."""
    return f"1 - {1 - share:.1e}" if 0.999 < share < 1 else f"{share:.3g}"


def rate(figure: dict[str, Any] | None) -> str:
    """A rate with its interval, or, below 10/n, that it is not measurable, and what bounds it."""
    if figure is None:
        return NOTHING
    n, episodes = figure["n_windows"], figure["n_episodes"]
    if figure["estimate"] >= 10 / n:
        return interval(figure)
    # 3/n bounds a rate of which nothing was seen, in n independent trials: episodes, not windows.
    ends = f"3/n = {3 / episodes:.3f}" if episodes > 3 else "too few episodes for a bound"
    if figure["estimate"] > 0:
        ends = interval(figure).partition(" ")[2] or NO_INTERVAL
    return f"not measurable: {figure['estimate'] * n:.3g} of {n} windows, {ends}"


def p(value: float | None) -> str:
    """A p value to two digits."""
    return NOTHING if value is None else f"{value:.2g}"


def yes(value: bool | None) -> str:
    """A truth value for people; a dash where it cannot be said."""
    return NOTHING if value is None else "yes" if value else "no"


def listing(names: Sequence[str], nothing: str = "none", *, last: str = "and") -> str:
    """`a, b and c`."""
    if len(names) < 2:
        return names[0] if names else nothing
    return f"{', '.join(names[:-1])} {last} {names[-1]}"


def grouped(reasons: Sequence[tuple[Any, str | None]]) -> list[tuple[str, str]]:
    """Who shares a reason, and the reason; those without one are left out."""
    who: dict[str, list[str]] = {}
    for name, reason in reasons:
        if reason:
            who.setdefault(reason, []).append(str(name))
    return [(listing(names), reason) for reason, names in who.items()]


def profiles(names: Sequence[str], nothing: str = "none") -> str:
    """Profiles by name, the controls in words."""
    return listing([CONTROLS if name == CONTROL else name for name in names], nothing)


def hosts(names: Sequence[str], nothing: str = "none") -> str:
    """The hosts by name, or only how many if there are too many to read."""
    return listing(names, nothing) if len(names) < FEW_HOSTS else count(len(names), "host")


def delay(figure: dict[str, Any] | None) -> str:
    """Seconds with their interval; where a figure lies among the infections missed, it says so."""
    if figure is None or figure["estimate"] is None:
        return NOTHING
    if figure["low"] is None:
        return f"{_seconds(figure['estimate'])} [{NO_INTERVAL}]"
    ends = f"[{_seconds(figure['low'])}, {_seconds(figure['high'])}]"
    return f"{_seconds(figure['estimate'])} {ends}"


def _seconds(value: float) -> str:
    return f"{value:.1f}" if math.isfinite(value) else "missed"


def hourly(figure: dict[str, Any] | None) -> str:
    """A rate by the hour with its interval."""
    if figure is None or figure["estimate"] is None:
        return NOTHING
    if figure["low"] is None:
        return f"{figure['estimate']:.2f} [{NO_INTERVAL}]"
    return f"{figure['estimate']:.2f} [{figure['low']:.2f}, {figure['high']:.2f}]"


def small(figure: dict[str, Any] | None) -> str:
    """As `measured`, to two digits however small it is."""
    if figure is None or figure["estimate"] is None or figure["low"] is None:
        return measured(figure)
    return f"{figure['estimate']:.2g} [{figure['low']:.2g}, {figure['high']:.2g}]"


def measured(figure: dict[str, Any] | None) -> str:
    """As `interval`; a figure that has a row but no value is not measurable."""
    if figure is not None and figure["estimate"] is None:
        return NOT_MEASURABLE
    return interval(figure)
