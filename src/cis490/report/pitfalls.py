"""The ten pitfalls of machine learning in security, and the number of ours that answers each.

Source: D. Arp, E. Quiring, F. Pendlebury, A. Warnecke, F. Pierazzi, C. Wressnegger, L. Cavallaro
and K. Rieck, Dos and don'ts of machine learning in computer security, USENIX Security 2022.
"""

from __future__ import annotations

from typing import Final

import polars as pl

from cis490.episodes.summary import usable
from cis490.evaluation.baselines import CLOCK, MODE, TRAINED
from cis490.evaluation.breakdowns import CLEAR
from cis490.evaluation.tables import DECIDED
from cis490.report.blocks import Block, Table
from cis490.report.results import Detector, Results
from cis490.report.text import (
    NOTHING,
    difference,
    hosts,
    hourly,
    interval,
    listing,
    measured,
    profiles,
    signed,
    small,
)
from cis490.words import count

NOT_MEASURED = "Not measured"
_AGAIN: Final = (
    "snakemake --cores 2 --force {} results/report/comparison_v2.md && cis490 report pitfalls"
)


def pitfalls(results: Results, verdicts: pl.DataFrame) -> list[Block]:
    """A row a pitfall: what answers it here, and the command that computes it again.

    Args:
        results: of the primary split.
        verdicts: the rows of validation.parquet.
    """
    folder = f"results/eval/{results.name}"
    metrics = f"{folder}/metrics.parquet"
    detection = f"{folder}/detection.parquet"
    split = f"results/splits/{results.name}.json"
    probes, worse = (
        f" results/{stage}/{results.name}/{stage}.parquet" * (stage in results.told)
        for stage in ("probes", "robustness")
    )
    rows = [
        ["Sampling bias", _sampling(results, verdicts), f"{split} results/validation.parquet"],
        ["Label inaccuracy", _labels(results, verdicts), f"{metrics} results/validation.parquet"],
        ["Data snooping", _snooping(results, verdicts), f"{split} {metrics}{probes}"],
        ["Spurious correlations", _spurious(results), f"{folder}/pairwise.parquet{probes}"],
        ["Biased parameter selection", _selection(results), f"{metrics} {detection}"],
        ["Inappropriate baseline", _baseline(results), f"{folder}/pairwise.parquet"],
        ["Inappropriate performance measures", _measures(results), f"{metrics} {detection}"],
        ["Base rate fallacy", _base_rate(results), detection],
        ["Lab-only evaluation", _lab(results), f"results/validation.parquet {metrics}"],
        ["Inappropriate threat model", _threat(results), f"{folder}/pairwise.parquet{worse}"],
    ]
    return [
        "Arp et al., Dos and don'ts of machine learning in computer security, USENIX Security "
        f"2022; split `{results.name}`, part {results.part or NOTHING}. The command computes the "
        "number again from what the steps before it left, and shows it; name your own settings "
        "with `--configfile`.",
        Table(
            ["pitfall", "what answers it here", "command"],
            [[pitfall, told, f"`{_AGAIN.format(targets)}`"] for pitfall, told, targets in rows],
            align="lll",
            prose=True,
        ),
    ]


def _n(results: Results) -> str:
    return f"n = {count(results.n_episodes, 'episode')}"


def _sampling(results: Results, verdicts: pl.DataFrame) -> str:
    split = results.split
    machines = results.keys("host", "macro_f1")
    told = f"{results.part or 'nothing'}: {_n(results)} of {hosts(machines)}"
    if split["recipe"] == "host":
        told += f", trained on {hosts(split['train_hosts'])}"
    told += f". Not tested: {profiles(split['untested_profiles'])}."
    there = usable(verdicts)
    of_host = {name: set(there.filter(host_id=name)["profile"]) for name in machines}
    every = set().union(*of_host.values())
    for name, known in of_host.items():
        if lacking := sorted(every - known):
            told += f" {name} has no episode of {profiles(lacking)}, so its mix is another."
    if len(machines) < 2:
        told += " One host is no sample of hosts: what holds here need not hold on the next."
    return told


