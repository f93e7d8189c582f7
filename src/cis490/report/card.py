"""The data card: episodes by host, verdict and profile; windows by part and phase."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import polars as pl

from cis490.channels import PHASES
from cis490.episodes.faults import USABLE
from cis490.episodes.summary import STATUSES, usable
from cis490.report.blocks import Block, Section, Table
from cis490.report.matrix import Cell, Column, Row, draw
from cis490.report.results import Results
from cis490.report.svg import Picture
from cis490.report.text import FEW_HOSTS, hosts, profiles
from cis490.words import count

CHAPTER: Final = "The data"
_PARTS: Final = ("train", "val", "test", "excluded")
_UNKNOWN: Final = "unknown"


@dataclass(frozen=True)
class Card:
    """Counts of a store's episodes.

    Attributes:
        statuses: host -> verdict -> indexed episodes.
        profiles: host -> profile -> usable episodes, those that are accepted or degraded.
        n: indexed episodes.
    """

    statuses: dict[str, dict[str, int]]
    profiles: dict[str, dict[str, int]]
    n: int

    @classmethod
    def of(cls, verdicts: pl.DataFrame) -> Card:
        """From the rows of validation.parquet."""
        named = verdicts.with_columns(pl.col("host_id", "profile").fill_null(_UNKNOWN))
        hosts = sorted(set(named["host_id"]))
        return cls(
            _counted(named, "status", hosts),
            _counted(usable(named), "profile", hosts),
            len(verdicts),
        )

    @property
    def columns(self) -> list[str]:
        """All profiles, sorted."""
        return sorted({name for row in self.profiles.values() for name in row})

    def blocks(self) -> list[Block]:
        """The tables of both twins."""
        by_status = [
            [host, *(f"{row.get(status, 0):,}" for status in STATUSES)]
            for host, row in self.statuses.items()
        ]
        by_profile = [
            [host, *(f"{row.get(name, 0):,}" for name in self.columns)]
            for host, row in self.profiles.items()
        ]
        return [
            f"{count(self.n, 'indexed episode')} by host and verdict; accepted and degraded "
            "ones take part. Reasons: validation.md.",
            Table(["host", *STATUSES], by_status),
            "Those that take part, by host and profile:",
            Table(["host", *self.columns], by_profile),
        ]


def _counted(rows: pl.DataFrame, column: str, hosts: Sequence[str]) -> dict[str, dict[str, int]]:
    counts: dict[str, dict[str, int]] = {host: {} for host in hosts}
    for host, name, n in rows.group_by("host_id", column).len().rows():
        counts[host][name] = n
    return counts


def episodes(card: Card) -> Picture:
    """Usable episodes by host and profile, and those that cannot be used."""
    title = "Episodes by host, profile and verdict"
    names = card.columns
    if not names:
        return Picture(title, "No episode is usable.", None)
    largest = sorted(card.profiles, key=lambda host: (-sum(card.profiles[host].values()), host))
    shown, others = largest[:FEW_HOSTS], largest[FEW_HOSTS:]
    listed = [(host, card.profiles[host], card.statuses[host]) for host in shown]
    if others:
        usable, verdicts = (
            _sum([table[host] for host in others]) for table in (card.profiles, card.statuses)
        )
        listed.append((count(len(others), "other"), usable, verdicts))
    most = max(n for _, row, _ in listed for n in row.values())
    rows = []
    for host, usable, statuses in listed:
        cells = [_cell(usable.get(name, 0), most) for name in names]
        unusable = sum(n for status, n in statuses.items() if status not in USABLE)
        apart = [Cell(f"{n:,}") for n in (statuses.get("degraded", 0), unusable)]
        rows.append(Row(host, [*cells, *apart]))
    columns = [*map(Column, names), Column("degraded", apart=True), Column("unusable")]
    return Picture(
        title,
        f"{count(card.n, 'indexed episode')}: of each host, usable ones by profile (**none**: "
        "controls); to the right, how many of them are degraded, and how many others were rejected "
        "or errored. Counts, without an interval.",
        draw(columns, rows).figure,
    )


def _cell(n: int, most: int) -> Cell:
    return Cell(f"{n:,}", 0.7 * n / most if n else None)


def _sum(rows: Sequence[dict[str, int]]) -> dict[str, int]:
    names = sorted({name for row in rows for name in row})
    return {name: sum(row.get(name, 0) for row in rows) for name in names}


def split(results: Results) -> Section:
    """Who was trained and tested on whom."""
    found = results.split
    counts = found["counts"]
    rows = [
        [profile, *(f"{counts[profile].get(part, 0):,}" for part in _PARTS)]
        for profile in sorted(counts)
    ]
    blocks: list[Block] = [
        f"Recipe {found['recipe']}: train and val from {hosts(found['train_hosts'])}, test from "
        f"{hosts(found['test_hosts'])}. Episodes by profile and part:",
        Table(["profile", *_PARTS], rows),
    ]
    if as_of := found.get("as_of"):
        blocks += [f"Trained on what had started and arrived by {as_of}, and on nothing later."]
    if found["untested_profiles"] and results.part == "test":
        blocks += [f"Untested profiles: {profiles(found['untested_profiles'])}."]
    if excluded := found["excluded"]:
        reasons = [f"{reason} ({excluded[reason]})" for reason in sorted(excluded)]
        blocks += [f"Excluded, with why: {'; '.join(reasons)}."]
    if results.windows_by_phase:
        blocks += ["Windows by part and phase:", by_phase(results)]
    return Section(CHAPTER, "Who was trained and tested on whom", blocks, ("phases",))


def by_phase(results: Results) -> Table:
    """Windows of each part by phase."""
    rows = []
    for part, counts in results.windows_by_phase.items():
        cells = [f"{counts.get(phase, 0):,}" for phase in PHASES]
        rows.append([part, f"{sum(counts.values()):,}", *cells])
    return Table(["part", "windows", *PHASES], rows)


def phases(results: Results) -> Picture:
    """Which share of each part's windows is in which phase."""
    title = f"Windows of split {results.name} by part and phase"
    parts = {part: counts for part, counts in results.windows_by_phase.items() if counts}
    if not parts:
        return Picture(title, "No part has a window.", None)
    rows = []
    for part, counts in parts.items():
        n = sum(counts.values())
        cells = [_cell(counts.get(phase, 0), n) for phase in PHASES]
        rows.append(Row(part, [*cells, Cell(f"{n:,}")]))
    return Picture(
        title,
        f"Windows of split `{results.name}`; a shade is the share of its row. A window that "
        "straddles a border counts as the phase that covers most of it. Counts, without an "
        "interval.",
        draw([*map(Column, PHASES), Column("all", apart=True)], rows).figure,
    )
