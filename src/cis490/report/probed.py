"""Probes that could embarrass a detector, and what it loses when telemetry gets worse."""

from __future__ import annotations

from typing import Any, Final

import polars as pl

from cis490.report.blocks import Block, Section, Table
from cis490.report.results import Detector, Figure, Results
from cis490.report.text import NOT_MEASURABLE, NOTHING, interval, listing, measured, signed
from cis490.words import count

CHAPTER: Final = "What could embarrass them"

_NOT_COMPUTED: Final = "Not computed: there is no {}.parquet for this split."
_UNPERTURBED: Final = "unperturbed"
# The question that each probe asks.
_QUESTIONS: Final = {
    "host": "Can gbt tell the host from the features?",
    "split_by_episode": "What does gbt reach within the training hosts, split by episode?",
    "split_by_window": "How much does a split by window flatter it, which leaks?",
    "test_perturbed": "Does anything that training makes change with the test rows?",
    "exchanged": "Does the best detector beat truths exchanged between episodes and shifted?",
    "exchanged_training": "Does gbt learn anything from exchanged, shifted labels?",
    "background_starts": "Does the alarm score rise when benign work starts?",
    "background_stops": "Does the alarm score rise when benign work stops?",
    "background_present": "Is the alarm score of clean windows higher beside benign work?",
    "clock": "What does the clock alone reach here?",
}
# Kept apart, in tables of their own.
_APART: Final = ("channel", "guest", "permuted", "without")


def probed(results: Results) -> list[Section]:
    """The probes of a split, and its robustness."""
    found = []
    if "probes" in results.told:
        tables = [_probes(results), _channels(results), _guest(results), _sources(results)]
        found += [section for section in tables if section]
    else:
        found.append(Section(CHAPTER, "Probes", [_NOT_COMPUTED.format("probes")]))
    return [*found, _robustness(results)]


def _rows(results: Results, *kinds: str) -> list[Figure]:
    """The rows of some probes, by key, detector and metric."""
    kind = pl.col("key").str.split("/").list.first()
    rows = results.metrics.filter(pl.col("seed").is_null(), kind.is_in(kinds), scope="probe")
    return rows.sort("key", "mode", "model", "metric").to_dicts()


def _show(row: Figure) -> str:
    """A difference has a sign, a count of things and a p have no interval."""
    metric = row["metric"]
    if row["estimate"] is None:
        return NOT_MEASURABLE
    if metric == "artefacts_changed":
        return f"{row['estimate']:g}"
    if metric == "p":
        return f"{row['estimate']:.2g}"
    if any(word in metric for word in ("change", "over", "lost", "difference")):
        return signed(row)
    return interval(row)


def _probes(results: Results) -> Section:
    told = results.told["probes"]
    asked: dict[tuple[str, ...], dict[str, Figure]] = {}
    for row in _rows(results, *_QUESTIONS):
        # Macro F1 stands beside that of its null and their p; other figures stand alone.
        metric = "macro_f1" if row["metric"] in ("macro_f1_null", "p") else row["metric"]
        name = str(Detector(row["model"], row["mode"]))
        asked.setdefault((row["key"], name, row["part"], metric), {})[row["metric"]] = row
    rows = []
    for (key, name, part, metric), figures in asked.items():
        question = _QUESTIONS[key]
        values = (figures.get(each) for each in (metric, "macro_f1_null", "p"))
        cells = [_show(value) if value else "" for value in values]
        n = next(iter(figures.values()))["n_episodes"]
        rows.append([question, name, part, metric.replace("_", " "), *cells, f"{n:,}"])
    header = ["question", "detector", "part", "figure", "value", "by chance", "p", "episodes"]
    blocks: list[Block] = [
        "What could embarrass a detector; some rows only inform. **By chance**: its mean and "
        "the middle 95% of its draws; of gbt on exchanged labels the interval of its mean. "
        "Definitions: docs/statistics.md.",
        Table(header, rows, align="llll"),
        f"Artefacts of training that changed with the test rows: {listing(told['changed'])}. "
        f"Something was learned from exchanged labels: {_yes(told['leak'])}.",
        *(f"Not measurable: {what}: {why}." for what, why in told["not_measurable"].items()),
    ]
    return Section(CHAPTER, "Probes", blocks)


