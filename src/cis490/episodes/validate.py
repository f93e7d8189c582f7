"""The verdict on one episode, and its telemetry if usable (docs/episodes.md, "Validation")."""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import polars as pl

from cis490.channels import NOMINAL_INTERVAL_S, PHASES, SAMPLED, SOURCES
from cis490.episodes import SUFFIX, tarball
from cis490.episodes.faults import USABLE, Fault, Status, Undecodable, status_of
from cis490.episodes.parse import FIELDS, parse, strict_object
from cis490.episodes.strict import is_unicode
from cis490.episodes.tarball import Limits, Tarball
from cis490.episodes.telemetry import Episode, Rows, held_bytes
from cis490.errors import StoreError
from cis490.files import StrPath

SCHEMA_VERSION: Final = 1
# What meta.recorder says of a clone (`episodes.simulate`).
SIMULATED: Final = "simulated"
NEEDED: Final = ("meta.json", "labels.jsonl", "proc.jsonl", "qmp.jsonl", "guest.jsonl")
_KNOWN: Final = frozenset({*NEEDED, "netflow.jsonl", "exec.jsonl"})
# netflow and exec have no such gate: silence is no fault.
_GATED: Final = SAMPLED
# More are no minute's background; they would stand in each table that breaks figures down by it.
_MOST_WORKS: Final = 32
_FIRST_LABEL_NS: Final = 1_000_000_000
# A wall time before 1970 or after 2223 is no clock's; the margin to int64 keeps differences exact.
_WALL_NS: Final = range(8 * 10**18)


@dataclass(frozen=True)
class Entry:
    """An index record that can be followed, as a batch's manifest lists it."""

    episode_id: str
    host_id: str
    path: str
    sha256: str | None
    size_bytes: int | None
    schema_version: int | None
    line: int

    @classmethod
    def from_manifest(cls, content: Mapping[str, Any]) -> Entry:
        """Build from one of a manifest's `episodes`."""
        return cls(**{name: content[name] for name in cls.__dataclass_fields__})


@dataclass
class Verdict:
    """What is known of an indexed episode; None is what could not be read."""

    episode_id: str | None
    host_id: str | None
    sha256: str | None
    size_bytes: int | None
    faults: list[Fault] = field(default_factory=list)
    profile: str | None = None
    sample_name: str | None = None
    background: list[str] | None = None
    started_wall_ns: int | None = None
    ended_wall_ns: int | None = None
    rows: dict[str, int] = field(default_factory=dict)

    @property
    def status(self) -> Status:
        """Accepted, degraded, rejected or errored."""
        return status_of(self.faults)

    def row(self, batch: str | None) -> dict[str, Any]:
        """The episode's row of validation.parquet."""
        known = self.started_wall_ns is not None and self.ended_wall_ns is not None
        return {
            "episode_id": self.episode_id,
            "host_id": self.host_id,
            "profile": self.profile,
            "sample_name": self.sample_name,
            "background": self.background,
            "status": self.status,
            "reasons": [fault.code for fault in self.faults],
            "detail": [fault.text for fault in self.faults],
            "sha256": self.sha256,
            "size_bytes": self.size_bytes,
            "started_wall_ns": self.started_wall_ns,
            "duration_s": (self.ended_wall_ns - self.started_wall_ns) / 1e9 if known else None,  # type: ignore[operator]
            **{f"rows_{source}": self.rows.get(source) for source in SOURCES},
            "batch": batch,
        }


VERDICT_SCHEMA: Final[dict[str, Any]] = {
    "episode_id": pl.String(),
    "host_id": pl.String(),
    "profile": pl.String(),
    "sample_name": pl.String(),
    "background": pl.List(pl.String()),
    "status": pl.String(),
    "reasons": pl.List(pl.String()),
    "detail": pl.List(pl.String()),
    "sha256": pl.String(),
    "size_bytes": pl.Int64(),
    "started_wall_ns": pl.Int64(),
    "duration_s": pl.Float64(),
    **{f"rows_{source}": pl.Int64() for source in SOURCES},
    "batch": pl.String(),
}


