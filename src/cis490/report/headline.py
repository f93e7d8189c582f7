"""The report's first screen: the question, the answer with its interval, what was not tested."""

from __future__ import annotations

from typing import Any, Final

import polars as pl

from cis490.channels import PHASES
from cis490.episodes.summary import DOWNGRADED_SHARE, downgraded_hosts, usable
from cis490.evaluation.baselines import CLOCK, DESCRIPTION, MODE
from cis490.evaluation.tables import BEST_OF, SILENT
from cis490.markdown import one_line
from cis490.report import transferred
from cis490.report.blocks import Block, Table
from cis490.report.results import Detector, Results
from cis490.report.text import (
    FEW_HOSTS,
    NOTHING,
    difference,
    hosts,
    interval,
    listing,
    profiles,
)
from cis490.seeds import UNSTABLE
from cis490.words import count

END_OF_HEADLINE: Final = "<!-- end of headline -->"

# Under this macro F1 of window index alone a corpus is fit for use (docs/statistics.md).
FIT_FOR_USE: Final = 0.30
# Share of draws of val in which the best must stay so for its choice to be told as it is.
_OFTEN: Final = 0.95

_QUESTION: Final = {
    "host": "Does a detector trained on these machines ({train}) work on a machine it has never "
    "seen ({test}), and how sure are we?",
    "sample": "Does a detector work on programs it has never seen, and how sure are we?",
    "time": "Does a detector work on later episodes of the machines it was trained on, and how "
    "sure are we?",
}


def title(results: Results) -> str:
    """The report's title; plain about it when nothing was held out."""
    n = count(len(results.asked), "detector")
    if results.part == "test":
        return f"Malware phases, {n} compared"
    held_out = "No test part"
    if results.split["recipe"] == "host":
        asked = results.split["test_hosts"]
        held_out = f"Nothing usable of {hosts(asked)}" if asked else "No held-out host"
    return f"{held_out}: malware phases, {n} compared on val"


def question(results: Results) -> str:
    """What the split asks."""
    split = results.split
    test = hosts(split["test_hosts"], "none was held out")
    return _QUESTION[split["recipe"]].format(train=hosts(split["train_hosts"]), test=test)


def answer(results: Results) -> str:
    """One or two sentences: the best realistic detector by val, and its figure."""
    if results.part is None:
        return "Nothing could be scored: this split has no window in test or val."
    mode = results.modes[0] if results.modes else "realistic"
    if not results.asked:
        return "None: no detector was trained, only a baseline."
    if not results.detectors:
        failed = [detector for detector, _ in results.failed if detector in results.asked]
        return f"None: {count(len(failed), 'detector')} of {len(results.asked)} failed."
    best = results.best(mode)
    if best is None:
        return (
            f"Undecided: no {mode} detector has a figure on val, and the best is chosen by val, "
            "never by test. Val takes one of every few usable training episodes of a host and "
            "profile (`split.val_fraction`): where none has so many, val is empty."
        )
    measured = results.keys("phase", "f1")
    if len(measured) < 2:
        return (
            f"Cannot be said: the windows of {results.part} are all {listing(measured)}, and a "
            "detector shows itself by telling phases apart."
        )
    text = (
        f"The best {mode} detector by val, {best.model}, reaches macro F1 "
        f"{interval(results.figure(best, 'macro_f1'))} on {_sample(results)}."
    )
    if results.part != "test":
        return f"{text} Early stopping and the choice have seen val: new machines are not judged."
    return f"{text} {_clock(results, best)}"


def _clock(results: Results, best: Detector) -> str:
    pair, clears = results.against_clock(best), results.clears_clock(best)
    if clears is None or pair is None:
        return (
            "Whether it knows more than the clock cannot be said from "
            f"{count(results.n_episodes, 'episode')}."
        )
    verdict = "it reads" if clears else "there is no evidence that it reads"
    return (
        f"Its difference to window index alone is {difference(pair)}: {verdict} more than the "
        "clock."
    )


def sample(results: Results, part: str | None = None) -> str:
    """`test: 451 windows of 41 episodes of 1 host (birch)`, from the rows of any detector."""
    part = part or results.part
    machines = sorted(set(results.metrics.filter(scope="host", part=part or "")["key"]))
    shown = [*results.detectors, *results.baselines]
    figure = results.figure(shown[0], "macro_f1", part=part) if shown else None
    if figure is None:
        return f"{part}: nothing"
    names = f" ({listing(machines)})" if len(machines) < FEW_HOSTS else ""
    return (
        f"{part}: {count(figure['n_windows'], 'window')} of "
        f"{count(figure['n_episodes'], 'episode')} of {count(len(machines), 'host')}{names}"
    )


def _sample(results: Results) -> str:
    return sample(results).replace(":", ",", 1)


