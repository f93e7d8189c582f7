"""Detection in time: alarms, recall since infection, ranking, precision at realistic base rates."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from cis490.report.blocks import Block, Section, Table
from cis490.report.headline import sample
from cis490.report.names import RANKS
from cis490.report.results import Detector, Figure, Results
from cis490.report.since import SCOPE, seconds_of
from cis490.report.text import (
    FEW_IN_CELL,
    FEW_MARK,
    NOTHING,
    delay,
    grouped,
    hourly,
    interval,
    listing,
    measured,
    small,
)
from cis490.words import count

CHAPTER: Final = "How soon they raise an alarm"

Shown = Callable[[Figure | None], str]
_NOT_COMPUTED: Final = "Not computed: there is no detection.parquet for this split."


def detected(results: Results) -> list[Section]:
    """Alarms and ranking of a split in which something was scored."""
    if "detection" not in results.told:
        return [Section(CHAPTER, "Alarms", [_NOT_COMPUTED])]
    return [
        _alarms(results),
        _since(results),
        _timelines(),
        _ranking(results),
        _base_rates(results),
    ]


def _table(
    results: Results,
    scope: str,
    columns: Sequence[tuple[str, str, str, Shown]],
    chosen: Sequence[Detector],
) -> Table:
    """A row a detector; a column is its header, a key, a metric and how its figure is shown."""
    rows = [
        [
            str(detector),
            *(
                show(results.figure(detector, metric, scope, key))
                for _, key, metric, show in columns
            ),
        ]
        for detector in chosen
    ]
    return Table(["detector", *(name for name, *_ in columns)], rows)


def _n(results: Results, metric: str, scope: str, key: str) -> Figure | None:
    """Any detector's row, for what it rests on: that is the truth's, the same for all."""
    found = (results.figure(each, metric, scope, key) for each in results.company)
    return next((figure for figure in found if figure), None)


def _alarms(results: Results) -> Section:
    settings: dict[str, Any] = results.told["detection"]
    with_rule = [each for each in results.company if results.threshold(each).get("rule")]
    blocks: list[Block] = [
        f"{sample(results)}. A threshold is the lowest with at most "
        f"{settings['false_alarms_per_hour']} false alarms an hour of clean time on out-of-fold "
        "predictions of the training hosts; an alarm ends when the score falls below "
        f"{settings['hysteresis']} of it. {_rests_on(results)}"
    ]
    if with_rule:
        columns = [
            ("infections caught", "all", "caught", interval),
            ("delay, median s", "all", "delay_median_s", delay),
            ("delay, 90% s", "all", "delay_p90_s", delay),
            ("false alarms/h", "all", "false_alarms_per_hour", hourly),
            ("on controls/h", "controls", "false_alarms_per_hour", hourly),
        ]
        table = _table(results, "alarm", columns, with_rule)
        choices = [results.threshold(each) for each in with_rule]
        rows = [[*row, *_chosen(choice)] for row, choice in zip(table.rows, choices, strict=True)]
        blocks.append(Table([*table.header, "threshold", "false, where chosen"], rows))
        blocks.append(
            "Delay: seconds from the infection to the end of the first window in which an alarm "
            "stands, over all infections; **missed** where so many have none. Where chosen: false "
            "alarms in the clean time out of fold that the threshold was chosen on. The fewer they "
            "are, the fewer windows it rests on, and the further another training moves it; the "
            "intervals take it as given."
        )
    reasons = [(each, results.threshold(each).get("reason")) for each in results.company]
    blocks += [f"No alarms of {who}: {reason}." for who, reason in grouped(reasons)]
    return Section(CHAPTER, "Alarms", blocks)


def _chosen(choice: Mapping[str, Any]) -> list[str]:
    """A threshold, to two digits of its distance from 1 where it is near, and what it gave."""
    threshold = choice["rule"]["threshold"]
    near = 0.99 < threshold < 1
    shown = f"1 - {1 - threshold:.1e}" if near else f"{threshold:.3g}"
    return [shown, f"{choice['n_false']} in {choice['hours']:.2f} h"]


def _rests_on(results: Results) -> str:
    caught = _n(results, "caught", "alarm", "all")
    told = [f"Infections that a window sees: {caught['n_episodes']}" if caught else "No infection"]
    for key, words in (("all", "clean time"), ("controls", "of it on controls")):
        figure = _n(results, "false_alarms_per_hour", "alarm", key)
        hours = figure["signature"].partition("|hours=")[2].partition("|")[0] if figure else ""
        told.append(f"{words}: {hours} h" if hours else f"{words}: none")
    return f"{'; '.join(told)}."


def _since(results: Results) -> Section:
    heading, keys = "Recall by seconds since infection", seconds_of(results)
    pictures = ("since_infection",)
    shown = [each for each in results.shown if each in results.company]
    if not keys:
        return Section(CHAPTER, heading, ["Not measured: no alarm could be raised."], pictures)
    rows, grey = [], []
    for i, key in enumerate(keys):
        n: Figure = _n(results, "recall", SCOPE, key) or {"n_windows": 0, "n_episodes": 0}
        few = n["n_episodes"] < FEW_IN_CELL
        grey += [i] * few
        figures = [interval(results.figure(each, "recall", SCOPE, key)) for each in shown]
        mark = FEW_MARK * few
        rows.append([f"{key}{mark}", f"{n['n_windows']:,}", f"{n['n_episodes']:,}", *figures])
    blocks: list[Block] = [
        "Share of windows in which an alarm stands, by seconds from the infection to the window's "
        f"end; {sample(results)}.",
        Table(["from second", "windows", "episodes", *map(str, shown)], rows, "r", grey),
    ]
    return Section(CHAPTER, heading, blocks, pictures)


def _timelines() -> Section:
    pictures = tuple(f"timeline_{rank}" for rank in RANKS)
    return Section(CHAPTER, "Single episodes", [], pictures)


def _ranking(results: Results) -> Section:
    columns = [
        ("PR-AUC", "all", "pr_auc", measured),
        ("ROC-AUC", "all", "roc_auc", measured),
        ("TPR at 1% FPR", "0.01", "tpr_at_fpr", measured),
        ("TPR at 0.1% FPR", "0.001", "tpr_at_fpr", measured),
    ]
    n = _n(results, "pr_auc", "ranking", "all")
    if n is None:
        text = f"Not measured: {results.part} lacks clean or infected windows."
        return Section(CHAPTER, "Ranking, without a threshold", [text])
    blocks: list[Block] = [
        f"Infected windows (infecting, infected_running, dormant) against clean ones; armed is "
        f"left out. {results.part}: {count(n['n_windows'], 'window')} of "
        f"{count(n['n_episodes'], 'episode')}. A rate below 10/n is not measurable.",
        _table(results, "ranking", columns, results.company),
    ]
    return Section(CHAPTER, "Ranking, without a threshold", blocks)


def _base_rates(results: Results) -> Section:
    heading = "At the threshold, and at realistic base rates"
    with_rule = [each for each in results.company if results.threshold(each).get("rule")]
    if not any(results.figure(each, "mcc", "threshold") for each in with_rule):
        return Section(CHAPTER, heading, ["Not measured: there is no threshold to measure at."])
    columns = [
        ("TPR", "all", "tpr", measured),
        ("FPR", "all", "fpr", measured),
        ("MCC", "all", "mcc", measured),
    ]
    rates = [
        (f"precision at {rate}", rate, "precision", small)
        for rate in sorted(results.keys("base_rate", "precision"), key=float, reverse=True)
    ]
    windows = _table(results, "threshold", columns, with_rule)
    precision = _table(results, "base_rate", rates, with_rule)
    rows = [[*a, *b[1:]] for a, b in zip(windows.rows, precision.rows, strict=True)]
    names = listing([rate for _, rate, *_ in rates], NOTHING)
    blocks: list[Block] = [
        f"{sample(results)}. Precision if a share of {names} of all windows were infected, and "
        "what a detector says of infected and of clean windows stayed as it is here (prior "
        "shift). Not measurable where fewer than 10 clean windows raise an alarm.",
        Table([*windows.header, *precision.header[1:]], rows),
    ]
    return Section(CHAPTER, heading, blocks)
