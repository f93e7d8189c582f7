"""The live view of a run: stages as bars, running jobs, failures, and the time that is left."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from cis490.runs.estimate import Left
from cis490.runs.lines import tail
from cis490.runs.processes import Usage
from cis490.runs.state import Job, State
from cis490.words import about, count, duration, memory

_BAR: Final = 24
_FEWEST: Final = 3  # rows of running jobs and of failures that are always kept


class Screen:
    """Rewrites some lines at the bottom of a terminal; what is said goes above them.

    Args:
        terminal: descriptor of the terminal.
        folder: of the run, from which paths of logs count.
        colour: whether it may have colours.
    """

    def __init__(self, terminal: int, folder: Path, *, colour: bool = True) -> None:
        stream = os.fdopen(terminal, "w", encoding="utf-8", errors="replace", closefd=False)
        self._console = Console(
            file=stream, force_terminal=True, no_color=not colour or None, highlight=False
        )
        self._folder = folder
        self._live = Live(
            console=self._console,
            auto_refresh=False,
            transient=True,
            redirect_stdout=False,
            redirect_stderr=False,
        )
        self._live.start()
        self._console.show_cursor()  # a run that is killed must not leave a terminal without one

    def say(self, text: str) -> None:
        """Print text above the view, to stay."""
        self._console.print(Text.from_ansi(text), soft_wrap=True)

    def show(self, state: State, usage: Mapping[int, Usage], left: Left | None, now: float) -> None:
        """Draw the run as it stands."""
        width, height = self._console.size
        self._live.update(view(state, usage, left, now, self._folder, width, height), refresh=True)

    def close(self) -> None:
        """Take the view away."""
        self._live.stop()


def view(
    state: State,
    usage: Mapping[int, Usage],
    left: Left | None,
    now: float,
    folder: Path,
    width: int = 80,
    height: int = 24,
) -> RenderableType:
    """The lines of a view, no more than `height` allows.

    Where there is no room for a bar a stage, stages that are done share a line, then those that
    wait, then the longest-running jobs are kept.
    """
    stages = state.counts()
    done = [rule for rule, (n, _, _, planned) in stages.items() if n == planned]
    waiting = [rule for rule, (n, *begun, _) in stages.items() if not n and not any(begun)]
    room = height - 2  # the summary, and the line that the cursor stands on
    rest = min(len(state.running), _FEWEST) + min(len(state.failed), _FEWEST)
    shared: list[tuple[str, list[str]]] = []
    for name, rules in (("done", done), ("waiting", waiting)):
        if len(stages) + len(shared) + rest > room and len(rules) > 1:
            shared.append((name, rules))
            stages = {rule: counts for rule, counts in stages.items() if rule not in rules}
    room -= len(stages) + len(shared)
    n_failed = min(len(state.failed), max(room - min(len(state.running), _FEWEST), 1))
    rows: list[RenderableType] = [
        *(_shared(name, rules, state) for name, rules in shared[:1] if name == "done"),
        _bars(stages),
        *(_shared(name, rules, state) for name, rules in shared if name == "waiting"),
        *_running(state, usage, now, folder, max(room - n_failed, 1), width),
        *_failures(list(state.failed.values()), n_failed),
        _summary(state, left, now),
    ]
    return Group(*rows)


def _bars(stages: Mapping[str, tuple[int, int, int, int]]) -> RenderableType:
    table = Table.grid(padding=(0, 1))
    table.add_column(no_wrap=True)
    table.add_column(width=_BAR)
    table.add_column(justify="right", no_wrap=True)
    table.add_column(no_wrap=True)
    for rule, (done, running, failed, planned) in stages.items():
        style = "bold" if running else "" if done else "dim"
        bar = ProgressBar(
            total=planned,
            completed=done,
            width=_BAR,
            complete_style="red" if failed else "blue",
            finished_style="green",
        )
        notes = [f"{running} running"] if running else []
        notes += [f"{failed} failed"] if failed else []
        table.add_row(
            Text(rule, style=style),
            bar,
            Text(f"{done}/{planned}", style=style),
            Text(", ".join(notes), style="red" if failed else "dim"),
        )
    return table


def _shared(name: str, rules: list[str], state: State) -> Text:
    text = ", ".join(f"{rule} {state.planned[rule]}" for rule in rules)
    return Text(f"{name}: {text}", style="dim", no_wrap=True, overflow="ellipsis")


def _running(
    state: State, usage: Mapping[int, Usage], now: float, folder: Path, room: int, width: int
) -> list[Text]:
    longest = sorted(state.running.items(), key=lambda item: item[1].started)
    shown = longest if len(longest) <= room else longest[: max(room - 1, 1)]
    lines = []
    for number, job in shown:
        used = usage.get(number)
        parts = [duration(now - job.started), *([memory(used.bytes)] if used else [])]
        line = Text(no_wrap=True, overflow="ellipsis")
        line.append(f"{job}", style="bold").append(f"  {', '.join(parts)}")
        said = tail(folder / job.log[0], 1) if job.log else []
        if said and line.cell_len + 12 < width:
            line.append(f"  {said[0]}", style="dim")
        lines.append(line)
    if len(shown) < len(longest):
        lines.append(Text(f"and {len(longest) - len(shown)} more running", style="dim"))
    return lines


def _failures(failed: list[Job], room: int) -> list[Text]:
    shown = failed if len(failed) <= room else failed[: max(room - 1, 0)]
    lines = [
        Text(
            f"failed: {job}{f'  {job.log[0]}' if job.log else ''}",
            style="red",
            no_wrap=True,
            overflow="ellipsis",
        )
        for job in shown
    ]
    if len(shown) < len(failed):
        lines.append(Text(f"{len(failed) - len(shown)} failures more", style="red"))
    return lines


def _summary(state: State, left: Left | None, now: float) -> Text:
    parts = [
        f"{len(state.done):,} of {count(state.n_planned, 'job')}",
        f"{duration(now - (state.began or now))} so far",
    ]
    if left is not None:
        words = "at least" if left.at_least else "about"
        time = about(left.seconds)
        parts.append(f"{time} left" if time.startswith("under") else f"{words} {time} left")
    return Text(" · ".join(parts), style="bold", no_wrap=True, overflow="ellipsis")