def downgraded(verdicts: pl.DataFrame, results: Results) -> list[str]:
    """A bullet for each host and source that it often lacks, or that often has no value there.

    Args:
        verdicts: the rows of validation.parquet.
        results: of the primary split.
    """
    lacking = downgraded_hosts(verdicts)
    silent = [
        host | {"n_silent": host["n_silent"] - _without(verdicts, host["host_id"], host["source"])}
        for host in results.told["metrics"].get(SILENT, [])
    ]
    return [
        f"**Downgraded host:** {host['host_id']} lacks {host['source']} in {host['n_lacking']} of "
        f"{count(host['n_episodes'], 'episode')}."
        for host in lacking
    ] + [
        f"**Silent source:** {host['source']} of {host['host_id']} is there but has no value in "
        f"{host['n_silent']} of {count(host['n_episodes'], 'episode')}."
        for host in silent
        if host["n_silent"] > DOWNGRADED_SHARE * host["n_episodes"]
    ]


def _without(verdicts: pl.DataFrame, host_id: str, source: str) -> int:
    """Episodes of a host that take part without the source's file."""
    of_host = usable(verdicts).filter(host_id=host_id)
    return int(of_host["reasons"].list.contains(f"no_{source}").sum())


def simulated(results: Results) -> str:
    """Why a store of clones gives no result."""
    return (
        f"**{results.n_simulated:,} usable episodes are clones of real ones**, and clones of "
        "one episode stand on both sides of every split. The figures below test the workflow; "
        "they say nothing of any detector."
    )


def caveats(results: Results) -> list[str]:
    """Bullets of what the answer does not say."""
    shown = [*results.detectors, *results.baselines]
    figure = results.figure(shown[0], "macro_f1") if shown else None
    bullets = []
    untested = results.split["untested_profiles"]
    if untested and results.part == "test":
        bullets.append(f"**Not tested:** {profiles(untested)}: no test episode has this profile.")
    bullets = transferred.bullet(results) + bullets + _phases(results)
    bullets += [
        f"**Failed:** {detector}: {one_line(reason)}" for detector, reason in results.failed
    ]
    bullets += [
        f"**Failed:** {detector}, seed {seed}: {one_line(reason)}"
        for detector, seed, reason in results.failed_seeds
    ]
    clock = results.figure(Detector(CLOCK, MODE), "macro_f1")
    if clock and results.split["recipe"] == "host" and results.part == "test":
        fit = _fit(clock, len(results.keys("phase", "f1")))
        told = f"window index alone reaches {interval(clock)}: {fit}"
        bullets.append(f"**The clock:** {told}.")
    if results.searched:
        bullets.append(
            f"**Searched:** the settings of {len(results.searched)} of "
            f"{count(len(results.asked), 'detector')} were chosen on val among "
            f"{_trials(results)}, so val flatters these detectors more than the others."
        )
    bullets += _outdone(results)
    if figure and len(results.all_seeds) == 1:
        bullets.append(
            f"**Trained once:** with seed {results.all_seeds[0]}. Intervals and p compare these "
            "trainings; another seed would move a figure, often to the end of its interval."
        )
    if unstable := results.unstable:
        names = [f"{detector} {spread['estimate']:.3f}" for detector, spread in unstable]
        bullets.append(
            f"**Unstable:** macro F1 differs between {count(len(results.all_seeds), 'seed')} by a "
            f"standard deviation above {UNSTABLE}: {listing(names)}."
        )
    if chosen := _by_chance(results):
        bullets.append(f"**Best by val, by chance:** {chosen}")
    if figure:
        bullets.append(
            "**Conditional on these hosts:** the intervals resample episodes of "
            f"{hosts(results.keys('host', 'macro_f1'))}; they do not cover how the figure would "
            "move on another machine."
        )
        bullets.append(f"**Small n:** {coverage(results)}")
    return bullets


def _trials(results: Results) -> str:
    """`24 trials each`, or from how few to how many."""
    n = sorted({tuning["n_trials"] for _, tuning in results.searched})
    return f"{count(n[-1], 'trial')} each" if len(n) == 1 else f"{n[0]:,} to {n[-1]:,} trials each"


def _outdone(results: Results) -> list[str]:
    """Company that is surely better than the answer's detector, in the same mode or in none."""
    best = results.leader
    if best is None:
        return []
    bullets = []
    for baseline in results.baselines:
        pair = results.pair(best, baseline)
        fair = baseline.mode in (best.mode, MODE)
        if fair and pair is not None and pair["high"] is not None and pair["high"] < 0:
            bullets.append(
                f"**A baseline is better:** {baseline} reaches "
                f"{interval(results.figure(baseline, 'macro_f1'))}; {best.model} differs from it "
                f"by {difference(pair)}."
            )
    return bullets


