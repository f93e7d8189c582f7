"""comparison_v2.md: how well the detectors do on what they were not trained on, for people."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import polars as pl

from cis490 import files
from cis490.episodes.summary import downgraded_hosts
from cis490.files import write_text
from cis490.markdown import table
from cis490.report.headline import (
    END_OF_HEADLINE,
    answer,
    caveats,
    headline_table,
    question,
    sample,
    title,
)
from cis490.report.results import Results, read_results
from cis490.report.sections import sections
from cis490.report.text import NOTHING, count, listing

STATUSES: Final = ("accepted", "degraded", "rejected", "errored")


def write_comparison(
    *,
    validation: Path,
    splits: Sequence[Path],
    metrics: Sequence[Path],
    pairwise: Sequence[Path],
    trainings: Sequence[Path],
    evals: Sequence[Path],
    curves: Sequence[Path],
    out: Path,
) -> None:
    """Write comparison_v2.md; it copies numbers from the files named and computes none.

    Args:
        validation: validation.parquet.
        splits, metrics, pairwise, trainings, curves: one of each a split, the primary split first;
            trainings are summary.json files, curves pictures (`report.curves`) to link to.
        evals: the eval.json of every model of every split, in any order.
        out: the file to write.
    """
    verdicts = files.read_parquet(validation)
    found = read_results(splits, metrics, pairwise, trainings, evals)
    lines = _first_screen(found, verdicts)
    for results, picture in zip(found, curves, strict=True):
        lines += _detail(results, primary=results is found[0])
        lines += _curves(results, os.path.relpath(picture, Path(out).parent))
    lines += _data(verdicts) + _method(found)
    write_text(out, "\n".join(lines) + "\n")


def _first_screen(found: Sequence[Results], verdicts: pl.DataFrame) -> list[str]:
    primary = found[0]
    downgraded = [
        f"**Downgraded host:** {host['host_id']} lacks {host['source']} in {host['n_lacking']} of "
        f"{count(host['n_episodes'], 'episode')}."
        for host in downgraded_hosts(verdicts)
    ]
    if primary.n_simulated:
        return [
            "# Simulated store: no result",
            "",
            f"**{primary.n_simulated:,} usable episodes are clones of real ones**, and clones of "
            "one episode stand on both sides of every split. The figures below test the workflow; "
            "they say nothing of any detector.",
            "",
            END_OF_HEADLINE,
            "",
        ]
    others = [f"**Split `{results.name}`:** {answer(results)}" for results in found[1:]]
    return [
        f"# {title(primary)}",
        "",
        f"**Question:** {question(primary)}",
        "",
        f"**Answer:** {answer(primary)}",
        "",
        *(f"- {bullet}" for bullet in [*downgraded, *caveats(primary), *others]),
        "",
        "## Headline: macro F1 [95% interval]",
        "",
        *_headline(primary),
        "",
        END_OF_HEADLINE,
        "",
    ]


def _headline(results: Results) -> list[str]:
    parts = [results.part, "val"] if results.part == "test" else [results.part]
    described = [sample(results, part) for part in parts if part]
    return [
        f"Split `{results.name}`. {'; '.join(described) or 'Nothing was scored'}.",
        "",
        *headline_table(results),
    ]


def _detail(results: Results, *, primary: bool) -> list[str]:
    lines = [f"## Split `{results.name}` in detail", ""]
    if not primary:
        lines = [
            f"## Split `{results.name}`: {title(results)}",
            "",
            f"**Question:** {question(results)}",
            "",
            f"**Answer:** {answer(results)}",
            "",
            *(f"- {bullet}" for bullet in caveats(results)),
            "",
            *_headline(results),
            "",
        ]
    for heading, body in sections(results):
        lines += [f"### {heading}", "", *body, ""]
    return lines


def _curves(results: Results, link: str) -> list[str]:
    return [
        "### Training curves",
        "",
        "Every seed, the failed ones too. A marked epoch is the one whose weights were kept; val "
        "chose it, so val flatters there.",
        "",
        f"![Macro F1 and loss over the epochs, for split {results.name}]({link})",
        "",
    ]


def _data(verdicts: pl.DataFrame) -> list[str]:
    hosts = verdicts.with_columns(pl.col("host_id").fill_null("unknown"))
    counted = hosts.group_by("host_id", "status").len().rows()
    n: dict[tuple[str, str], int] = {(host, status): many for host, status, many in counted}
    names = sorted({host for host, _ in n})
    rows: list[list[Any]] = [
        [host, *(f"{n.get((host, status), 0):,}" for status in STATUSES)] for host in names
    ]
    return [
        "## Data",
        "",
        f"{count(len(verdicts), 'indexed episode')} by host and verdict; accepted and degraded "
        "ones take part. Reasons: validation.md.",
        "",
        *table(["host", *STATUSES], rows),
        "",
    ]


def _method(found: Sequence[Results]) -> list[str]:
    lines = [
        "## How these numbers were made",
        "",
        "- **Macro F1:** the mean of F1 over the phases that the whole truth of the part has.",
        "- **Interval:** 95% percentile interval of a bootstrap that draws whole episodes, "
        "stratified by profile, the same for all detectors, and, where there are several, seeds "
        "within each detector. A figure of exactly 0 or 1 has a Clopper-Pearson interval with "
        "episodes as trials (of a macro figure, the mean of its phases' ends).",
        "- **Val** was seen by early stopping and chose the best, so its figures flatter.",
        "- **Best** is by macro F1 on val, never on test.",
        "- **Clears the clock:** the paired difference to window index alone has its whole 95% "
        "interval above 0.",
        "- **Replicates** in a table counts those in which no phase had to be skipped because the "
        "drawn episodes lack it.",
        "",
    ]
    rows = [
        [results.name, str(results.split["sha256"])[:12], _seeds(results), _signature(results)]
        for results in found
    ]
    lines += table(["split", "hash", "seeds", "signature of the headline"], rows, align="llll")
    lines += [
        "",
        "Every number here stands in metrics.parquet, pairwise.parquet and the eval.json files of "
        "its split, in the split's json, or in validation.parquet.",
    ]
    return lines


def _seeds(results: Results) -> str:
    seeds = {seed for summary in results.evals for seed in summary["n"]["seeds"]}
    return listing([str(seed) for seed in sorted(seeds)])


def _signature(results: Results) -> str:
    shown = [results.best(results.modes[0])] if results.modes else []
    for detector in [*shown, *results.detectors, *results.baselines]:
        figure = results.figure(detector, "macro_f1")
        if figure:
            return f"`{figure['signature'].replace('|', ' ')}`"
    return NOTHING
