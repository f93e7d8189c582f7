"""What `lab check` needs to know of each episode of a store, gathered in one pass."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from cis490.channels import PHASES, SAMPLED
from cis490.config import resolve
from cis490.episodes import tarball
from cis490.episodes.jobs import job_changes
from cis490.episodes.parse import FIELDS
from cis490.episodes.plan import read_store
from cis490.episodes.tarball import Limits
from cis490.episodes.telemetry import Episode, collect
from cis490.episodes.validate import Entry, Verdict, examine
from cis490.errors import StoreError
from cis490.files import StrPath
from cis490.lab.commands import Commands, Event
from cis490.schema import Schema
from cis490.windows.build import windows_of

# Episodes whose windows are made at once.
_TOGETHER: Final = 64
_NS: Final = 1e9


@dataclass(frozen=True)
class Ticks:
    """How one table of an episode kept time.

    Attributes:
        n_rows: its rows.
        interval_s: nominal, between two rows; None where rows come as they come.
        largest_gap_s: between neighbours, the record's start and its end; None likewise.
        n_outside: rows more than an interval (or a second) outside the record.
        drift_s: how far wall and monotonic clock moved against each other within the record.
        offset_s: wall clock minus monotonic minus the record's start: 0 if the latter counts
            from there.
    """

    n_rows: int
    interval_s: float | None
    largest_gap_s: float | None
    n_outside: int
    drift_s: float
    offset_s: float


@dataclass(frozen=True)
class Facts:
    """What is known of one usable episode.

    Attributes:
        episode_id, host_id, profile, sample_name: as in its meta.json.
        started_ns, ended_ns: Unix time.
        phases: (n_windows,) int64, index into PHASES.
        onset_s: when the first phase after clean begins within the record; None: not in it.
        changes_s: when benign jobs start or stop within the record; None: meta.json has no `jobs`.
        preroll_s: from the guest being ready to the record's start; None: meta.json does not say.
        ticks: by table, those that there are.
    """

    episode_id: str
    host_id: str
    profile: str
    sample_name: str
    started_ns: int
    ended_ns: int
    phases: NDArray[np.int64]
    onset_s: float | None
    changes_s: list[float] | None
    preroll_s: float | None
    ticks: dict[str, Ticks]

    @property
    def duration_s(self) -> float:
        """Of the record."""
        return (self.ended_ns - self.started_ns) / _NS


@dataclass
class Corpus:
    """A store as `lab check` sees it.

    Attributes:
        schema: the windows.
        episodes: the usable ones.
        left_out: how many are not, by status.
        reasons: their reason codes, and how many have each.
        commands: of all usable episodes.
    """

    schema: Schema
    episodes: list[Facts] = field(default_factory=list)
    left_out: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    commands: Commands = field(default_factory=Commands)


def read_corpus(
    store: StrPath, progress: Callable[[Sequence[Entry]], Iterator[Entry]] = iter
) -> Corpus:
    """Judge and decode every episode of a store, and keep what `lab check` asks about.

    Args:
        store: folder of episodes, only read.
        progress: passes the entries on, and may count them.

    Raises:
        StoreError: there is no store, or no usable episode in it.
    """
    config = resolve({})
    manifests, report = read_store({"store": store, "store_pin": None, "batch": config["batch"]})
    entries = [Entry.from_manifest(e) for manifest in manifests for e in manifest["episodes"]]
    limits, corpus = Limits.from_config(config), Corpus(Schema.from_config(config))
    corpus.left_out.update(["errored"] * len(report["invalid"]))
    corpus.reasons.update(["bad_index_record"] * len(report["invalid"]))
    some: list[tuple[Episode, dict[str, Ticks]]] = []
    for entry in progress(entries):
        verdict, episode = examine(entry, store, limits)
        if episode is None:
            _leave_out(corpus, verdict)
            continue
        members = tarball.read(tarball.find(store, entry.path), limits).members
        some.append((episode, _ticks(episode, members)))
        _take_commands(corpus.commands, episode)
        if len(some) == _TOGETHER:
            corpus.episodes += _facts(some, corpus.schema)
            some = []
    corpus.episodes += _facts(some, corpus.schema)
    if not corpus.episodes:
        raise StoreError(
            f"store {store}: not one usable episode to judge; `cis490 validate {Path(store)}` says "
            "what is wrong with each"
        )
    return corpus


def _leave_out(corpus: Corpus, verdict: Verdict) -> None:
    corpus.left_out[verdict.status] += 1
    corpus.reasons.update(fault.code for fault in verdict.faults)


def _take_commands(commands: Commands, episode: Episode) -> None:
    if "exec" not in episode.tables:
        return
    events = [
        Event(t, cmdline)
        for t, event, _, _, cmdline in episode.tables["exec"].tuples()
        if event != "exit" and cmdline
    ]
    commands.add(events, episode.header["profile"], _onset_ns(episode))


def _onset_ns(episode: Episode) -> int | None:
    labels = episode.tables["labels"]
    for t, phase in zip(labels.t_wall_ns.tolist(), labels.column("phase"), strict=True):
        if phase != PHASES[0]:
            return int(t)
    return None


class _Times(msgspec.Struct, gc=False):
    t_wall_ns: int
    t_mono_ns: int


_DECODER: Final = msgspec.json.Decoder(_Times)


def _ticks(episode: Episode, members: dict[str, bytes]) -> dict[str, Ticks]:
    header = episode.header
    started, ended = header["started_wall_ns"], header["ended_wall_ns"]
    ticks = {}
    for table in FIELDS:
        if table not in episode.tables or not len(episode.tables[table]):
            continue
        rows = _DECODER.decode_lines(members[f"{table}.jsonl"])
        wall = np.array([row.t_wall_ns for row in rows], np.int64)
        offset = wall - np.array([row.t_mono_ns for row in rows], np.int64)
        interval_s = header.get(f"interval_s_{table}")
        tolerated = (interval_s or 1.0) * _NS
        gap = None
        if table in SAMPLED:
            gap = float(np.diff(np.clip([started, *wall, ended], started, ended)).max()) / _NS
        ticks[table] = Ticks(
            n_rows=len(rows),
            interval_s=interval_s,
            largest_gap_s=gap,
            n_outside=int(((wall < started - tolerated) | (wall > ended + tolerated)).sum()),
            drift_s=float(offset.max() - offset.min()) / _NS,
            offset_s=float(np.median(offset - started)) / _NS,
        )
    return ticks


def _facts(some: list[tuple[Episode, dict[str, Ticks]]], schema: Schema) -> Iterator[Facts]:
    if not some:
        return
    header, _, shard = windows_of(collect([episode for episode, _ in some]), schema)
    index = {phase: i for i, phase in enumerate(PHASES)}
    phase = np.array([index[name] for name in header["phase"]], np.int64)
    of_episode = np.split(phase, np.cumsum(shard.n_windows)[:-1])
    for (episode, ticks), phases in zip(some, of_episode, strict=True):
        head, meta = episode.header, json.loads(episode.header["meta"])
        started, onset = head["started_wall_ns"], _onset_ns(episode)
        first = int(episode.tables["labels"].t_wall_ns[0])
        told = job_changes(meta, (head["ended_wall_ns"] - started) / _NS)
        yield Facts(
            episode_id=head["episode_id"],
            host_id=head["host_id"],
            profile=head["profile"],
            sample_name=head["sample_name"],
            started_ns=started,
            ended_ns=head["ended_wall_ns"],
            phases=phases,
            onset_s=None if onset is None or onset == first else (onset - started) / _NS,
            changes_s=None if told is None else [change.at_s for change in told],
            preroll_s=_number(meta.get("preroll_s")),
            ticks=ticks,
        )


def _number(value: Any) -> float | None:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if is_number else None
