"""The report's tables below the headline, one function a section, for one split."""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl

from cis490.channels import PHASES
from cis490.evaluation.baselines import MODE
from cis490.evaluation.breakdowns import CLEAR, CONTROL
from cis490.evaluation.tables import ALPHA
from cis490.markdown import table
from cis490.report.headline import sample
from cis490.report.results import Detector, Results
from cis490.report.text import (
    FEW_EPISODES,
    NOTHING,
    count,
    difference,
    hosts,
    interval,
    listing,
    p,
    profiles,
    rate,
    yes,
)
from cis490.seeds import UNSTABLE

Section = tuple[str, list[str]]

PARTS = ("train", "val", "test", "excluded")


def sections(results: Results) -> list[Section]:
    """All sections of a split that has anything to show, each a heading and its lines."""
    found: list[Section] = []
    if results.part is not None:
        found += [
            _figures(results),
            _costs(results),
            _by_phase(results),
            _by_profile(results),
            _controls(results),
            _by_host(results),
        ]
        found += [_confusion(results)] if _best(results) else []
        found += [_significance(results)]
        found += [_seeds(results)] if _has_seeds(results) else []
        found += [_training(results)]
    return [*found, _searched(results), _split(results)]


def _best(results: Results) -> Detector | None:
    return results.best(results.modes[0]) if results.modes else None


def _shown(results: Results) -> list[Detector]:
    """The columns of the breakdowns: the best of each mode by val, and their company."""
    best = [detector for mode in results.modes if (detector := results.best(mode))]
    return best + results.baselines


def _everyone(results: Results) -> list[Detector]:
    return results.detectors + results.baselines


def _names(detector: Detector) -> list[str]:
    return [detector.model, detector.mode]


def _figures(results: Results) -> Section:
    held_out = results.part != "val"
    rows = [
        [
            *_names(detector),
            interval(results.figure(detector, "macro_f1")),
            interval(results.figure(detector, "macro_f1", *CLEAR)),
            *([interval(results.figure(detector, "macro_f1", part="val"))] * held_out),
        ]
        for detector in _everyone(results)
    ]
    clear = results.figure(_everyone(results)[0], "macro_f1", *CLEAR)
    n = count(clear["n_windows"], "window") if clear else "no window"
    parts = [sample(results), *([sample(results, "val")] * held_out)]
    header = [
        "detector",
        "mode",
        f"{results.part}",
        f"{results.part}, clear windows",
        *(["val"] * held_out),
    ]
    lines = [
        f"{'; '.join(parts)}. Clear windows ({n} of {results.part}) are those whose phase covers "
        "at least 0.8 of them; the others straddle a border.",
        "",
        *table(header, rows, align="ll"),
    ]
    return "Macro F1 of every detector", lines


def _costs(results: Results) -> Section:
    rows = []
    for detector in _everyone(results):
        size = results.summary(detector)["size"] if detector.mode != MODE else {}
        sizes = [size.get("n_parameters"), size.get("bytes_on_disk")]
        rows.append(
            [
                *_names(detector),
                interval(results.figure(detector, "macro_recall")),
                interval(results.figure(detector, "accuracy")),
                *(NOTHING if value is None else f"{value:,}" for value in sizes),
            ]
        )
    header = ["detector", "mode", "macro recall", "accuracy", "parameters", "bytes on disk"]
    lines = [
        f"{sample(results)}. Accuracy flatters whoever follows the most frequent phase: see "
        "majority.",
        "",
        *table(header, rows, align="ll"),
    ]
    return "Macro recall, accuracy and size", lines


def _breakdown(
    results: Results, scope: str, metric: str, keys: Sequence[str], noun: str
) -> list[str]:
    shown = _shown(results)
    rows = []
    for key in keys:
        figures = [results.figure(detector, metric, scope, key) for detector in shown]
        # What a figure rests on is the truth's, the same for all detectors.
        n = next((figure for figure in figures if figure), dict.fromkeys(_N, 0))
        rows.append([key, *(f"{n[column]:,}" for column in _N), *map(interval, figures)])
    return table([noun, "windows", "episodes", "replicates", *map(str, shown)], rows)


_N = ("n_windows", "n_episodes", "n_valid_replicates")


