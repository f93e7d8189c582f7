"""Where detectors work and where not: by phase, profile, sample, host, background and verdict."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from cis490.channels import PHASES
from cis490.evaluation.breakdowns import CONTROL
from cis490.report.blocks import Block, Section, Table
from cis490.report.headline import sample
from cis490.report.results import Detector, Results
from cis490.report.text import (
    FEW_IN_CELL,
    FEW_MARK,
    interval,
    listing,
    profiles,
    rate,
)
from cis490.words import count

CHAPTER: Final = "Where they work, and where not"

_N: Final = ("n_windows", "n_episodes", "n_valid_replicates")
_RATES: Final = ("precision", "recall", "f1")


def where(results: Results) -> list[Section]:
    """Breakdowns of a split in which something was scored."""
    return [
        _by_profile(results),
        _controls(results),
        _by_phase(results),
        *_confusions(results),
        _by_host(results),
        *_further(results),
    ]


def _breakdown(results: Results, scope: str, metric: str, keys: Sequence[str], noun: str) -> Table:
    shown = results.shown
    rows, grey = [], []
    for i, key in enumerate(keys):
        figures = [results.figure(detector, metric, scope, key) for detector in shown]
        # What a figure rests on is the truth's, the same for all detectors.
        n = next((figure for figure in figures if figure), dict.fromkeys(_N, 0))
        few = n["n_episodes"] < FEW_IN_CELL
        grey += [i] * few
        name = f"{key}{FEW_MARK * (few and n['n_episodes'] > 0)}"
        rows.append([name, *(f"{n[column]:,}" for column in _N), *map(interval, figures)])
    header = [noun, "windows", "episodes", "replicates", *map(str, shown)]
    return Table(header, rows, grey=grey)


def _few(table: Table) -> list[Block]:
    """What marked rows mean, if there are any."""
    marked = any(str(row[0]).endswith(FEW_MARK) for row in table.rows)
    return [
        f"{FEW_MARK.strip()} fewer than {FEW_IN_CELL} episodes: no basis for a verdict."
    ] * marked


def _by_phase(results: Results) -> Section:
    measured = results.keys("phase", "f1")
    phases = [phase for phase in PHASES if phase in measured]
    if not results.shown:
        return Section(CHAPTER, "By phase", ["Nothing to show: no detector has a figure."])
    blocks: list[Block] = [f"F1, {sample(results)}."]
    table = _breakdown(results, "phase", "f1", phases, "phase")
    blocks += [table, *_few(table)]
    if absent := [phase for phase in PHASES if phase not in measured]:
        blocks += [f"No window of this part is {listing(absent, last='or')}: not part of macro F1."]
    if best := results.leader:
        rows = [
            [phase, *(interval(results.figure(best, name, "phase", phase)) for name in _RATES)]
            for phase in phases
        ]
        blocks += [f"Of {best}, the best by val:", Table(["phase", *_RATES], rows)]
    return Section(CHAPTER, "By phase", blocks)


def _by_profile(results: Results) -> Section:
    named = results.keys("profile", "macro_f1")
    blocks: list[Block] = [
        f"Macro F1 over the phases that the profile's windows have, {sample(results)}."
    ]
    untested = [] if results.part == "val" else results.split["untested_profiles"]
    table = _breakdown(results, "profile", "macro_f1", [*named, *untested], "profile")
    blocks += [table, *_few(table)]
    if untested:
        blocks += [f"Untested, for want of a test episode: {profiles(untested)}."]
    single = [
        profile
        for profile in [*named, *results.keys("profile", "false_alarm_rate")]
        if results.n_of_profile(profile) == 1
    ]
    if single:
        blocks += [
            f"A single episode of {listing(single)}: resampling within the profile cannot move it, "
            "so it adds nothing to the width of any interval.",
        ]
    return Section(CHAPTER, "By profile", blocks, ("profiles",))


def _controls(results: Results) -> Section:
    rows = [
        [*detector, rate(results.figure(detector, "false_alarm_rate", "profile", CONTROL))]
        for detector in results.everyone
    ]
    heading = "False alarms on controls"
    if not results.keys("profile", "false_alarm_rate"):
        return Section(CHAPTER, heading, ["Not measured: no control episode in this part."])
    figure = results.figure(results.everyone[0], "false_alarm_rate", "profile", CONTROL) or {}
    blocks: list[Block] = [
        f"{results.part}: {count(figure['n_windows'], 'window')} of "
        f"{count(figure['n_episodes'], 'control episode')}. Share of windows called infecting, "
        "infected_running or dormant. A rate below 10/n is not measurable.",
        Table(["detector", "mode", "false-alarm rate"], rows, align="ll"),
    ]
    return Section(CHAPTER, heading, blocks)


def _by_host(results: Results) -> Section:
    names = results.keys("host", "macro_f1")
    table = _breakdown(results, "host", "macro_f1", names, "host")
    return Section(CHAPTER, "By host", [f"Macro F1, {sample(results)}.", table, *_few(table)])


def _confusions(results: Results) -> list[Section]:
    """A matrix for the best of each mode by val."""
    return [
        _confusion(results, best, mode) for mode in results.modes if (best := results.best(mode))
    ]


def _confusion(results: Results, best: Detector, mode: str) -> Section:
    content = results.summary(best)["confusion"]
    labels, counts = content["labels"], content["counts"]
    seen = [i for i in range(len(labels)) if any(counts[i]) or any(row[i] for row in counts)]
    rows = [[labels[i], *(f"{counts[i][j]:,}" for j in seen)] for i in seen]
    seeds = "" if content["n_seeds"] == 1 else f", summed over {content['n_seeds']} seeds"
    blocks: list[Block] = [
        f"Windows, {sample(results)}{seeds}. Truth in rows, prediction in columns.",
        Table(["truth", *(labels[i] for i in seen)], rows),
    ]
    heading = f"Confusion matrix of {best}, the best by val"
    return Section(CHAPTER, heading, blocks, (f"confusion_{mode}",))


# Scope in metrics.parquet: heading, noun of its keys, what a cell is.
_SCOPES: Final = {
    "sample": ("By sample", "profile/sample", "of one program within its profile"),
    "background": ("By background work", "background", "with that benign work beside it"),
    "status": ("Degraded or not", "verdict", "with that verdict (degraded: a source is missing)"),
}


def _further(results: Results) -> list[Section]:
    """By sample, by background work, by verdict: those that the tables have."""
    found = []
    for scope, (heading, noun, what) in _SCOPES.items():
        blocks: list[Block] = []
        for metric, words in (
            ("macro_f1", "Macro F1"),
            ("false_alarm_rate", "Share of control windows that raise a false alarm,"),
        ):
            if keys := results.keys(scope, metric):
                table = _breakdown(results, scope, metric, keys, noun)
                blocks += [f"{words} of episodes {what}; {sample(results)}.", table, *_few(table)]
        if blocks:
            found.append(Section(CHAPTER, heading, blocks))
    return found
