"""Small stores made to order: each test says only what is special about its episodes."""

from __future__ import annotations

import hashlib
import io
import itertools
import json
import tarfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import zstandard

from cis490.channels import of_source

START = 1_795_319_373_918_919_672
SECOND = 1_000_000_000

Members = dict[str, bytes]
Row = dict[str, Any]


def lines(rows: Sequence[Row]) -> bytes:
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)


def source_rows(
    source: str, hz: float, duration_s: float, *, start: int = START, load: int = 1
) -> list[Row]:
    """Rows at a steady rate: counter number i grows by (i + 1) * load a row, gauges stay."""
    rows = []
    for j in range(int(duration_s * hz)):
        t = round(j / hz * SECOND)
        row: Row = {"t_wall_ns": start + t, "t_mono_ns": t}
        for i, channel in enumerate(of_source(source), start=1):
            row[channel.name] = 1000 + j * i * load if channel.kind == "counter" else 100 * i * load
        rows.append(row)
    return rows


def flow(t_s: float, *, start: int = START, **values: Any) -> Row:
    """One netflow record; like the first corpus its monotonic clock counts from the host's boot."""
    t = round(t_s * SECOND)
    return {
        "t_wall_ns": start + t,
        "t_mono_ns": 5_000_000_000_000 + t,
        **{"proto": "tcp", "src": "10.0.0.2", "sport": 40000, "dst": "10.0.0.1", "dport": 80},
        **{"pkts_out": 5, "bytes_out": 500, "pkts_in": 4, "bytes_in": 400},
        **{"tcp_flags": 16, "new": 0, "age_ns": 0},
        **values,
    }


def members_of(
    episode_id: str = "e1",
    host_id: str = "alder",
    *,
    profile: str = "cpu-saturate",
    sample_name: str = "miner-a",
    phases: Sequence[tuple[float, str]] = (
        (0, "clean"),
        (8, "infecting"),
        (14, "infected_running"),
    ),
    duration_s: float = 20.0,
    netflow: bool = True,
    start: int = START,
    load: int = 1,
    hz: float = 10,
    meta: Row | None = None,
) -> Members:
    sources: Row = {"proc": {"hz": hz}, "qmp": {"hz": 2}, "guest": {"hz": 1}}
    if netflow:
        sources["netflow"] = {"interval_s": 0.5}
    content: Row = {
        "schema_version": 1,
        "episode_id": episode_id,
        "host_id": host_id,
        "profile": profile,
        "sample_name": sample_name,
        "started_wall_ns": start,
        "ended_wall_ns": start + round(duration_s * SECOND),
        "sources": sources,
        **(meta or {}),
    }
    labels = [
        {"t_wall_ns": start + round(t * SECOND), "t_mono_ns": round(t * SECOND), "phase": phase}
        for t, phase in phases
    ]
    members = {"meta.json": json.dumps(content).encode(), "labels.jsonl": lines(labels)}
    for source, rate in (("proc", hz), ("qmp", 2), ("guest", 1)):
        rows = source_rows(source, rate, duration_s, start=start, load=load)
        members[f"{source}.jsonl"] = lines(rows)
    if netflow:
        times = [0.5 * i for i in range(1, int(2 * duration_s)) if i % 4]
        members["netflow.jsonl"] = lines(
            [flow(t, start=start, bytes_out=500 * load) for t in times]
        )
    return members


def tar_of(members: Members | Sequence[tuple[str, bytes]]) -> bytes:
    buffer = io.BytesIO()
    pairs = members.items() if isinstance(members, dict) else members
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, content in pairs:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def pack(members: Members | Sequence[tuple[str, bytes]]) -> bytes:
    return zstandard.ZstdCompressor(level=1).compress(tar_of(members))


def record_of(host_id: str, episode_id: str, packed: bytes, **changes: Any) -> Row:
    return {
        "schema_version": 1,
        "episode_id": episode_id,
        "host_id": host_id,
        "path": f"{host_id}/{episode_id}.tar.zst",
        "sha256": hashlib.sha256(packed).hexdigest(),
        "size_bytes": len(packed),
        "received_wall_ns": START + 100 * SECOND,
    } | changes


class Store:
    """A store under construction."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.index = folder / "index.jsonl"
        folder.mkdir(parents=True, exist_ok=True)
        if not self.index.exists():
            self.index.touch()

    def append_line(self, text: str) -> None:
        with self.index.open("a") as index:
            index.write(text)

    def put(self, host_id: str, episode_id: str, packed: bytes, **changes: Any) -> None:
        """Write a file and its index record."""
        path = self.folder / host_id / f"{episode_id}.tar.zst"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(packed)
        self.append_line(json.dumps(record_of(host_id, episode_id, packed, **changes)) + "\n")

    def add(
        self,
        host_id: str = "alder",
        episode_id: str = "e1",
        *,
        mutate: Callable[[Members], Any] | None = None,
        **options: Any,
    ) -> None:
        """Add an episode of `members_of(episode_id, host_id, **options)`, changed by `mutate`."""
        members = members_of(episode_id, host_id, **options)
        ended = json.loads(members["meta.json"])["ended_wall_ns"]
        if mutate is not None:
            mutate(members)
        self.put(host_id, episode_id, pack(members), received_wall_ns=ended + SECOND)


SPLIT = {"train_hosts": ["alder", "dogwood"], "test_hosts": ["birch"]}  # of a small fleet
_PROFILES = (("cpu-saturate", "miner"), ("io-walk", "walker"), ("none", "none"))


def small_fleet(
    folder: Path, n: int = 6, hosts: Sequence[str] = ("alder", "dogwood", "birch")
) -> Store:
    """n episodes of each of three profiles on each host; load rises once the guest is infected."""
    store = Store(folder)
    for h, host_id in enumerate(hosts):
        for i in range(n):
            for p, (profile, sample) in enumerate(_PROFILES):
                add_to_fleet(
                    store,
                    host_id,
                    f"{host_id[0]}{p}{i:03d}",
                    profile,
                    sample,
                    h * 1000 + i * 10 + p,
                )
    return store


def add_to_fleet(
    store: Store, host_id: str, episode_id: str, profile: str, sample: str, k: int
) -> None:
    """One episode whose proc load tells infected from clean; birch has no netflow."""
    onset = 6 + k % 7
    control = profile == "none"

    def burden(members: Members) -> None:
        rows = [json.loads(line) for line in members["proc.jsonl"].splitlines()]
        extra = 0
        for j, row in enumerate(rows):
            if not control and j >= onset * 10:
                extra += 50 + (j * 7919 + k) % 13
            row["utime_ticks"] += extra + (j * 31 + k) % 3
            row["write_bytes"] += extra * (1000 if profile == "io-walk" else 1)
        for before, row in itertools.pairwise(rows):
            row["utime_ticks"] = max(row["utime_ticks"], before["utime_ticks"])
            row["write_bytes"] = max(row["write_bytes"], before["write_bytes"])
        members["proc.jsonl"] = lines(rows)

    store.add(
        host_id,
        episode_id,
        mutate=burden,
        profile=profile,
        sample_name="none" if control else f"{sample}-{'ab'[k % 2]}",
        phases=[(0, "clean")] if control else [(0, "clean"), (onset, "infected_running")],
        duration_s=25.0,
        netflow=host_id != "birch",
        start=START + k * 100 * SECOND,
    )