def _labels(results: Results, verdicts: pl.DataFrame) -> str:
    refused = len(verdicts) - len(usable(verdicts))
    told = f"{count(refused, 'episode')} of {len(verdicts):,} refused by validation."
    clear = results.figure(results.leader, "macro_f1", *CLEAR)
    if clear is None:
        return told
    return (
        f"Macro F1 {interval(clear)} on the {count(clear['n_windows'], 'window')} that one phase "
        f"covers to 0.8 or more, {interval(results.figure(results.leader, 'macro_f1'))} on all "
        f"({results.leader}). {told} Who labelled, and how well, no figure here can tell."
    )


def _snooping(results: Results, verdicts: pl.DataFrame) -> str:
    split = results.split
    both = set(split["train_hosts"]) & set(split["test_hosts"])
    shared = {
        "host": f"{count(len(both), 'host')} in both training and test",
        "sample": "no program is in both training and test",
        "time": "test episodes are later than all of training",
    }
    told = f"Recipe {split['recipe']}: {shared[split['recipe']]}; no episode is in two parts."
    if split["recipe"] == "host":
        told += _at_the_same_time(verdicts, split["train_hosts"], split["test_hosts"])
    probe = Detector("gbt", "realistic"), "macro_f1_over_episodes", "probe", "split_by_window"
    if "probes" in results.told:
        changed = len(results.told["probes"]["changed"])
        told += f" {count(changed, 'artefact')} of training changed with noise as test rows."
    if gain := results.figure(*probe, part="train+val"):
        told += f" A split by window, which leaks, would flatter gbt by {signed(gain)}."
    if results.part != "test":
        return f"{told} There is no test part: val chose, and is shown."
    if results.leader is None:
        return f"{told} No detector was chosen, for none has a figure on val."
    val = results.figure(results.leader, "macro_f1", part="val")
    return f"{told} {results.leader} has {interval(val)} on val, which chose it, and " + (
        f"{interval(results.figure(results.leader, 'macro_f1'))} on test."
    )


def _at_the_same_time(verdicts: pl.DataFrame, train: list[str], test: list[str]) -> str:
    """How many episodes of test hosts were recorded while one of a training host was."""
    timed = usable(verdicts).with_columns(
        begin="started_wall_ns",
        end=pl.col("started_wall_ns") + (pl.col("duration_s") * 1e9).cast(pl.Int64),
    )
    learned, tested = (timed.filter(pl.col("host_id").is_in(of)) for of in (train, test))
    if learned.is_empty() or tested.is_empty():
        return ""
    begun = learned["begin"].sort().search_sorted(tested["end"], side="left")
    ended = learned["end"].sort().search_sorted(tested["begin"], side="right")
    return (
        f" {(begun > ended).sum():,} of {count(len(tested), 'episode')} of test hosts were "
        "recorded while one of a training host was: what they shared then, as hardware, stays "
        "shared."
    )


def _spurious(results: Results) -> str:
    clock = results.figure(Detector(CLOCK, MODE), "macro_f1")
    if clock is None:
        return f"{NOT_MEASURED}: window index alone has no figure."
    told = f"Window index alone, without any channel: macro F1 {interval(clock)}, {_n(results)}."
    if results.leader and (pair := results.against_clock(results.leader)):
        told += f" {results.leader} minus it: {difference(pair)}."
    probe = Detector("gbt", "realistic"), "macro_f1", "probe", "host"
    if host := results.figure(*probe, part="all"):
        told += f" gbt tells the host from the features with macro F1 {interval(host)}."
    if p_value := results.figure(results.leader, "p", "probe", "exchanged"):
        told += f" Against exchanged truths: p = {p_value['estimate']:.2g}."
    return told


def _selection(results: Results) -> str:
    told = "Weights, rates and the best are chosen on val, thresholds and temperatures out of fold."
    if results.searched:
        told += f" Settings of {count(len(results.searched), 'detector')} were searched on val."
    leader = results.leader
    rule = results.threshold(leader) if leader else {}
    if rule.get("rule"):
        figure = results.figure(leader, "false_alarms_per_hour", "alarm", "all")
        told += (
            f" Threshold of {leader}: {rule['n_false']} false alarms in {rule['hours']:.2f} h of "
            f"clean time out of fold ({count(rule['n_episodes'], 'episode')}); on {results.part} "
            f"{hourly(figure)} an hour."
        )
    return told


