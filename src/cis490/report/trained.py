"""How the detectors were trained: seeds, settings that were searched, curves."""

from __future__ import annotations

from typing import Final

from cis490.evaluation.baselines import MODE
from cis490.report.blocks import Block, Section, Table
from cis490.report.headline import sample
from cis490.report.results import Detector, Results
from cis490.report.text import NOTHING, listing
from cis490.seeds import UNSTABLE

CHAPTER: Final = "How they were trained"


def trained(results: Results) -> list[Section]:
    """How a split's trainings went, and what was searched before."""
    found = [_training(results)] if results.part is not None else []
    return [*found, _searched(results)]


def _training(results: Results) -> Section:
    everyone = [*results.asked, *(d for d in results.baselines if d.mode != MODE)]
    rows = []
    for detector in everyone:
        model = results.trained(detector)
        f1, good = model["val_macro_f1"], [s for s in model["seeds"] if s["status"] == "ok"]
        rates = sorted(
            {s["chosen"]["learning_rate"] for s in good if "learning_rate" in s["chosen"]}
        )
        rows.append(
            [
                *detector,
                f"{len(good)} of {len(model['seeds'])}",
                NOTHING if f1["mean"] is None else f"{f1['mean']:.3f}",
                NOTHING if f1["sd"] is None else f"{f1['sd']:.3f}",
                _spread(results, detector),
                NOTHING if model["best_seed"] is None else str(model["best_seed"]),
                listing([f"{rate:.2g}" for rate in rates], NOTHING),
                str(sum(seed["collapses"] or 0 for seed in model["seeds"])),
            ]
        )
    header = [
        *("detector", "mode", "seeds", "val macro F1 in training", "sd on val"),
        *(f"sd on {results.part}", "best seed", "learning rate", "collapses"),
    ]
    blocks: list[Block] = [
        f"Means and standard deviations over seeds that did not fail; {sample(results, 'val')}. In "
        "training a window is judged by itself, without the phase filter, so figures on val are "
        "others there than in the tables above. A "
        "model's exported seed is the best by val. A collapse that was mended is counted here and "
        "told in its collapse_report.json.",
        Table(header, rows, align="ll"),
    ]
    return Section(CHAPTER, "How the seeds were trained", blocks, ("curves",))


def _spread(results: Results, detector: Detector) -> str:
    figure = results.spread(detector)
    if figure is None:
        return NOTHING
    flag = ", unstable" if figure["estimate"] > UNSTABLE else ""
    return f"{figure['estimate']:.3f}{flag}"


def _searched(results: Results) -> Section:
    heading = "Search of settings"
    if not results.searched:
        return Section(
            CHAPTER, heading, ["None: no detector's settings were searched; all are as configured."]
        )
    rows = [
        [
            *detector,
            f"{tuning['n_trials']:,}",
            ", ".join(f"{name} {value}" for name, value in tuning["parameters"].items()) or NOTHING,
            tuning["reason"],
        ]
        for detector, tuning in results.searched
    ]
    blocks: list[Block] = [
        "On val alone, before training. Val chose, so its figures of these detectors flatter; what "
        "is not listed was not searched and is as configured.",
        Table(["detector", "mode", "trials", "chosen", "why"], rows, align="llrll"),
    ]
    return Section(CHAPTER, heading, blocks)
