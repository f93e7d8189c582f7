"""What a machine never seen costs: in-host beside cross-host, of each host in turn."""

from __future__ import annotations

from typing import Final, NamedTuple

from cis490.report.blocks import Block, Section, Table
from cis490.report.results import Detector, Figure, Results
from cis490.report.style import (
    LINE,
    PAPER,
    ROW,
    SMALL,
    SOFT,
    WIDTH,
    Canvas,
    drawing,
    label,
    mode_colour,
    text_width,
)
from cis490.report.svg import Picture
from cis490.report.text import FEW_HOSTS, NOTHING, interval, listing, signed
from cis490.transfer import SIDES
from cis490.words import count

CHAPTER: Final = "How the detectors compare"
HEADING: Final = "Machines that it knows, and machines never seen"
_SCOPE: Final = "transfer"
_ALL: Final = "all"
_TOP: Final = 40
_COLUMN: Final = 62
_APART: Final = 0.17  # of a row: how far the sides' marks lie from its middle


class Moved(NamedTuple):
    """A host by one detector: macro F1 of models that know it and of models that do not."""

    detector: Detector
    host: str
    in_host: Figure | None
    cross_host: Figure | None
    change: Figure | None

    @property
    def n_episodes(self) -> int:
        """What both figures rest on."""
        return next((f["n_episodes"] for f in (self.in_host, self.cross_host) if f), 0)


def moved(results: Results) -> list[Moved]:
    """Every detector and host, realistic first, gbt before the network, all hosts last."""
    rows = results.metrics.filter(scope=_SCOPE, metric="macro_f1")
    pairs = {Detector(*name) for name in rows.select("model", "mode").rows()}
    detectors = sorted(
        pairs, key=lambda each: (results.modes.index(each.mode), each.model != "gbt", each)
    )
    hosts = sorted(set(rows["key"]), key=lambda name: (name == _ALL, name))
    found = []
    for detector in detectors:
        for host in hosts:
            known, unknown = (
                results.figure(detector, "macro_f1", _SCOPE, host, side) for side in SIDES
            )
            change = results.figure(detector, "macro_f1_change", _SCOPE, host, SIDES[1])
            found.append(Moved(detector, host, known, unknown, change))
    return found


def cost(results: Results) -> Moved | None:
    """What hosts never seen cost over all hosts: the leader, or else the first that was tried.

    None where there is no difference: not computed, or of one host.
    """
    found = [each for each in moved(results) if each.host == _ALL and each.change]
    own = [each for each in found if each.detector == results.leader]
    return next(iter([*own, *found]), None)


def bullet(results: Results) -> list[str]:
    """The same in a sentence, with each host."""
    of = cost(results)
    if of is None:
        return []
    hosts = [
        f"{each.host} {signed(each.change)}"
        for each in moved(results)
        if each.detector == of.detector and each.host != _ALL and each.change
    ]
    each_host = f" ({'; '.join(hosts)})" if len(hosts) < FEW_HOSTS else ""
    return [
        f"**On hosts never seen** macro F1 of {of.detector} changes by {signed(of.change)}"
        f"{each_host}: learned with other episodes of the host it is {interval(of.in_host)} on the "
        f"same {count(of.n_episodes, 'episode')}."
    ]


def headline(results: Results) -> list[Block]:
    """The table of the first mode, for the first screen; nothing where it was not computed."""
    rows = [each for each in moved(results) if each.detector.mode == results.modes[0]]
    if not rows:
        return []
    return [_about(results), _table(rows)]


def transferred(results: Results) -> Section:
    """All modes, with what the figures rest on."""
    if _SCOPE not in results.told:
        why = "Not computed: there is no transfer.parquet for this split (`transfer.run`)."
        return Section(CHAPTER, HEADING, [why])
    told, rows = results.told[_SCOPE], moved(results)
    blocks: list[Block] = [_about(results)]
    if rows:
        blocks.append(_table(rows))
        sizes = [
            f"{Detector(*name.rsplit('_', 1))} {_between(of)}" for name, of in told["sizes"].items()
        ]
        blocks.append(f"Episodes that a training learned from: {'; '.join(sizes)}.")
    if rows and all(each.cross_host is None for each in rows):
        blocks.append("Cross-host is not measurable: there is one host, or every training failed.")
    blocks += [
        f"Failed: {Detector(*name.rsplit('_', 1))}: {'; '.join(why)}."
        for name, why in told["failed"].items()
    ]
    return Section(CHAPTER, HEADING, blocks, ("transfer",))


