"""index.html: the report as one page that needs nothing else, and its pictures as files."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Final

import polars as pl

from cis490 import __version__, files
from cis490.files import read_json, write_json, write_text
from cis490.report import card, compared
from cis490.report.blocks import Block, Section, inline, to_html
from cis490.report.card import Card, episodes
from cis490.report.costs import Metadata, costs
from cis490.report.headline import (
    answer,
    caveats,
    downgraded,
    headline_table,
    question,
    simulated,
    title,
)
from cis490.report.method import TERMS, provenance
from cis490.report.pictures import Drawn, draw_split
from cis490.report.pitfalls import pitfalls
from cis490.report.results import Results, read_results
from cis490.report.sections import CHAPTERS, sections
from cis490.report.stylesheet import STYLESHEET
from cis490.report.summary import summary as summarise
from cis490.report.svg import inline_svg
from cis490.report.tiles import tiles

# Sections that are open from the start though no picture shows them.
_OPEN: Final = ("Alarms", "If more false alarms are allowed", "Probes")
_CURVES: Final = (
    "Val macro F1, without the phase filter, and losses over the epochs: every seed, the failed "
    "ones too. A mark is the epoch whose weights were kept; val chose it, so val flatters there. "
    "Single trainings: no interval."
)
_ROBUSTNESS: Final = (
    "Macro F1 on the part shown when rows of telemetry are lost and clocks are off; nothing is "
    "trained again. A line a model, means over seeds; the best by val of each mode is bold, with "
    "95% intervals of a bootstrap over episodes. Below: what other conditions change in its macro "
    "F1, paired. How many episodes were drawn stands in the numbers."
)
_COSTS: Final = "What they cost"
_PITFALLS: Final = "The ten pitfalls"
_METHOD: Final = "How these numbers were made"


def write_page(
    *,
    validation: Path,
    schema: Path,
    splits: Sequence[Path],
    metrics: Sequence[Path],
    pairwise: Sequence[Path],
    trainings: Sequence[Path],
    evals: Sequence[Path],
    metadata: Sequence[Path],
    predictions: Sequence[Path],
    curves: Sequence[Path],
    out: Path,
    pictures: Path,
    summary: Path,
    stages: Mapping[str, Sequence[Path]] = {},
) -> None:
    """Write index.html, its pictures and production_summary.json, copying numbers from files.

    Args:
        validation: validation.parquet.
        schema: schema.json, for the windows' length and stride.
        splits, metrics, pairwise, trainings, curves: one of each a split, the primary split first,
            as `comparison.write_comparison` has them.
        evals: the eval.json of every model of every split, in any order.
        metadata, predictions: training_metadata.json and predictions of the same models, in any
            order, named as the workflow does: <split>/<architecture>_<mode>/ and .parquet.
        out: the page.
        pictures: the folder for <split>/<name>.svg and for those of the whole store.
        summary: production_summary.json.
        stages: files of the stages beside the evaluation, as `results.read_results` has them.
    """
    verdicts = files.read_parquet(validation)
    window = read_json(schema)["window"]
    found = read_results(splits, metrics, pairwise, trainings, evals, stages)
    drawn = [
        draw_split(results, predictions, window, Path(pictures) / results.name) for results in found
    ]
    store = Drawn.write(episodes(Card.of(verdicts)), Path(pictures) / "episodes.svg")
    primary = found[0]
    curve = Path(curves[0]).read_text(encoding="utf-8")
    drawn[0]["curves"] = Drawn(f"Training curves of split {primary.name}", _CURVES, curve)
    _add_robustness(found, drawn)
    body = [
        _first_screen(found, verdicts),
        _chapters(primary, drawn[0], _store(verdicts, store)),
        _chapter(_COSTS, to_html(costs(primary, _metadata(primary, metadata)))),
        _chapter(_PITFALLS, f'<div class="prose">{to_html(pitfalls(primary, verdicts))}</div>'),
        *(
            _split(results, own, os.path.relpath(curve, Path(out).parent))
            for results, own, curve in zip(found[1:], drawn[1:], curves[1:], strict=True)
        ),
        _method(found),
    ]
    write_text(out, _document(title(primary), body))
    write_json(summary, summarise(found, verdicts))


def _add_robustness(found: Sequence[Results], drawn: Sequence[dict[str, Drawn]]) -> None:
    for results, own in zip(found, drawn, strict=True):
        if path := results.files.get("robustness_picture"):
            svg = path.read_text(encoding="utf-8")
            own["robustness"] = Drawn(f"Robustness of split {results.name}", _ROBUSTNESS, svg)


def _metadata(results: Results, paths: Sequence[Path]) -> Metadata:
    known = {(path.parent.parent.name, path.parent.name): path for path in map(Path, paths)}
    everyone = [*results.asked, *results.company]
    return {
        detector: read_json(known[results.name, "_".join(detector)])
        for detector in everyone
        if (results.name, "_".join(detector)) in known
    }


def _document(name: str, body: Sequence[str]) -> str:
    content = "\n".join(body)
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n'
        f"<title>{escape(name)}</title>\n<style>{STYLESHEET}</style>\n</head>\n"
        f"<body>\n<main>\n{content}\n<footer>cis490 {escape(__version__)}. This page needs no "
        "network; its numbers for machines: production_summary.json, its text twin: "
        "comparison_v2.md.</footer>\n</main>\n</body>\n</html>\n"
    )


def _first_screen(found: Sequence[Results], verdicts: pl.DataFrame) -> str:
    primary = found[0]
    if primary.n_simulated:
        return (
            f"<header><h1>{inline(title(primary))}</h1>"
            '<p class="question">Simulated store: no result</p>'
            f'<p class="banner">{inline(simulated(primary))}</p></header>{_nav(found)}'
        )
    others = [f"**Split `{results.name}`:** {answer(results)}" for results in found[1:]]
    bullets = [*downgraded(verdicts, primary), *caveats(primary), *others]
    return (
        f"<header><h1>{inline(title(primary))}</h1>\n"
        f'<p class="question">{inline(question(primary))}</p>\n'
        f'<p class="answer">{inline(answer(primary))}</p>\n'
        f"{_tiles(primary)}{_bullets(bullets)}</header>\n{_nav(found)}"
    )


def _bullets(bullets: Sequence[str]) -> str:
    return f'<ul class="caveats">{"".join(f"<li>{inline(text)}</li>" for text in bullets)}</ul>'


def _tiles(results: Results) -> str:
    items = "".join(
        f'<li><b>{inline(tile.figure)}</b><span class="between">{inline(tile.between)}</span>'
        f'<span class="what">{inline(tile.what)}</span></li>'
        for tile in tiles(results)
    )
    return f'<ul class="tiles">{items}</ul>\n' if items else ""


def _nav(found: Sequence[Results]) -> str:
    names = [*CHAPTERS, _COSTS, _PITFALLS, *map(_of_split, found[1:]), _METHOD]
    links = "".join(f'<a href="#{_anchor(name)}">{escape(name)}</a>' for name in names)
    return f'<nav aria-label="Chapters">{links}</nav>'


def _of_split(results: Results) -> str:
    return f"Split {results.name}"


def _anchor(name: str) -> str:
    return "".join(c if c.isalnum() or c == "_" else "-" for c in name)


def _chapter(name: str, *content: str) -> str:
    return f'<section id="{_anchor(name)}">\n<h2>{escape(name)}</h2>\n{"".join(content)}</section>'


def _store(verdicts: pl.DataFrame, drawn: Drawn) -> str:
    blocks = _numbers(Card.of(verdicts).blocks())
    return f"<h3>What the store holds</h3>\n{_figure('episodes', drawn)}{blocks}"


def _chapters(results: Results, drawn: dict[str, Drawn], store: str) -> str:
    """Every chapter of the primary split."""
    every = sections(results)
    chapters = []
    for name in CHAPTERS:
        own = [section for section in every if section.chapter == name]
        content = "".join(_section(section, drawn, results.name) for section in own)
        if name == compared.CHAPTER:
            content += _numbers(headline_table(results), "What clears the clock")
        if name == card.CHAPTER:
            content = store + content
        chapters.append(_chapter(name, content or '<p class="none">Nothing was scored.</p>'))
    return "\n".join(chapters)


def _section(section: Section, drawn: dict[str, Drawn], split: str) -> str:
    """A section with pictures shows them, and its numbers when asked; others are a line to open."""
    known = [name for name in section.pictures if name in drawn]
    if known:
        shown = "".join(_figure(f"{split}-{name}", drawn[name]) for name in known)
        return f"<h3>{inline(section.heading)}</h3>\n{shown}{_numbers(section.blocks)}"
    if section.heading in _OPEN:
        return f"<h3>{inline(section.heading)}</h3>\n{to_html(section.blocks)}"
    return _numbers(section.blocks, section.heading)


def _numbers(blocks: Sequence[Block], name: str = "The numbers") -> str:
    if not blocks:
        return ""
    return f"<details><summary>{inline(name)}</summary>\n{to_html(blocks)}</details>\n"


def _figure(name: str, drawn: Drawn) -> str:
    if drawn.svg is None:
        return f'<p class="none">{inline(drawn.caption)}</p>\n'
    svg = inline_svg(drawn.svg, name, drawn.title)
    kind = ' class="wide"' if name.endswith("curves") else ""
    return (
        f'<figure{kind}>\n<div class="drawing">{svg}</div>\n'
        f"<figcaption>{inline(drawn.caption)}{_numbers(drawn.blocks)}</figcaption>\n</figure>\n"
    )


def _split(results: Results, drawn: dict[str, Drawn], curves: str) -> str:
    """A further split: its first screen, its pictures, its numbers; its curves by a link."""
    link = f'<p><a href="{escape(curves)}">Training curves</a> of this split.</p>\n'
    content = [
        f'<p class="question">{inline(question(results))}</p>\n',
        f'<p class="answer">{inline(answer(results))}</p>\n',
        _bullets(caveats(results)),
        *(_section(section, drawn, results.name) for section in sections(results)),
        link,
    ]
    return _chapter(_of_split(results), *content)


def _method(found: Sequence[Results]) -> str:
    terms = "".join(f"<li>{inline(term)}</li>" for term in TERMS)
    return _chapter(_METHOD, f'<ul class="terms">{terms}</ul>\n', to_html(provenance(found)))