def _phases(results: Results) -> list[str]:
    """What macro F1 is silent about: phases that were not tested, or never trained."""
    if results.part is None:
        return []
    measured = results.keys("phase", "f1")
    bullets = []
    if absent := [phase for phase in PHASES if phase not in measured]:
        bullets.append(
            f"**Phases:** macro F1 is over {len(measured)} of {len(PHASES)} phases: no window of "
            f"{results.part} is {listing(absent, last='or')}."
        )
    if unknown := [phase for phase in PHASES if phase not in results.trained_phases]:
        bullets.append(f"**Never trained:** no training window is {listing(unknown)}.")
    return bullets


def _fit(clock: dict[str, Any], n_phases: int) -> str:
    """Whether phases can be told from the time alone, judged by the whole interval."""
    bar = f"{FIT_FOR_USE:.2f}"
    if n_phases < 2:
        return "all windows are of one phase, and nothing can be told from that"
    if clock["low"] is None:
        return f"too few episodes to say whether that is under {bar}"
    if clock["high"] < FIT_FOR_USE:
        return f"under {bar}, so the corpus is fit for use"
    if clock["low"] < FIT_FOR_USE:
        return f"its interval holds {bar}, so whether the corpus is fit for use is undecided"
    return f"over {bar}, so the corpus is not fit for use: phases can be told from the time alone"


def _by_chance(results: Results) -> str:
    """How often the answer's detector is the best in replicates of val, if not nearly always."""
    best = results.leader
    figure = results.figure(best, BEST_OF, part="val")
    if best is None or figure is None or figure["estimate"] > _OFTEN:
        return ""
    others = [
        (other["estimate"], each.model)
        for each in results.detectors
        if each.mode == best.mode and each != best
        if (other := results.figure(each, BEST_OF, part="val"))
    ]
    told = [
        f"{model} in {share:.0%}"
        for share, model in sorted(others, reverse=True)
        if share > 1 - _OFTEN
    ]
    rest = f"; {listing(told)}" if told else ""
    return (
        f"of draws of the {count(figure['n_episodes'], 'episode')} of val {best.model} is the best "
        f"in {figure['estimate']:.0%}{rest}."
    )


def coverage(results: Results) -> str:
    """How much less than 95% the intervals cover: measured, or what simulations found."""
    told = []
    for part in dict.fromkeys(filter(None, (results.part, "val"))):
        if figure := results.coverage(part):
            share = f"{figure['estimate']:.0%} on {part} ({count(figure['n_episodes'], 'episode')})"
            told.append(share)
    if told:
        return (
            "with few episodes a 95% interval may cover less than it says. Measured for the "
            "headline, with these episodes as if they were the population: "
            f"{' and '.join(told)}."
        )
    return (
        "with few episodes a 95% interval covers less than it says: in a simulation 86% at 8 "
        f"episodes, 92% at 20-32, 95% from 60. Here {count(results.n_episodes, 'episode')}."
    )


def headline_table(results: Results) -> list[Block]:
    """What was scored; models by macro F1, realistic beside oracle; then the baselines."""
    parts = [results.part, "val"] if results.part == "test" else [results.part]
    described = [sample(results, part) for part in parts if part]
    about = f"Split `{results.name}`. {'; '.join(described) or 'Nothing was scored'}."
    part, modes = results.part, results.modes
    if part is None:
        return [about]
    first = modes[0] if modes else "realistic"
    best = results.best(first)
    columns = [f"{mode}, {part}" for mode in modes]
    if part != "val":
        columns.append(f"{first}, val")
    rows = []
    for name in results.architectures:
        mine = [Detector(name, mode) for mode in modes]
        cells = [_cell(results, detector) for detector in mine]
        if part != "val":
            cells.append(interval(results.figure(mine[0], "macro_f1", part="val")))
        marker = " (best by val)" if best == mine[0] else ""
        rows.append([name + marker, *cells, _clears(results, mine)])
    models = Table(["detector", *columns, "clears the clock"], rows)
    company = [
        [
            str(detector),
            interval(results.figure(detector, "macro_f1")),
            *([interval(results.figure(detector, "macro_f1", part="val"))] * (part != "val")),
            DESCRIPTION[detector.model],
        ]
        for detector in results.baselines
    ]
    header = ["baseline", f"{part}", *(["val"] * (part != "val")), "what it does"]
    align = "l" + "r" * (len(header) - 2) + "l"
    return [about, models, Table(header, company, align), *transferred.headline(results)]


def _cell(results: Results, detector: Detector) -> str:
    failed = detector in [failure for failure, _ in results.failed]
    return "failed" if failed else interval(results.figure(detector, "macro_f1"))


def _clears(results: Results, detectors: list[Detector]) -> str:
    verdicts: dict[str, Any] = {
        detector.mode: results.clears_clock(detector)
        for detector in detectors
        if results.figure(detector, "macro_f1")
    }
    if None in verdicts.values() or not verdicts:
        return NOTHING
    clearing = [mode for mode, clears in verdicts.items() if clears]
    if len(clearing) == len(detectors) > 1:
        return "both"
    return " and ".join(clearing) or "none"
