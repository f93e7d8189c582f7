"""Where time and memory went, and when: pictures of a results folder and of its last run."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from cis490 import files
from cis490.errors import ConfigError
from cis490.report.style import ALARM, LINE, ROW, SHADES, SMALL, SOFT, Canvas, drawing, text_width
from cis490.report.svg import Picture, write_picture
from cis490.runs.state import Job, State
from cis490.runs.times import NOTHING, Rule, Times
from cis490.words import duration, memory

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_WIDTH: Final = 640
_TOP: Final = 44
_FOOT: Final = 34
_NUMBERS: Final = 66  # beside a bar
_WALL, _CPU, _MEMORY = SHADES[2], SHADES[6], SHADES[4]
_FORMATS: Final = (".svg", ".png", ".pdf")


def write(picture: Picture, path: Path) -> None:
    """Write a picture in the format that the name asks for.

    Raises:
        ConfigError: the name ends in none of the formats.
    """
    if path.suffix == ".svg":
        write_picture(picture, path)
        return
    if path.suffix not in _FORMATS or picture.figure is None:
        raise ConfigError(f"{path}: a picture's name ends in {', '.join(_FORMATS)}")
    with files.replacing(path) as partial, drawing():
        picture.figure.savefig(partial, format=path.suffix[1:], dpi=144)


def costs(times: Times) -> Picture:
    """A row a rule: wall and processor time of its jobs, and the most memory that one took."""
    rules = times.rules()
    with drawing():
        canvas = _draw_costs(rules)
    total, cpu, ran = times.busy()
    return Picture(
        "Where time and memory went",
        f"{len(times.timed):,} jobs, {duration(total)} one after the other, at least "
        f"{duration(cpu)} of processor time, {duration(ran)} in which any ran.",
        canvas.figure,
    )


def _draw_costs(rules: Sequence[Rule]) -> Canvas:
    names = [f"{rule.name} ({rule.n:,})" for rule in rules]
    left = 14 + max(text_width(name) for name in names)
    panel = (_WIDTH - left - 2 * _NUMBERS - 24) / 2
    canvas = Canvas.of(_WIDTH, _TOP + ROW * len(rules) + 10)
    time = _panel(canvas, left, panel, len(rules))
    peak = _panel(canvas, left + panel + _NUMBERS + 24, panel, len(rules))
    time.set_xlim(0, max(max(rule.seconds, rule.cpu_seconds or 0) for rule in rules) or 1)
    peak.set_xlim(0, max(rule.peak_bytes or 0 for rule in rules) or 1)
    head = {"va": "center", "size": SMALL, "weight": "bold"}
    at = left
    for text, colour in (("wall", SHADES[4]), (" and ", SOFT), ("processor time", _CPU)):
        canvas.text(at, _TOP - 14, text, color=colour, **head)
        at += text_width(text, SMALL, "bold")
    canvas.text(left + panel + _NUMBERS + 24, _TOP - 14, "peak memory of a job", color=SOFT, **head)
    for row, (name, rule) in enumerate(zip(names, rules, strict=True)):
        y = _TOP + ROW * (row + 0.5)
        canvas.text(left - 10, y, name, ha="right", va="center")
        time.barh(row + 0.5, rule.seconds, 0.62, color=_WALL)
        time.barh(row + 0.5, rule.cpu_seconds or 0, 0.3, color=_CPU)
        peak.barh(row + 0.5, rule.peak_bytes or 0, 0.62, color=_MEMORY)
        ends = {"va": "center", "size": SMALL, "color": SOFT}
        canvas.text(left + panel + 6, y, duration(rule.seconds), **ends)
        said = memory(rule.peak_bytes) if rule.peak_bytes else NOTHING
        canvas.text(left + 2 * panel + _NUMBERS + 30, y, said, **ends)
    return canvas


def _panel(canvas: Canvas, left: float, width: float, rows: int) -> Axes:
    axes = canvas.axes(left, _TOP, width, ROW * rows)
    axes.set_ylim(rows, 0)
    axes.set_yticks([])
    axes.set_xticks([])
    axes.spines["bottom"].set_visible(False)
    return axes


def timeline(state: State | None) -> Picture:
    """When each job of a run ran, a row a rule in the order of the data."""
    title = "When each job of the last run ran"
    jobs = [*state.done, *state.failed.values()] if state else []
    jobs = [job for job in jobs if job.ended is not None and not job.final]
    if state is None or not jobs:
        return Picture(
            title, "There is no journal of a run with a job that ended: see docs/watching.md.", None
        )
    with drawing():
        canvas = _draw_timeline(state, jobs)
    return Picture(
        title,
        "A bar a job; jobs of a rule that ran side by side lie one above the other. Jobs that "
        "failed are marked.",
        canvas.figure,
    )


def _draw_timeline(state: State, jobs: Sequence[Job]) -> Canvas:
    of: dict[str, list[Job]] = defaultdict(list)
    for job in sorted(jobs, key=lambda job: job.started):
        of[job.rule].append(job)
    rules = [rule for rule in state.planned if of[rule]]
    failed = list(state.failed.values())
    began = min(state.began or jobs[0].started, *(job.started for job in jobs))
    until = max(job.ended or 0 for job in jobs) - began
    scale, unit = (60, "minutes") if until >= 180 else (1, "seconds")
    scale, unit = (3600, "hours") if until >= 3 * 3600 else (scale, unit)
    left = 14 + max(text_width(rule) for rule in rules)
    canvas = Canvas.of(_WIDTH, _TOP - 24 + ROW * len(rules) + _FOOT)
    axes = canvas.axes(left, _TOP - 24, _WIDTH - left - 16, ROW * len(rules))
    axes.set_xlim(0, (until or 1) / scale)
    axes.set_ylim(len(rules), 0)
    axes.set_yticks([])
    axes.grid(axis="x")
    axes.set_xlabel(f"{unit} since the start")
    least = (until or 1) / scale / axes.get_window_extent().width  # what can be seen
    for row, rule in enumerate(rules):
        canvas.text(left - 10, _TOP - 24 + ROW * (row + 0.5), rule, ha="right", va="center")
        axes.axhline(row + 1, color=LINE, linewidth=0.6)
        lanes = _lanes(of[rule])
        height = 0.8 / (max(lanes) + 1)
        bars: dict[tuple[int, str], list[tuple[float, float]]] = defaultdict(list)
        for job, lane in zip(of[rule], lanes, strict=True):
            span = (job.started - began) / scale, _took(job) / scale
            colour = ALARM if job in failed else _CPU
            bars[lane, colour].append((span[0], max(span[1], least)))
        for (lane, colour), spans in bars.items():
            place = (row + 0.1 + height * (lane + 0.07), height * 0.86)
            axes.broken_barh(spans, place, color=colour, linewidth=0)
    if failed:
        canvas.text(_WIDTH - 16, 9, "failed", ha="right", va="center", size=SMALL, color=ALARM)
    return canvas


def _took(job: Job) -> float:
    return (job.ended or job.started) - job.started


def _lanes(jobs: Sequence[Job]) -> list[int]:
    """For each job, in the order of their starts, the first lane that is free."""
    free: list[float] = []
    lanes = []
    for job in jobs:
        lane = next((i for i, until in enumerate(free) if until <= job.started), len(free))
        free[lane : lane + 1] = [job.ended or job.started]
        lanes.append(lane)
    return lanes
