"""All sections of a split, in the order in which both twins of the report show them."""

from __future__ import annotations

from typing import Final

from cis490.report import calibrated, card, compared, detected, probed, trained, where
from cis490.report.blocks import Section
from cis490.report.results import Results

CHAPTERS: Final = (
    compared.CHAPTER,
    where.CHAPTER,
    detected.CHAPTER,
    calibrated.CHAPTER,
    probed.CHAPTER,
    trained.CHAPTER,
    card.CHAPTER,
)


def sections(results: Results) -> list[Section]:
    """Every section that has anything to say, by chapter."""
    scored = (
        *(compared.compared, where.where, detected.detected, calibrated.calibrated),
        probed.probed,
    )
    found = [part for say in scored for part in say(results)] if results.part is not None else []
    return [*found, *trained.trained(results), card.split(results)]