def _baseline(results: Results) -> str:
    fair = [
        each
        for each in results.baselines
        if each.model in TRAINED and results.leader and each.mode == results.leader.mode
    ]
    if not fair or results.leader is None:
        return f"{NOT_MEASURED}: no trained baseline beside a best detector."
    told = [
        f"{results.leader} minus {each}: {difference(results.pair(results.leader, each))}"
        for each in fair
    ]
    alike = [
        str(each)
        for each in fair
        if (pair := results.pair(results.leader, each)) and not pair["significant_95"]
    ]
    verdict = f" It could not be told from {listing(alike)}." if alike else ""
    return f"{'; '.join(told)} macro F1, paired, {_n(results)}.{verdict}"


def _measures(results: Results) -> str:
    leader = results.leader
    if leader is None or results.figure(leader, "macro_f1") is None:
        return f"{NOT_MEASURED}: there is no best detector."
    majority = results.figure(Detector("majority", MODE), "accuracy")
    told = (
        f"{leader}: macro F1 {interval(results.figure(leader, 'macro_f1'))}, accuracy "
        f"{interval(results.figure(leader, 'accuracy'))} (majority: {interval(majority)})"
    )
    further = (
        ("mcc", DECIDED, "MCC of infected against clean"),
        ("pr_auc", "ranking", "PR-AUC of the same"),
    )
    for metric, scope, words in further:
        if figure := results.figure(leader, metric, scope):
            told += f", {words} {measured(figure)}"
    return f"{told}; {_n(results)}."


def _base_rate(results: Results) -> str:
    leader = results.leader
    if leader is None:
        return f"{NOT_MEASURED}: there is no best detector."
    told = []
    for words, prefix in (
        ("by the likeliest phase", f"{DECIDED}_"),
        ("at the alarm threshold", ""),
    ):
        scope = f"{prefix}base_rate"
        rates = sorted(results.keys(scope, "precision"), key=float, reverse=True)
        figures = [(rate, results.figure(leader, "precision", scope, rate)) for rate in rates]
        if precise := [f"{small(figure)} at {rate}" for rate, figure in figures if figure]:
            told.append(f"{words}: {'; '.join(precise)}")
    if not told:
        return f"{NOT_MEASURED}: no clean or no infected windows, so no precision at a base rate."
    return f"Precision of {leader} if so few windows were infected: {'; '.join(told)}."


def _lab(results: Results) -> str:
    machines = results.keys("host", "macro_f1")
    told = (
        "Not answered: all episodes were recorded on purpose, on virtual machines, so nothing here "
        "was measured in production. Whether a sample is malware or imitates it, its episodes do "
        "not tell."
    )
    if results.leader is None or not machines:
        return told
    figures = [
        f"{name} {interval(results.figure(results.leader, 'macro_f1', 'host', name))}"
        for name in machines[:3]
    ]
    return f"{told} Nearest to it, macro F1 of {results.leader} by host: {listing(figures)}."


def _threat(results: Results) -> str:
    told = "Realistic detectors see no channel that malware in the guest can forge."
    best = results.leader
    if best is None or len(results.modes) < 2:
        return told
    pair = results.pair(Detector(best.model, results.modes[1]), best)
    told += (
        f" What trusting the guest would be worth to {best.model}, oracle minus realistic: "
        f"{difference(pair)} macro F1, paired, {_n(results)}."
    )
    for each in (best, results.best(results.modes[1])):
        if lost := results.figure(each, "macro_f1_change", "robustness", "lying_guest"):
            deaf = lost["estimate"] == lost["low"] == lost["high"] == 0
            changed = "nothing, for it does not listen" if deaf else signed(lost)
            told += f" A guest that lies changes {each} by {changed}."
    return f"{told} Malware that shapes what the host sees of it was not tested."
