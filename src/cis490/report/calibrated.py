"""How far a probability can be believed: calibration, and sets that hold the truth."""

from __future__ import annotations

from typing import Final

from cis490.evaluation.calibrate import OUT_OF_FOLD
from cis490.report.blocks import Block, Section, Table
from cis490.report.headline import sample
from cis490.report.reliability import bins_of
from cis490.report.results import Results
from cis490.report.text import NOTHING, grouped, interval

CHAPTER: Final = "How far a probability can be believed"

_NOT_COMPUTED: Final = "Not computed: there is no calibration.parquet for this split."
_ERRORS: Final = {"ece": "ECE", "brier": "Brier score", "nll": "log loss, nats"}


def calibrated(results: Results) -> list[Section]:
    """Calibration of a split in which something was scored."""
    if "calibration" not in results.told:
        return [Section(CHAPTER, "Calibration", [_NOT_COMPUTED])]
    return [_reliability(results), _calibration(results), _sets(results)]


def _reliability(results: Results) -> Section:
    best = results.leader
    blocks: list[Block] = []
    if best and (bins := bins_of(results, best)):
        rows = []
        for row in bins:
            accuracy = interval(row | {"estimate": row["accuracy"]})
            edges = f"{row['low_edge']:.3f}-{row['high_edge']:.3f}"
            state = "scaled" if row["scaled"] else "as trained"
            n = [f"{row[name]:,}" for name in ("n_windows", "n_episodes")]
            rows.append([state, edges, *n, f"{row['confidence']:.3f}", accuracy])
        header = ["probabilities", "confidence", "windows", "episodes", "its mean", "accuracy"]
        blocks = [
            f"{best}, {sample(results)}, windows of all seeds.",
            Table(header, rows, align="ll"),
        ]
    return Section(CHAPTER, "Reliability", blocks, ("reliability",))


def _calibration(results: Results) -> Section:
    rows = []
    for detector in results.company:
        temperature = results.figure(detector, "temperature", "calibration", part=OUT_OF_FOLD)
        figures = [
            interval(results.figure(detector, f"{name}{state}", "calibration"))
            for name in _ERRORS
            for state in ("", "_scaled")
        ]
        rows.append([*detector, interval(temperature), *figures])
    header = ["detector", "mode", "temperature"]
    for words in _ERRORS.values():
        header += [words, f"{words}, scaled"]
    blocks: list[Block] = [
        f"{sample(results)}. Smaller is better. Scaled: logits divided by one temperature, which "
        "makes the truth most likely out of fold on the training hosts; above 1 a detector was too "
        "sure. ECE: 15 bins of confidence; Brier score: summed over phases.",
        Table(header, rows, align="ll"),
    ]
    reasons = [
        (detector, reason)
        for detector in results.company
        for what, reason in results.unmeasured(detector).items()
        if what.startswith("temperature")
    ]
    if reasons:
        words = "; ".join(f"{who}: {reason}" for who, reason in grouped(reasons))
        blocks.append(f"No temperature, or no interval of it: {words}.")
    return Section(CHAPTER, "Calibration", blocks)


def _sets(results: Results) -> Section:
    told = results.told["calibration"]
    promised = 1 - float(told["alpha"])
    rows = []
    for detector in results.company:
        cells = []
        for part in (OUT_OF_FOLD, results.part):
            for metric in ("coverage", "set_size"):
                cells.append(interval(results.figure(detector, metric, "conformal", part=part)))
        if set(cells) != {NOTHING}:
            rows.append([*detector, *cells])
    blocks: list[Block] = [
        f"A set holds the true phase of a window in {promised:.0%} of the cases or more, if its "
        "episode is exchangeable with those of the training hosts (split-conformal, calibrated by "
        "episode, out of fold). A set of one phase says something, a set of all five nothing."
    ]
    if rows:
        names = ["training hosts", results.part]
        header = [f"{what}, {name}" for name in names for what in ("coverage", "phases in a set")]
        blocks.append(Table(["detector", "mode", *header], rows, align="ll"))
    best = results.leader
    if best and (words := told.get("exchangeability", {}).get("_".join(best))):
        blocks.append(f"{best}: {words}")
    reasons = [
        (detector, reason)
        for detector in results.company
        for what, reason in results.unmeasured(detector).items()
        if what in ("conformal", "in_distribution")
    ]
    if reasons:
        words = "; ".join(f"{who}: {reason}" for who, reason in grouped(reasons))
        blocks.append(f"Not measurable: {words}.")
    return Section(CHAPTER, "Prediction sets", blocks)