def _by_phase(results: Results) -> Section:
    measured = results.keys("phase", "f1")
    phases = [phase for phase in PHASES if phase in measured]
    if not _shown(results):
        return "By phase", ["Nothing to show: no detector has a figure."]
    lines = [f"F1, {sample(results)}.", ""]
    lines += _breakdown(results, "phase", "f1", phases, "phase")
    if absent := [phase for phase in PHASES if phase not in measured]:
        lines += ["", f"No window of this part is {listing(absent)}: not part of macro F1."]
    if best := _best(results):
        rows = [
            [phase, *(interval(results.figure(best, name, "phase", phase)) for name in _RATES)]
            for phase in phases
        ]
        lines += ["", f"Of {best}, the best by val:", "", *table(["phase", *_RATES], rows)]
    return "By phase", lines


_RATES = ("precision", "recall", "f1")


def _by_profile(results: Results) -> Section:
    named = results.keys("profile", "macro_f1")
    lines = [f"Macro F1 over the phases that the profile's windows have, {sample(results)}.", ""]
    untested = [] if results.part == "val" else results.split["untested_profiles"]
    lines += _breakdown(results, "profile", "macro_f1", [*named, *untested], "profile")
    if untested:
        lines += ["", f"Untested, for want of a test episode: {profiles(untested)}."]
    single = [
        profile
        for profile in [*named, *results.keys("profile", "false_alarm_rate")]
        if _episodes(results, profile) == 1
    ]
    if single:
        lines += [
            "",
            f"A single episode of {listing(single)}: resampling within the profile cannot move it, "
            "so it adds nothing to the width of any interval.",
        ]
    return "By profile", lines


def _episodes(results: Results, profile: str) -> int:
    rows = results.metrics.filter(scope="profile", key=profile, part=results.part or "")
    return int(rows["n_episodes"][0])


def _controls(results: Results) -> Section:
    rows = [
        [*_names(detector), rate(results.figure(detector, "false_alarm_rate", "profile", CONTROL))]
        for detector in _everyone(results)
    ]
    if not results.keys("profile", "false_alarm_rate"):
        return "False alarms on controls", ["Not measured: no control episode in this part."]
    figure = results.figure(_everyone(results)[0], "false_alarm_rate", "profile", CONTROL) or {}
    lines = [
        f"{results.part}: {count(figure['n_windows'], 'window')} of "
        f"{count(figure['n_episodes'], 'control episode')}. Share of windows called infecting, "
        "infected_running or dormant. A rate below 10/n is not measurable.",
        "",
        *table(["detector", "mode", "false-alarm rate"], rows, align="ll"),
    ]
    return "False alarms on controls", lines


def _by_host(results: Results) -> Section:
    names = results.keys("host", "macro_f1")
    lines = [f"Macro F1, {sample(results)}.", ""]
    return "By host", lines + _breakdown(results, "host", "macro_f1", names, "host")


def _confusion(results: Results) -> Section:
    best = _best(results)
    assert best is not None  # asked for only if there is one
    content = results.summary(best)["confusion"]
    labels, counts = content["labels"], content["counts"]
    seen = [i for i in range(len(labels)) if any(counts[i]) or any(row[i] for row in counts)]
    rows = [[labels[i], *(f"{counts[i][j]:,}" for j in seen)] for i in seen]
    seeds = "" if content["n_seeds"] == 1 else f", summed over {content['n_seeds']} seeds"
    lines = [
        f"Windows, {sample(results)}{seeds}. Truth in rows, prediction in columns.",
        "",
        *table(["truth", *(labels[i] for i in seen)], rows),
    ]
    return f"Confusion matrix of {best}, the best by val", lines