def examine(entry: Entry, store: StrPath, limits: Limits) -> tuple[Verdict, Episode | None]:
    """Judge one episode, opening its file once.

    Args:
        entry: what the index says of it.
        store: the store's folder.
        limits: how large it may be.

    Returns:
        The verdict with every fault found, and the decoded episode if accepted or degraded.
    """
    verdict = Verdict(entry.episode_id, entry.host_id, entry.sha256, entry.size_bytes)
    verdict.faults += _index_faults(entry)
    try:
        found = tarball.read(tarball.find(store, entry.path), limits)
    except Undecodable as undecodable:
        verdict.faults.append(undecodable.fault)
        return verdict, None
    verdict.faults += _file_faults(entry, found)
    if found.undecodable:
        return verdict, None
    meta = _read_meta(entry, found, verdict, limits)
    tables = _read_tables(found, verdict, limits)
    if meta is not None:
        _check_against_meta(meta, tables, verdict)
    if "netflow.jsonl" not in found.members:
        verdict.faults.append(Fault("no_netflow", "netflow.jsonl is absent"))
    if meta is None or verdict.status not in USABLE:
        return verdict, None
    return verdict, Episode(_header(entry, verdict, meta, tables, found), tables)


def examine_file(path: Path, limits: Limits) -> tuple[Verdict, Episode | None]:
    """Judge one file by itself: ids, size and sum are taken from the file, not from an index.

    Raises:
        StoreError: there is no such file.
    """
    if not path.is_file():
        raise StoreError(f"{path}: no such file; name an episode, <host_id>/<episode_id>{SUFFIX}")
    episode_id, host_id = path.name.removesuffix(SUFFIX), path.resolve().parent.name
    sha256, size = None, None
    try:
        found = tarball.read(path, limits)
        sha256, size = found.sha256, found.size_bytes
        meta = json.loads(found.members.get("meta.json", b"{}"))
        episode_id, host_id = str(meta["episode_id"]), str(meta["host_id"])
    except (Undecodable, ValueError, KeyError, TypeError, RecursionError):
        pass  # whatever it is, examine says it in its own words
    entry = Entry(episode_id, host_id, path.name, sha256 or "", size or 0, 1, line=0)
    return examine(entry, path.resolve().parent, limits)


def _index_faults(entry: Entry) -> list[Fault]:
    faults = []
    if entry.schema_version != SCHEMA_VERSION:
        text = f"index line {entry.line}: schema_version is {entry.schema_version}, not 1"
        faults.append(Fault("schema_version", text))
    for name in ("sha256", "size_bytes"):
        if getattr(entry, name) is None:
            text = f"index line {entry.line}: {name} is missing or of the wrong type"
            faults.append(Fault("missing_field", text))
    return faults


def _file_faults(entry: Entry, found: Tarball) -> list[Fault]:
    faults = []
    if entry.size_bytes is not None and found.size_bytes != entry.size_bytes:
        text = f"the file has {found.size_bytes} bytes, the index says {entry.size_bytes}"
        faults.append(Fault("size_mismatch", text))
    if entry.sha256 is not None and found.sha256 != entry.sha256:
        text = f"the file's sha256 is {found.sha256}, the index says {entry.sha256}"
        faults.append(Fault("sha256_mismatch", text))
    if found.undecodable:
        return [*faults, found.undecodable]
    # Of members that the format does not know nothing is asked, not even that they are files.
    twice, irregular = found.twice & _KNOWN, found.irregular & _KNOWN
    faults += [Fault("duplicate_member", f"{name} is there twice") for name in sorted(twice)]
    faults += [Fault("not_regular", f"{name} is not a regular file") for name in sorted(irregular)]
    for name in NEEDED:
        if name not in found.members:
            there = ", ".join(sorted(found.members)[:8]) or "nothing"
            faults.append(Fault(f"no_{name.split('.')[0]}", f"{name} is missing; there: {there}"))
    return faults


class _Wrong(Exception):
    def __init__(self, code: str, text: str) -> None:
        super().__init__(text)
        self.fault = Fault(code, f"meta.json: {text}")