def _yes(value: bool | None) -> str:
    return "cannot be said" if value is None else "yes, so something leaks" if value else "no"


def _channels(results: Results) -> Section | None:
    by_key: dict[tuple[str, str], dict[str, Any]] = {}
    for row in _rows(results, "channel"):
        channel = row["key"].partition("/")[2]
        by_key.setdefault((channel, row["mode"]), {})[row["metric"]] = row
    if not by_key:
        return None
    found = sorted(by_key.items(), key=lambda item: -(item[1]["macro_f1"]["estimate"] or 0.0))
    rows = []
    for (channel, _), figures in found:
        over = figures.get("macro_f1_over_clock")
        cells = [interval(figures["macro_f1"]), _show(over) if over else NOTHING]
        rows.append([channel, *cells, f"{figures['macro_f1']['n_episodes']:,}"])
    above = results.told["probes"]["over_clock"]
    blocks: list[Block] = [
        f"Macro F1 of gbt on the six statistics of one channel, {results.part}. "
        f"{count(len(above), 'channel')} of {len(rows)} above the clock with the whole interval, "
        f"each taken by itself: {listing(above)}.",
        Table(["channel", "macro F1", "minus the clock", "episodes"], rows),
    ]
    return Section(CHAPTER, "Each channel alone", blocks)


def _guest(results: Results) -> Section | None:
    rows = [
        [
            *(row["key"].partition("/")[2], row["model"]),
            *(row["metric"].removesuffix("_over_realistic"), _show(row), f"{row['n_episodes']:,}"),
        ]
        for row in _rows(results, "guest")
    ]
    if not rows:
        return None
    blocks: list[Block] = [
        "Oracle minus realistic, paired on shared replicates; **all**: the mean over detectors.",
        Table(["profile", "detector", "metric", "difference", "episodes"], rows, align="lllrr"),
    ]
    return Section(CHAPTER, "What the guest's word is worth, by profile", blocks)


def _sources(results: Results) -> Section | None:
    rows = [
        [
            *(row["key"].partition("/")[2], row["key"].partition("/")[0]),
            *(str(Detector(row["model"], row["mode"])), row["metric"].replace("_", " ")),
            *(_show(row), f"{row['n_episodes']:,}"),
        ]
        for row in _rows(results, "permuted", "without")
    ]
    if not rows:
        return None
    header = ["source", "what was done", "detector", "figure", "value", "episodes"]
    blocks: list[Block] = [
        "On val. **permuted**: a source's channels exchanged between episodes, the detector as it "
        "is; **without**: gbt trained again without the source.",
        Table(header, rows, align="llllrr"),
    ]
    return Section(CHAPTER, "Which source matters", blocks)


def _robustness(results: Results) -> Section:
    heading = "When telemetry gets worse"
    if "robustness" not in results.told:
        return Section(CHAPTER, heading, [_NOT_COMPUTED.format("robustness")])
    told = results.told["robustness"]
    best = [detector for mode in results.modes if (detector := results.best(mode))]
    names = results.keys("robustness", "macro_f1")
    rows = []
    for name in sorted(names, key=lambda name: (name != _UNPERTURBED, name)):
        cells = []
        for detector in best:
            figure, change, moved = (
                results.figure(detector, metric, "robustness", name)
                for metric in ("macro_f1", "macro_f1_change", "inputs_moved")
            )
            cells += [measured(figure), _show(change) if name != _UNPERTURBED and change else ""]
            cells.append(f"{moved['estimate']:.0%}" if moved else "")
        rows.append([name.replace("_", " "), *cells])
    header = ["condition"]
    for detector in best:
        header += [f"macro F1, {detector}", "change", "inputs moved"]
    blocks: list[Block] = [
        f"{told['part']}, {told['n_drawn']} of {told['n_shown']} episodes drawn; nothing is "
        "trained again. Changes are paired on shared replicates. All detectors: "
        "robustness.parquet.",
        Table(header, rows),
        *(
            f"Not measurable: {name.replace('_', ' ')}: {why}."
            for name, why in told["not_measurable"].items()
        ),
    ]
    return Section(CHAPTER, heading, blocks, ("robustness",))
