"""Numbers and tables as text that reads well in a terminal and as rendered Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from cis490.evaluation.breakdowns import CONTROL

NO_INTERVAL: Final = "no interval"
NOTHING: Final = "-"
# With fewer hosts than this there is no bootstrap over hosts (docs/statistics.md): each is named.
FEW_HOSTS: Final = 10
# With fewer episodes than this, paired tests on exchanged predictions called a fifth to a third of
# the pairs different at 5% (docs/decisions/log.md): no verdict is given.
FEW_EPISODES: Final = 20
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


def rate(figure: dict[str, Any] | None) -> str:
    """A rate with its interval, or, below 10/n, that it is not measurable, and what bounds it."""
    if figure is None:
        return NOTHING
    n, episodes = figure["n_windows"], figure["n_episodes"]
    if figure["estimate"] >= 10 / n:
        return interval(figure)
    # 3/n bounds a rate of which nothing was seen, in n independent trials: episodes, not windows.
    ends = f"3/n = {3 / episodes:.3f}"
    if figure["estimate"] > 0:
        ends = interval(figure).partition(" ")[2] or NO_INTERVAL
    return f"not measurable: {figure['estimate'] * n:.3g} of {n} windows, {ends}"


def p(value: float | None) -> str:
    """A p value to two digits."""
    return NOTHING if value is None else f"{value:.2g}"


def yes(value: bool | None) -> str:
    """A truth value for people; a dash where it cannot be said."""
    return NOTHING if value is None else "yes" if value else "no"


def count(n: int, noun: str) -> str:
    """`1 host`, `2 hosts`."""
    return f"{n:,} {noun}" if n == 1 else f"{n:,} {noun}s"


def listing(names: Sequence[str], nothing: str = "none") -> str:
    """`a, b and c`."""
    if len(names) < 2:
        return names[0] if names else nothing
    return f"{', '.join(names[:-1])} and {names[-1]}"


def profiles(names: Sequence[str], nothing: str = "none") -> str:
    """Profiles by name, the controls in words."""
    return listing([CONTROLS if name == CONTROL else name for name in names], nothing)


def hosts(names: Sequence[str], nothing: str = "none") -> str:
    """The hosts by name, or only how many if there are too many to read."""
    return listing(names, nothing) if len(names) < FEW_HOSTS else count(len(names), "host")