def _read_meta(
    entry: Entry, found: Tarball, verdict: Verdict, limits: Limits
) -> dict[str, Any] | None:
    """The checked meta.json; None if it cannot be used, and `verdict` says why."""
    content = found.members.get("meta.json")
    if content is None or "meta.json" in found.irregular:
        return None
    try:
        if len(content) > limits.line_bytes:
            text = f"{len(content)} bytes, limits.line_bytes is {limits.line_bytes}"
            raise _Wrong("over_limit", text)
        meta = strict_object(content, _Wrong)
    except _Wrong as wrong:
        verdict.faults.append(wrong.fault)
        return None
    before = len(verdict.faults)
    for check in (
        lambda: _check_identity(meta, entry),
        lambda: _take_names(meta, verdict, limits),
        lambda: _take_times(meta, verdict),
        lambda: _check_sources(meta),
    ):
        try:
            check()
        except _Wrong as wrong:
            verdict.faults.append(wrong.fault)
    if verdict.ended_wall_ns is not None and verdict.started_wall_ns is not None:
        duration_s = (verdict.ended_wall_ns - verdict.started_wall_ns) / 1e9
        if duration_s > limits.duration_s:
            text = f"meta.json: lasts {duration_s:g} s, limits.duration_s is {limits.duration_s:g}"
            verdict.faults.append(Fault("over_limit", text))
    return meta if len(verdict.faults) == before else None


def _field(meta: Mapping[str, Any], key: str, kind: type) -> Any:
    if key not in meta:
        raise _Wrong("missing_field", f"{key} is missing")
    value = meta[key]
    if not isinstance(value, kind) or isinstance(value, bool):
        shown = json.dumps(value)[:40]  # noqa: TID251 - lone surrogates too
        raise _Wrong("wrong_type", f"{key} is {shown}, not {kind.__name__}")
    return value


def _name(meta: Mapping[str, Any], key: str) -> str:
    value: str = _field(meta, key, str)
    if not is_unicode(value):
        raise _Wrong("not_utf8", f"{key} holds a lone surrogate")
    if not value:
        raise _Wrong("bad_value", f"{key} is empty")
    return value


def _check_identity(meta: Mapping[str, Any], entry: Entry) -> None:
    if _field(meta, "schema_version", int) != SCHEMA_VERSION:
        raise _Wrong("schema_version", f"schema_version is {meta['schema_version']}, not 1")
    for key, expected in (("episode_id", entry.episode_id), ("host_id", entry.host_id)):
        if (value := _name(meta, key)) != expected:
            raise _Wrong("index_disagrees", f"{key} is {value[:80]!r}, the index says {expected!r}")


def _take_names(meta: Mapping[str, Any], verdict: Verdict, limits: Limits) -> None:
    names = {key: _name(meta, key) for key in ("profile", "sample_name")}
    for key, name in names.items():
        if len(name) > limits.name_chars:  # it stands in each row of features
            text = f"{key} has {len(name)} characters, limits.name_chars is {limits.name_chars}"
            raise _Wrong("over_limit", text)
    verdict.profile, verdict.sample_name = names["profile"], names["sample_name"]
    verdict.background = _background(meta.get("background"), limits)


def _background(value: Any, limits: Limits) -> list[str] | None:
    """The benign works around an episode, each once; None if meta.json does not say any in names.

    It may hold anything (docs/episodes.md), so what is no name is no fault.
    """
    works = [value] if isinstance(value, str) else value
    if not isinstance(works, list) or len(works) > _MOST_WORKS:
        return None
    for work in works:
        usable = isinstance(work, str) and is_unicode(work)
        if not usable or not 0 < len(work) <= limits.name_chars:
            return None
    return list(dict.fromkeys(works))


def _take_times(meta: Mapping[str, Any], verdict: Verdict) -> None:
    started, ended = (_field(meta, key, int) for key in ("started_wall_ns", "ended_wall_ns"))
    for key, value in (("started_wall_ns", started), ("ended_wall_ns", ended)):
        if value not in _WALL_NS:
            raise _Wrong("bad_value", f"{key} is {value}, no time in nanoseconds since 1970")
    verdict.started_wall_ns, verdict.ended_wall_ns = started, ended
    if started >= ended:
        raise _Wrong("bad_value", f"started_wall_ns {started} is not before ended_wall_ns {ended}")


def _check_sources(meta: Mapping[str, Any]) -> None:
    sources = _field(meta, "sources", dict)
    for name in SOURCES:
        rate = sources.get(name, {})
        if not isinstance(rate, dict):
            raise _Wrong("wrong_type", f"sources.{name} is not an object")
        for key in ("hz", "interval_s"):
            value = rate.get(key)
            if value is None:
                continue
            if isinstance(value, bool) or not isinstance(value, (int, float)):
                raise _Wrong("wrong_type", f"sources.{name}.{key} is not a number")
            if not 1e-6 <= value <= 1e6:
                text = f"sources.{name}.{key} is {value}, not between 1e-6 and 1e6"
                raise _Wrong("bad_value", text)


