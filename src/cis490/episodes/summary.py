"""What a store holds, after all batches are decoded: validation.parquet, and a page for people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import polars as pl

from cis490 import files
from cis490.channels import SOURCES
from cis490.episodes.faults import MEANING, USABLE
from cis490.episodes.validate import VERDICT_SCHEMA
from cis490.files import StrPath
from cis490.markdown import table

STATUSES: Final = ("accepted", "degraded", "rejected", "errored")

# A host that lacks a source in a larger share of its episodes is named on every first page.
DOWNGRADED_SHARE: Final = 0.05

_SHOWN = 20


def gather(
    verdicts: Sequence[StrPath],
    index_report: Mapping[str, Any],
    *,
    parquet: StrPath,
    markdown: StrPath,
) -> None:
    """Put the verdicts of all batches together.

    Args:
        verdicts: Parquet files that `ingest` wrote, in the order of batches.
        index_report: results/plan/index.json.
        parquet: validation.parquet, one row an indexed episode.
        markdown: validation.md.
    """
    validation = tabulate([files.read_parquet(path) for path in verdicts], index_report)
    files.write_parquet(parquet, validation, {"kind": "cis490.validation", "version": "1"})
    files.write_text(markdown, render(validation, index_report))


def tabulate(verdicts: Sequence[pl.DataFrame], index_report: Mapping[str, Any]) -> pl.DataFrame:
    """One row an indexed episode: the verdicts, then the records that cannot be followed."""
    invalid = [
        dict.fromkeys(VERDICT_SCHEMA)
        | {key: record[key] for key in ("episode_id", "host_id", "sha256", "size_bytes")}
        | {"status": "errored", "reasons": ["bad_index_record"]}
        | {"detail": [f"index line {record['line']}: {record['problem']}"]}
        for record in index_report["invalid"]
    ]
    return pl.concat(
        [pl.DataFrame(schema=VERDICT_SCHEMA), *verdicts, pl.DataFrame(invalid, VERDICT_SCHEMA)]
    )


def usable(validation: pl.DataFrame) -> pl.DataFrame:
    """The rows of validation.parquet of the episodes that take part."""
    return validation.filter(pl.col("status").is_in(USABLE))


def downgraded_hosts(validation: pl.DataFrame) -> list[dict[str, Any]]:
    """Hosts that lack a source in over 5% of their episodes that could be decoded.

    Args:
        validation: the rows of validation.parquet.

    Returns:
        By host and source: host_id, source, n_lacking, n_episodes.
    """
    decoded = validation.filter(pl.col("status") != "errored")
    hosts = []
    for (host_id,), rows in sorted(decoded.group_by("host_id")):
        for source in SOURCES:
            lacking = rows["reasons"].list.contains(f"no_{source}").sum()
            if lacking > DOWNGRADED_SHARE * rows.height:
                hosts.append(
                    {
                        "host_id": host_id,
                        "source": source,
                        "n_lacking": lacking,
                        "n_episodes": rows.height,
                    }
                )
    return hosts


def describe_downgraded(validation: pl.DataFrame) -> list[str]:
    """A sentence for each of `downgraded_hosts`."""
    return [
        f"{host['host_id']} is a downgraded host: {host['source']} is absent in "
        f"{host['n_lacking']} of its {host['n_episodes']} decoded episodes"
        for host in downgraded_hosts(validation)
    ]


def render(validation: pl.DataFrame, index_report: Mapping[str, Any]) -> str:
    """The text of validation.md."""
    n_usable = usable(validation).height
    parts = [
        "# Validation of the store\n",
        f"{validation.height} indexed episodes, {n_usable} usable (accepted or degraded).\n",
    ]
    downgraded = describe_downgraded(validation)
    if downgraded:
        parts.append("\n".join(f"- **{text}**" for text in downgraded) + "\n")
    parts += ["## Episodes by host and status\n", _by_host(validation)]
    parts += ["## Reasons\n", _by_reason(validation)]
    parts += ["## Not usable\n", _not_usable(validation)]
    parts += ["## The index\n", _index_section(index_report)]
    return "\n".join(parts)


def _table(header: Sequence[str], rows: Sequence[Sequence[Any]], align: str = "l") -> str:
    return "\n".join(table(header, rows, align)) + "\n"


def _by_host(validation: pl.DataFrame) -> str:
    hosts = sorted(validation["host_id"].fill_null("(unreadable)").unique())
    rows = []
    for host_id in [*hosts, "all"]:
        of_host = (
            validation
            if host_id == "all"
            else validation.filter(pl.col("host_id").fill_null("(unreadable)") == host_id)
        )
        counts = [of_host.filter(pl.col("status") == status).height for status in STATUSES]
        rows.append([host_id, *counts, of_host.height])
    return _table(["host", *STATUSES, "all"], rows)


def _by_reason(validation: pl.DataFrame) -> str:
    codes = (
        validation["reasons"]
        .explode()
        .drop_nulls()
        .value_counts()
        .sort(["count", "reasons"], descending=[True, False])
    )
    if codes.is_empty():
        return "None: every episode was accepted.\n"
    rows = [[code, count, MEANING[code]] for code, count in codes.iter_rows()]
    return _table(["reason", "episodes", "meaning"], rows, align="lrl")


def _not_usable(validation: pl.DataFrame) -> str:
    bad = validation.filter(pl.col("status").is_in(["rejected", "errored"]))
    if bad.is_empty():
        return "None.\n"
    lines = [
        f"- `{row['host_id']}/{row['episode_id']}` {row['status']}: "
        + "; ".join(f"{c} ({d})" for c, d in zip(row["reasons"], row["detail"], strict=True))
        for row in bad.head(_SHOWN).iter_rows(named=True)
    ]
    return _listing(lines, bad.height, "validation.parquet lists them all")


def _index_section(report: Mapping[str, Any]) -> str:
    recovered = [torn for torn in report["torn"] if torn["n_recovered"]]
    lost = [torn for torn in report["torn"] if not torn["n_recovered"]]
    lines = [
        f"- torn line {torn['line']} (byte offset {torn['byte_offset']}): "
        f"{torn['n_recovered']} whole record{'s' * (torn['n_recovered'] > 1)} recovered"
        for torn in recovered
    ] + [
        f"- **lost** in line {torn['line']} at byte offset {torn['byte_offset']}: "
        f"{torn['n_bytes']} bytes, beginning `{torn['text'].replace('`', chr(39))}`"
        for torn in lost
    ]
    sections = [
        _listing(lines, len(lines), "plan/index.json lists them all")
        if lines
        else "No torn line.\n"
    ]
    superseded = [
        f"- `{id_}` of line {line} is superseded by line {by}"
        for line, id_, by in report["superseded"]
    ]
    unindexed = [f"- `{path}` is unindexed: no record names it" for path in report["unindexed"]]
    pin = report["pin"] or {}
    pinned = [
        f"- `{id_}`: {text}"
        for key, text in (
            ("not_pinned", "in the store but not in the pin: takes no part"),
            ("changed", "in the store with another sha256 than in the pin: takes no part"),
            ("gone", "in the pin but no longer in the store"),
        )
        for id_ in pin.get(key, ())
    ]
    for lines in (superseded, unindexed, pinned):
        if lines:
            sections.append(_listing(lines, len(lines), "plan/index.json lists them all"))
    return "\n".join(sections)


def _listing(lines: Sequence[str], n: int, where: str) -> str:
    shown = "\n".join(lines[:_SHOWN])
    more = f"\n- … and {n - _SHOWN} more; {where}" if n > _SHOWN else ""
    return f"{shown}{more}\n"
