"""comparison_v2.md: how well the detectors do on what they were not trained on, for people."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import polars as pl

from cis490 import files
from cis490.files import write_text
from cis490.report.blocks import to_markdown
from cis490.report.card import Card
from cis490.report.headline import (
    END_OF_HEADLINE,
    answer,
    caveats,
    downgraded,
    headline_table,
    question,
    simulated,
    title,
)
from cis490.report.method import TERMS, provenance
from cis490.report.pitfalls import pitfalls
from cis490.report.results import Results, read_results
from cis490.report.sections import sections


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
    stages: Mapping[str, Sequence[Path]] = {},
) -> None:
    """Write comparison_v2.md; it copies numbers from the files named and computes none.

    Args:
        validation: validation.parquet.
        splits, metrics, pairwise, trainings, curves: one of each a split, the primary split first;
            trainings are summary.json files, curves pictures (`report.curves`) to link to.
        evals: the eval.json of every model of every split, in any order.
        out: the file to write.
        stages: files of the stages beside the evaluation, as `results.read_results` has them.
    """
    verdicts = files.read_parquet(validation)
    found = read_results(splits, metrics, pairwise, trainings, evals, stages)
    lines = _first_screen(found, verdicts)
    for results, picture in zip(found, curves, strict=True):
        lines += _detail(results, primary=results is found[0])
        lines += _curves(results, os.path.relpath(picture, Path(out).parent))
    lines += ["## The ten pitfalls", "", *to_markdown(pitfalls(found[0], verdicts)), ""]
    lines += ["## Data", "", *to_markdown(Card.of(verdicts).blocks()), ""]
    lines += ["## How these numbers were made", "", *(f"- {term}" for term in TERMS), ""]
    lines += to_markdown(provenance(found))
    write_text(out, "\n".join(lines) + "\n")


def _first_screen(found: Sequence[Results], verdicts: pl.DataFrame) -> list[str]:
    primary = found[0]
    if primary.n_simulated:
        return [
            "# Simulated store: no result",
            "",
            simulated(primary),
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
        *(f"- {bullet}" for bullet in [*downgraded(verdicts, primary), *caveats(primary), *others]),
        "",
        "## Headline: macro F1 [95% interval]",
        "",
        *to_markdown(headline_table(primary)),
        "",
        END_OF_HEADLINE,
        "",
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
            *to_markdown(headline_table(results)),
            "",
        ]
    for section in sections(results):
        if section.blocks:
            lines += [f"### {section.heading}", "", *to_markdown(section.blocks), ""]
    return lines


def _curves(results: Results, link: str) -> list[str]:
    return [
        "### Training curves",
        "",
        "Every seed, the failed ones too, without the phase filter. A marked epoch is the one "
        "whose weights were kept; val chose it, so val flatters there.",
        "",
        f"![Macro F1 and loss over the epochs, for split {results.name}]({link})",
        "",
    ]
