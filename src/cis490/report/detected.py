"""Detection in time: alarms, recall since infection, ranking, precision at realistic base rates."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from cis490.evaluation.tables import DECIDED
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
    near_one,
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
        *_allowed(results),
        _since(results),
        _timelines(),
        _ranking(results),
        _base_rates(results),
    ]


def _table(
    results: Results,
    columns: Sequence[tuple[str, str, str, str, Shown]],
    chosen: Sequence[Detector],
) -> Table:
    """A row a detector; a column is its header, scope, key and metric, and how it is shown."""
    rows = [
        [
            str(detector),
            *(
                show(results.figure(detector, metric, scope, key))
                for _, scope, key, metric, show in columns
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
        f"{_false_alarms(settings['false_alarms_per_hour'])} an hour of clean time on out-of-fold "
        "predictions of the training hosts (in less than an hour of it: none); an alarm ends when "
        f"the score falls below {settings['hysteresis']} of it."
        + (f" {_rests_on(results)}" if with_rule else "")
    ]
    if with_rule:
        columns = [
            ("infections caught", "alarm", "all", "caught", interval),
            ("delay, median s", "alarm", "all", "delay_median_s", delay),
            ("delay, 90% s", "alarm", "all", "delay_p90_s", delay),
            ("false alarms/h", "alarm", "all", "false_alarms_per_hour", hourly),
            ("on controls/h", "alarm", "controls", "false_alarms_per_hour", hourly),
        ]
        blocks.append(_table(results, columns, with_rule))
        blocks.append(
            "Delay: seconds from the infection to the end of the first window in which an alarm "
            "stands, over all infections; **missed** where so many have none. The intervals take "
            "the threshold as given. The fewer false alarms it gives in the clean time out of fold "
            "that it was chosen on, the fewer windows it rests on, and the further another "
            "training moves it:"
        )
        rows = [[str(each), *_chosen(results.threshold(each))] for each in with_rule]
        blocks.append(Table(["detector", "threshold", "false alarms where chosen"], rows))
    reasons = [(each, results.threshold(each).get("reason")) for each in results.company]
    blocks += [f"No threshold for alarms of {who}: {reason}." for who, reason in grouped(reasons)]
    return Section(CHAPTER, "Alarms", blocks)


def _allowed(results: Results) -> list[Section]:
    """The same for thresholds that were allowed more false alarms out of fold."""
    with_limits = [each for each in results.company if results.limits(each)]
    if not with_limits:
        return []
    limits = sorted({key for each in with_limits for key in results.limits(each)}, key=float)
    asked = results.told["detection"]["false_alarms_per_hour"]
    places = [(asked, "alarm", "all"), *((limit, "allowed", limit) for limit in limits)]
    caught, false = (
        _table(
            results,
            [(f"at most {most}/h", scope, key, metric, show) for most, scope, key in places],
            with_limits,
        )
        for metric, show in (("caught", interval), ("false_alarms_per_hour", hourly))
    )
    blocks: list[Block] = [
        f"{sample(results)}. Thresholds chosen like those above, for more false alarms an hour of "
        "clean time out of fold: what a detector is worth rests on less chance there. A lower "
        "threshold may catch fewer, for an infection under a false alarm that stands is missed. "
        "Infections caught:",
        caught,
        f"False alarms an hour of clean time that the same thresholds gave on {results.part}:",
        false,
    ]
    return [Section(CHAPTER, "If more false alarms are allowed", blocks)]


def _chosen(choice: Mapping[str, Any]) -> list[str]:
    """A threshold, and what it gave where it was chosen."""
    threshold = near_one(choice["rule"]["threshold"])
    return [threshold, f"{choice['n_false']} in {choice['hours']:.2f} h"]


def _false_alarms(limit: str) -> str:
    return f"{limit} false alarm{'s' * (float(limit) != 1)}"


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
        ("PR-AUC", "ranking", "all", "pr_auc", measured),
        ("ROC-AUC", "ranking", "all", "roc_auc", measured),
        ("TPR at 5% FPR", "ranking", "0.05", "tpr_at_fpr", measured),
        ("TPR at 1% FPR", "ranking", "0.01", "tpr_at_fpr", measured),
        ("TPR at 0.1% FPR", "ranking", "0.001", "tpr_at_fpr", measured),
    ]
    n = _n(results, "pr_auc", "ranking", "all")
    if n is None:
        text = f"Not measured: {results.part} lacks clean or infected windows."
        return Section(CHAPTER, "Ranking, without a threshold", [text])
    blocks: list[Block] = [
        f"Infected windows (infecting, infected_running, dormant) against clean ones; armed is "
        f"left out. {results.part}: {count(n['n_windows'], 'window')} of "
        f"{count(n['n_episodes'], 'episode')}. A rate below 10/n is not measurable.",
        _table(results, columns, results.company),
    ]
    return Section(CHAPTER, "Ranking, without a threshold", blocks)


def _base_rates(results: Results) -> Section:
    heading = "Infected or clean, and at realistic base rates"
    with_rule = [each for each in results.company if results.threshold(each).get("rule")]
    ways = [
        ("The likeliest phase decides, as in macro F1:", DECIDED, f"{DECIDED}_", results.company),
        ("The threshold for alarms decides, without hysteresis:", "threshold", "", with_rule),
    ]
    rates = sorted(results.keys(f"{DECIDED}_base_rate", "precision"), key=float, reverse=True)
    names = listing(rates, NOTHING)
    blocks: list[Block] = [
        f"{sample(results)}; armed is left out. Precision if a share of {names} of all windows "
        "were infected, and what a detector says of infected and of clean windows stayed as it is "
        "here (prior shift). Not measurable where fewer than 10 clean windows are called infected."
    ]
    for words, scope, prefix, detectors in ways:
        if not any(results.figure(each, "mcc", scope) for each in detectors):
            continue
        columns = [(name.upper(), scope, "all", name, measured) for name in ("tpr", "fpr", "mcc")]
        columns += [
            (f"precision at {rate}", f"{prefix}base_rate", rate, "precision", small)
            for rate in rates
        ]
        blocks += [words, _table(results, columns, detectors)]
    if len(blocks) == 1:
        blocks = [f"Not measured: {results.part} lacks clean or infected windows."]
    return Section(CHAPTER, heading, blocks)