def _between(sizes: dict[str, list[int]]) -> str:
    of = [
        f"{side.replace('_', '-')} {low}" + (f" to {high}" if high > low else "")
        for side, (low, high) in sizes.items()
    ]
    return listing(of)


def _about(results: Results) -> str:
    told = results.told[_SCOPE]
    return (
        "In-host: by models that learned from other episodes of the host, folds by episode over "
        "all hosts. Cross-host: by models that learned from the other hosts alone. Both on the "
        f"same {count(int(told['n_scored']), 'episode')} (of {told['n_usable']} usable), one "
        "training each, differences paired. Hosts differ in what can be told on them: compare "
        "along a row, not down a column."
    )


def _table(rows: list[Moved]) -> Table:
    cells = [
        [
            *(_host(each.host), str(each.detector), f"{each.n_episodes:,}"),
            *(interval(figure) for figure in (each.in_host, each.cross_host)),
            signed(each.change) if each.change else NOTHING,
        ]
        for each in rows
    ]
    header = ["host", "detector", "episodes", "in-host", "cross-host", "cross-host - in-host"]
    return Table(header, cells, align="ll")


def _host(name: str) -> str:
    return "all hosts" if name == _ALL else name


def picture(results: Results) -> Picture:
    """A row a host, its two figures joined; a block a detector."""
    title = "What a machine never seen costs"
    rows = moved(results)
    if not rows:
        return Picture(title, "In-host and cross-host were not computed for this split.", None)
    with drawing():
        canvas = _draw(rows)
    return Picture(
        title,
        "Macro F1 of each host by models that know other episodes of it (filled) and by models "
        "that do not know the host (hollow), on the same "
        f"{count(int(results.told[_SCOPE]['n_scored']), 'episode')}; bars are 95% intervals of a "
        "bootstrap over episodes. One training a fold.",
        canvas.figure,
    )


def _draw(rows: list[Moved]) -> Canvas:
    names = [label(_host(each.host)) for each in rows]
    counts = [f"n = {each.n_episodes}" for each in rows]
    beside = max(text_width(text, SMALL) for text in counts) + 10
    left = 24 + beside + max(text_width(name) for name in names)
    blocks = list(dict.fromkeys(each.detector for each in rows))
    lines = len(rows) + len(blocks)
    canvas = Canvas.of(WIDTH, _TOP + ROW * lines + 24)
    axes = canvas.axes(left, _TOP, WIDTH - left - 2 * _COLUMN - 4, ROW * lines)
    axes.set_xlim(0, 1)
    axes.set_ylim(lines, 0)
    axes.set_xticks([0, 0.5, 1], ["0", "0.5", "1"])
    axes.grid(axis="x")
    axes.set_yticks([])
    for side in ("left", "bottom"):
        axes.spines[side].set_visible(False)
    for column, head in enumerate(("in-host", "cross-host")):
        x = WIDTH - _COLUMN * (1 - column) - 4
        canvas.text(x, _TOP - 14, head, ha="right", va="center", size=SMALL, color=SOFT)
    line = 0
    for place, each in enumerate(rows):
        colour = mode_colour(each.detector.mode)
        if each.host == rows[0].host:
            y = _TOP + ROW * (line + 0.55)
            canvas.text(
                14, y, str(each.detector), ha="left", va="center", weight="bold", color=colour
            )
            if line:
                axes.axhline(line, color=LINE, linewidth=1)
            line += 1
        y = _TOP + ROW * (line + 0.5)
        canvas.text(left - 10 - beside, y, names[place], ha="right", va="center")
        canvas.text(left - 10, y, counts[place], ha="right", va="center", size=SMALL, color=SOFT)
        both = [figure for figure in (each.in_host, each.cross_host) if figure]
        if len(both) == 2:
            ends = [figure["estimate"] for figure in both]
            axes.plot(ends, [line + 0.5 - _APART, line + 0.5 + _APART], color=SOFT, linewidth=0.8)
        for column, figure in enumerate((each.in_host, each.cross_host)):
            text = f"{figure['estimate']:.3f}" if figure else NOTHING
            x = WIDTH - _COLUMN * (1 - column) - 4
            canvas.text(x, y, text, ha="right", va="center", size=SMALL, color=colour)
            if figure is None:
                continue
            at = line + 0.5 + _APART * (2 * column - 1)
            if figure["low"] is not None:
                axes.plot([figure["low"], figure["high"]], [at, at], color=colour, linewidth=2)
            face = PAPER if column else colour
            axes.plot(figure["estimate"], at, "o", color=colour, markerfacecolor=face, markersize=6)
        line += 1
    return canvas
