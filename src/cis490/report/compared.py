"""How the detectors compare: macro F1, what differs and what does not, each seed alone."""

from __future__ import annotations

import polars as pl

from cis490.evaluation.baselines import MODE
from cis490.evaluation.breakdowns import CLEAR
from cis490.evaluation.tables import ALPHA
from cis490.report.blocks import Block, Section, Table
from cis490.report.headline import sample
from cis490.report.results import Detector, Results
from cis490.report.text import (
    FEW_EPISODES,
    NOTHING,
    difference,
    interval,
    p,
    yes,
)
from cis490.report.transferred import CHAPTER, transferred
from cis490.words import count


def compared(results: Results) -> list[Section]:
    """All of a split in which something was scored."""
    found = [_figures(results), transferred(results), _costs(results), _significance(results)]
    return [*found, _seeds(results)] if _has_seeds(results) else found


def _figures(results: Results) -> Section:
    held_out = results.part != "val"
    rows = [
        [
            *detector,
            interval(results.figure(detector, "macro_f1")),
            interval(results.figure(detector, "macro_f1", *CLEAR)),
            *([interval(results.figure(detector, "macro_f1", part="val"))] * held_out),
        ]
        for detector in results.everyone
    ]
    clear = results.figure(results.everyone[0], "macro_f1", *CLEAR)
    n = count(clear["n_windows"], "window") if clear else "no window"
    parts = [sample(results), *([sample(results, "val")] * held_out)]
    header = [
        "detector",
        "mode",
        f"{results.part}",
        f"{results.part}, clear windows",
        *(["val"] * held_out),
    ]
    blocks: list[Block] = [
        f"{'; '.join(parts)}. Clear windows ({n} of {results.part}) are those whose phase covers "
        "at least 0.8 of them; the others straddle a border.",
        Table(header, rows, align="ll"),
    ]
    return Section(CHAPTER, "Macro F1 of every detector", blocks, ("forest",))


def _costs(results: Results) -> Section:
    rows = []
    for detector in results.everyone:
        size = results.summary(detector)["size"] if detector.mode != MODE else {}
        sizes = [size.get("n_parameters"), size.get("bytes_on_disk")]
        rows.append(
            [
                *detector,
                interval(results.figure(detector, "macro_recall")),
                interval(results.figure(detector, "accuracy")),
                *(NOTHING if value is None else f"{value:,}" for value in sizes),
            ]
        )
    header = ["detector", "mode", "macro recall", "accuracy", "parameters", "bytes on disk"]
    blocks: list[Block] = [
        f"{sample(results)}. Accuracy flatters whoever follows the most frequent phase: see "
        "majority.",
        Table(header, rows, align="ll"),
    ]
    return Section(CHAPTER, "Macro recall, accuracy and size", blocks)


def _significance(results: Results) -> Section:
    pairs = results.pairwise
    tested = pairs.filter(pl.col("p").is_not_null())
    if tested.is_empty():
        return Section(
            CHAPTER, "What is significant", ["Nothing can be said: too few episodes to resample."]
        )
    single, corrected = (int(tested[f"significant_{rule}"].sum()) for rule in ("95", "holm"))
    blocks: list[Block] = [
        f"Paired differences of macro F1 on shared replicates, {sample(results)}. Of "
        f"{count(len(tested), 'pair')}, {single} differ taken one by one (95% interval without 0) "
        f"and {corrected} after Holm's correction over all pairs (p < {ALPHA}). All pairs: "
        "pairwise.parquet.",
    ]
    least = 2 / (results.replicates + 1) * len(tested)
    if least < ALPHA:
        blocks += [f"The least p after that correction, with so many replicates, is {p(least)}."]
    else:
        blocks += [
            f"With {results.replicates:,} replicates no p is small enough to stay under {ALPHA} "
            f"after Holm's correction over {len(tested)} pairs: raise evaluation.replicates.",
        ]
    if results.n_episodes < FEW_EPISODES:
        blocks += [
            f"From {count(results.n_episodes, 'episode')} that is no verdict: with fewer than "
            f"{FEW_EPISODES}, p comes out far too small.",
        ]
    if best := results.leader:
        others = [other for other in results.everyone if other != best]
        blocks += [f"{best}, the best by val, minus each other:"]
        blocks += [_pairs(results, [(best, other) for other in others], "minus")]
    if len(results.modes) == 2:
        known = set(results.detectors)
        both = [
            (Detector(name, results.modes[1]), Detector(name, results.modes[0]))
            for name in results.architectures
        ]
        both = [pair for pair in both if set(pair) <= known]
        if both:
            blocks += ["What trusting the guest is worth, oracle minus realistic:"]
            blocks += [_pairs(results, both, "minus")]
    return Section(CHAPTER, "What is significant", blocks)


def _pairs(results: Results, wanted: list[tuple[Detector, Detector]], second: str) -> Table:
    rows = []
    for a, b in wanted:
        pair = results.pair(a, b)
        if pair is not None:
            verdict = [yes(pair[f"significant_{rule}"]) for rule in ("95", "holm")]
            rows.append(
                [str(a), str(b), difference(pair), p(pair["p"]), p(pair["p_holm"]), *verdict]
            )
    header = ["detector", second, "difference", "p", "p (Holm)", "differs", "differs (Holm)"]
    return Table(header, rows, align="ll")


def _has_seeds(results: Results) -> bool:
    return any(len(results.seeds(detector)) > 1 for detector in results.everyone)


def _seeds(results: Results) -> Section:
    rows = [
        [*detector, figure["seed"], interval(figure)]
        for detector in results.everyone
        for figure in results.seeds(detector)
    ]
    header = ["detector", "mode", "seed", f"macro F1, {results.part}"]
    return Section(
        CHAPTER, "Each seed alone", [f"{sample(results)}.", Table(header, rows, align="ll")]
    )
