"""What is mistaken for what, and where each detector works: matrices of one split's figures."""

from __future__ import annotations

from cis490.evaluation.baselines import MODE
from cis490.evaluation.breakdowns import CONTROL
from cis490.report.headline import sample
from cis490.report.matrix import Cell, Column, Row, draw
from cis490.report.results import Figure, Results
from cis490.report.style import mode_colour
from cis490.report.svg import Picture
from cis490.report.text import FEW_IN_CELL, NOTHING, listing


def confusion(results: Results, mode: str) -> Picture:
    """The confusion matrix of the best of a mode by val."""
    title = f"Confusion matrix of the best {mode} detector"
    best = results.best(mode)
    if best is None:
        return Picture(title, f"No {mode} detector has a figure on val, so none is the best.", None)
    content = results.summary(best)["confusion"]
    labels, counts = content["labels"], content["counts"]
    seen = [i for i in range(len(labels)) if any(counts[i]) or any(row[i] for row in counts)]
    rows = []
    for i in seen:
        total = sum(counts[i])
        shares = [counts[i][j] / total if total else None for j in seen]
        texts = [f"{counts[i][j]:,}" if counts[i][j] else "·" for j in seen]
        cells = [Cell(t, s, i == j) for t, s, j in zip(texts, shares, seen, strict=True)]
        rows.append(Row(labels[i], cells))
    seeds = "" if content["n_seeds"] == 1 else f", summed over {content['n_seeds']} seeds"
    return Picture(
        f"{title}, {best}",
        f"**{best}**, the best {mode} detector by val. Windows, {sample(results)}{seeds}; truth in "
        "rows, what they are called in columns. A shade is the share of its row. Counts have no "
        "interval; recall, precision and F1 have, under By phase.",
        draw([Column(labels[j]) for j in seen], rows, corner="truth").figure,
    )


def profile_map(results: Results) -> Picture:
    """Macro F1 of each detector on each profile, and false alarms on the controls."""
    title = "Macro F1 of every detector on every profile"
    everyone = [*results.detectors, *results.baselines]
    tested = results.keys("profile", "macro_f1")
    if not everyone or not tested:
        return Picture(title, "No episode of a profile other than the controls was scored.", None)
    untested = results.split["untested_profiles"] if results.part == "test" else []
    names = [*tested, *(name for name in untested if name != CONTROL)]
    columns = [Column(name, f"n={results.n_of_profile(name)}") for name in names]
    controls = bool(results.keys("profile", "false_alarm_rate"))
    if controls:
        columns.append(Column("false alarms", f"n={results.n_of_profile(CONTROL)}", apart=True))
    rows = []
    for mode in (*results.modes, MODE):
        group = [detector for detector in everyone if detector.mode == mode]
        if group:
            rows.append(Row(mode, colour=mode_colour(mode), bold=True))
        for detector in group:
            cells = [_score(results.figure(detector, "macro_f1", "profile", p)) for p in names]
            alarms = results.figure(detector, "false_alarm_rate", "profile", CONTROL)
            rows.append(Row(detector.model, [*cells, *[Cell(_share(alarms))] * controls]))
    return Picture(
        title,
        f"Macro F1 over the phases that a profile's windows have, {sample(results)}; n counts "
        "episodes. 95% intervals of the best of each mode, of a bootstrap over episodes, stand in "
        f"the numbers.{_about(results, tested, untested, controls)}",
        draw(columns, rows).figure,
    )


def _about(results: Results, tested: list[str], untested: list[str], controls: bool) -> str:
    told = ""
    if few := [name for name in tested if results.n_of_profile(name) < FEW_IN_CELL]:
        told += f" Fewer than {FEW_IN_CELL} episodes, so greyed: {listing(few)}."
    if untested:
        told += f" Not tested: {listing(untested)}."
    if controls:
        told += (
            " To the right, of the controls: the share of windows that raise a false alarm; n. m., "
            "not measurable: below 10/n of n windows."
        )
    return told


def _score(figure: Figure | None) -> Cell:
    if figure is None:
        return Cell(NOTHING)
    few = figure["n_episodes"] < FEW_IN_CELL
    return Cell(f"{figure['estimate']:.2f}", None if few else figure["estimate"])


def _share(figure: Figure | None) -> str:
    if figure is None:
        return NOTHING
    measurable = figure["estimate"] >= 10 / figure["n_windows"]
    return f"{figure['estimate']:.2f}" if measurable else "n. m."
