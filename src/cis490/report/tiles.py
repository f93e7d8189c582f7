"""The few figures that the page leads with, each with its interval and what it rests on."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from cis490.evaluation.baselines import CLOCK, MODE
from cis490.report import transferred
from cis490.report.results import Detector, Figure, Results
from cis490.report.text import NOTHING, delay, hourly, interval, signed
from cis490.words import count


class Tile(NamedTuple):
    """A figure, its interval, and what it is."""

    figure: str
    between: str
    what: str


def tiles(results: Results) -> list[Tile]:
    """Of the detector that the answer is about; those that were measured."""
    leader, part = results.leader, results.part
    if leader is None or part is None:
        return []
    asked = [_tile(results.figure(leader, "macro_f1"), f"macro F1 of {leader} on {part}", interval)]
    if cost := transferred.cost(results):
        what = f"change of macro F1 of {cost.detector} on hosts never seen, all hosts"
        asked.append(_tile(cost.change, what, signed))
    elif part == "test":
        val = results.figure(leader, "macro_f1", part="val")
        asked.append(_tile(val, f"macro F1 of {leader} on val, which chose it", interval))
    clock = results.figure(Detector(CLOCK, MODE), "macro_f1")
    asked.append(_tile(clock, "macro F1 of window index alone", interval))
    caught = results.figure(leader, "caught", "alarm")
    asked.append(_tile(caught, "of infections raise an alarm", interval))
    waited = results.figure(leader, "delay_median_s", "alarm")
    asked.append(_tile(waited, "seconds to the alarm, median", delay))
    false = results.figure(leader, "false_alarms_per_hour", "alarm")
    asked.append(_tile(false, "false alarms an hour of clean time", hourly))
    return [tile for tile in asked if tile]


def _tile(figure: Figure | None, what: str, show: Callable[[Figure | None], str]) -> Tile | None:
    if figure is None or (text := show(figure)) == NOTHING:
        return None
    big, _, between = text.partition(" ")
    return Tile(big, between, f"{what}, n\u00a0=\u00a0{count(figure['n_episodes'], 'episode')}")