def _significance(results: Results) -> Section:
    pairs = results.pairwise
    tested = pairs.filter(pl.col("p").is_not_null())
    if tested.is_empty():
        return "What is significant", ["Nothing can be said: too few episodes to resample."]
    single, corrected = (int(tested[f"significant_{rule}"].sum()) for rule in ("95", "holm"))
    lines = [
        f"Paired differences of macro F1 on shared replicates, {sample(results)}. Of "
        f"{count(len(tested), 'pair')}, {single} differ taken one by one (95% interval without 0) "
        f"and {corrected} after Holm's correction over all pairs (p < {ALPHA}). All pairs: "
        "pairwise.parquet.",
    ]
    if 2 / (results.replicates + 1) * len(tested) >= ALPHA:
        lines += [
            "",
            f"With {results.replicates:,} replicates no p is small enough to stay under {ALPHA} "
            f"after Holm's correction over {len(tested)} pairs: raise evaluation.replicates.",
        ]
    if results.n_episodes < FEW_EPISODES:
        lines += [
            "",
            f"From {count(results.n_episodes, 'episode')} that is no verdict: with fewer than "
            f"{FEW_EPISODES}, p comes out far too small.",
        ]
    if best := _best(results):
        others = [other for other in _everyone(results) if other != best]
        lines += ["", f"{best}, the best by val, minus each other:", ""]
        lines += _pairs(results, [(best, other) for other in others], "minus")
    if len(results.modes) == 2:
        known = set(results.detectors)
        both = [
            (Detector(name, results.modes[1]), Detector(name, results.modes[0]))
            for name in results.architectures
        ]
        both = [pair for pair in both if set(pair) <= known]
        if both:
            lines += ["", "What trusting the guest is worth, oracle minus realistic:", ""]
            lines += _pairs(results, both, "minus")
    return "What is significant", lines


def _pairs(results: Results, wanted: list[tuple[Detector, Detector]], second: str) -> list[str]:
    rows = []
    for a, b in wanted:
        pair = results.pair(a, b)
        if pair is not None:
            verdict = [yes(pair[f"significant_{rule}"]) for rule in ("95", "holm")]
            rows.append(
                [str(a), str(b), difference(pair), p(pair["p"]), p(pair["p_holm"]), *verdict]
            )
    header = ["detector", second, "difference", "p", "p (Holm)", "differs", "differs (Holm)"]
    return table(header, rows, align="ll")


def _has_seeds(results: Results) -> bool:
    return any(len(results.seeds(detector)) > 1 for detector in _everyone(results))


def _seeds(results: Results) -> Section:
    rows = [
        [*_names(detector), figure["seed"], interval(figure)]
        for detector in _everyone(results)
        for figure in results.seeds(detector)
    ]
    header = ["detector", "mode", "seed", f"macro F1, {results.part}"]
    return "Each seed alone", [f"{sample(results)}.", "", *table(header, rows, align="ll")]


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
                *_names(detector),
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
        *("detector", "mode", "seeds", "val macro F1, mean", "sd on val"),
        *(f"sd on {results.part}", "best seed", "learning rate", "collapses"),
    ]
    lines = [
        f"Means and standard deviations over seeds that did not fail; {sample(results, 'val')}. A "
        "model's exported seed is the best by val. A collapse that was mended is counted here and "
        "told in its collapse_report.json.",
        "",
        *table(header, rows, align="ll"),
    ]
    return "How the seeds were trained", lines


def _spread(results: Results, detector: Detector) -> str:
    figure = results.spread(detector)
    if figure is None:
        return NOTHING
    flag = ", unstable" if figure["estimate"] > UNSTABLE else ""
    return f"{figure['estimate']:.3f}{flag}"


def _searched(results: Results) -> Section:
    heading = "Search of settings"
    if not results.searched:
        return heading, ["None: no detector's settings were searched; all are as configured."]
    rows = [
        [
            *_names(detector),
            f"{tuning['n_trials']:,}",
            ", ".join(f"{name} {value}" for name, value in tuning["parameters"].items()) or NOTHING,
            tuning["reason"],
        ]
        for detector, tuning in results.searched
    ]
    lines = [
        "On val alone, before training. Val chose, so its figures of these detectors flatter; what "
        "is not listed was not searched and is as configured.",
        "",
        *table(["detector", "mode", "trials", "chosen", "why"], rows, align="llrll"),
    ]
    return heading, lines


def _split(results: Results) -> Section:
    split = results.split
    counts = split["counts"]
    rows = [
        [profile, *(f"{counts[profile].get(part, 0):,}" for part in PARTS)]
        for profile in sorted(counts)
    ]
    lines = [
        f"Recipe {split['recipe']}: train and val from {hosts(split['train_hosts'])}, test from "
        f"{hosts(split['test_hosts'])}. Episodes by profile and part:",
        "",
        *table(["profile", *PARTS], rows),
    ]
    if split["untested_profiles"] and results.part == "test":
        lines += ["", f"Untested profiles: {profiles(split['untested_profiles'])}."]
    if excluded := split["excluded"]:
        reasons = [f"{reason} ({excluded[reason]})" for reason in sorted(excluded)]
        lines += ["", f"Excluded, with why: {'; '.join(reasons)}."]
    return "Who was trained and tested on whom", lines