def nominal_interval_s(meta: Mapping[str, Any], source: str) -> float:
    """Seconds between two rows of a source, as meta.sources promises or docs/episodes.md says."""
    rate = meta["sources"].get(source, {})
    if rate.get("hz") is not None:
        return 1.0 / float(rate["hz"])
    if rate.get("interval_s") is not None:
        return float(rate["interval_s"])
    return NOMINAL_INTERVAL_S[source]


def _read_tables(found: Tarball, verdict: Verdict, limits: Limits) -> dict[str, Rows]:
    tables = {}
    for table in FIELDS:
        member = f"{table}.jsonl"
        if member not in found.members or member in found.irregular:
            continue
        rows, faults = parse(table, found.members[member], limits=limits)
        verdict.faults += faults
        if rows is None:
            continue
        tables[table] = rows
        if table in SOURCES:
            verdict.rows[table] = len(rows)
        if table != "labels" and (fault := _disorder(rows, "rows_out_of_order")):
            verdict.faults.append(fault)
    if "labels" in tables:
        verdict.faults += _label_faults(tables["labels"])
    return tables


def _disorder(rows: Rows, code: str) -> Fault | None:
    t = rows.t_wall_ns
    back = t[1:] < t[:-1]
    if not back.any():
        return None
    line = int(back.argmax()) + 2
    return Fault(
        code, f"{rows.table}.jsonl line {line}: t_wall_ns is before that of the line above"
    )


def _label_faults(labels: Rows) -> list[Fault]:
    if not len(labels):
        return [Fault("labels_empty", "labels.jsonl holds no label")]
    faults = []
    if fault := _disorder(labels, "labels_out_of_order"):
        faults.append(fault)
    phases = labels.column("phase")
    for line, phase in enumerate(phases, start=1):
        if phase not in PHASES:
            text = f"labels.jsonl line {line}: phase {phase[:40]!r} is none of {', '.join(PHASES)}"
            return [*faults, Fault("unknown_phase", text)]
    for line, (before, after) in enumerate(itertools.pairwise(phases), start=2):
        if PHASES.index(after) < PHASES.index(before):
            text = f"labels.jsonl line {line}: {after} follows {before}"
            return [*faults, Fault("labels_go_back", text)]
    return faults


def _check_against_meta(
    meta: Mapping[str, Any], tables: Mapping[str, Rows], verdict: Verdict
) -> None:
    started, ended = meta["started_wall_ns"], meta["ended_wall_ns"]
    labels = tables.get("labels")
    if labels:
        first = int(labels.t_wall_ns[0])
        if abs(first - started) > _FIRST_LABEL_NS:
            text = f"labels.jsonl line 1: {(first - started) / 1e9:+.9f} s from started_wall_ns"
            verdict.faults.append(Fault("first_label_far", text))
        if meta["profile"] == "none" and set(labels.column("phase")) != {"clean"}:
            text = "labels.jsonl: an episode of profile none has other phases than clean"
            verdict.faults.append(Fault("control_not_clean", text))
    for source in _GATED:
        if source not in tables:
            continue
        promised = (ended - started) / 1e9 / nominal_interval_s(meta, source)
        if len(tables[source]) < promised / 2:
            text = f"{source}.jsonl: {len(tables[source])} rows, {promised:.0f} promised"
            verdict.faults.append(Fault("too_few_rows", text))


def _header(
    entry: Entry,
    verdict: Verdict,
    meta: Mapping[str, Any],
    tables: Mapping[str, Rows],
    found: Tarball,
) -> dict[str, Any]:
    with_text = {"meta.json", *(f"{table}.jsonl" for table in tables if table not in SAMPLED)}
    return {
        "episode_id": entry.episode_id,
        "host_id": entry.host_id,
        "profile": verdict.profile,
        "sample_name": verdict.sample_name,
        "status": verdict.status,
        "started_wall_ns": verdict.started_wall_ns,
        "ended_wall_ns": verdict.ended_wall_ns,
        **{
            f"interval_s_{source}": nominal_interval_s(meta, source) if source in tables else None
            for source in SOURCES
        },
        "held_bytes": held_bytes(tables, sum(len(found.members[name]) for name in with_text)),
        "meta": found.members["meta.json"].decode(),
    }
