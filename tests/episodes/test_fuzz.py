"""Whatever a file holds, it ends in a verdict and costs no neighbour in its batch."""

import json
import random

import polars as pl
import pytest
import zstandard

from cis490.episodes import telemetry
from cis490.episodes.ingest import ingest
from cis490.episodes.plan import read_store
from cis490.episodes.store import read_index
from cis490.episodes.tarball import Limits
from cis490.errors import StoreError
from cis490.schema import Schema
from cis490.windows.build import build
from tests.builders import Store, members_of, pack, record_of, tar_of

BATCH = 25
SCHEMA = Schema(hz=10, max_gap_s=None, length_s=10.0, stride_s=5.0)
LITERALS = """null true NaN -Infinity 1e400 -0 01 1e5 9223372036854775808 "" "x" [] {} [[[[1]]]]
    {"a":{"b":1}} 99999999999999999999999999 -1 0.5 1795319373918919672""".split()


def mutate_bytes(rng: random.Random, data: bytes) -> bytes:
    """Flip, cut, swap, insert or repeat somewhere, once to three times."""
    for _ in range(rng.randrange(1, 4)):
        a, b = sorted(rng.randrange(len(data) + 1) for _ in range(2))
        piece = data[a : min(b, a + 400)]
        how = rng.randrange(6)
        if how == 0 and data:
            i = rng.randrange(len(data))
            data = data[:i] + bytes([data[i] ^ 1 << rng.randrange(8)]) + data[i + 1 :]
        elif how == 1:
            data = data[:a]
        elif how == 2:
            data = data[:a] + data[a + len(piece) :] + piece
        elif how == 3:
            data = data[:a] + rng.randbytes(rng.randrange(1, 20)) + data[a:]
        elif how == 4:
            data = data[:a] + piece * rng.randrange(1, 5) + data[a:]
        else:
            data = data[:a] + b"[" * rng.choice([1, 10, 100_000]) + data[a:]
    return data


def mutate_line(rng: random.Random, member: bytes) -> bytes:
    """Put a literal where some value of some line was."""
    rows = member.split(b"\n")
    i = rng.randrange(len(rows))
    try:
        row = json.loads(rows[i])
    except ValueError:
        return mutate_bytes(rng, member)
    key = rng.choice(list(row))
    row[key] = "LITERAL"
    rows[i] = json.dumps(row).replace('"LITERAL"', rng.choice(LITERALS)).encode()
    return b"\n".join(rows)


def mutant(rng: random.Random, episode_id: str, members: dict[str, bytes]) -> bytes:
    members = dict(members)
    members["meta.json"] = members["meta.json"].replace(b'"e1"', f'"{episode_id}"'.encode())
    layer = rng.randrange(4)
    if layer == 0:
        return mutate_bytes(rng, pack(members))
    if layer == 1:
        return zstandard.compress(mutate_bytes(rng, tar_of(members)), 1)
    name = rng.choice(list(members))
    change = mutate_bytes if layer == 2 else mutate_line
    members[name] = change(rng, members[name])
    return pack(members)


@pytest.fixture
def n_mutants(request: pytest.FixtureRequest) -> int:
    return 20_000 if request.config.getoption("--long") else 2_500


def test_every_mutated_episode_ends_in_a_verdict_and_costs_no_neighbour(tmp_path, n_mutants):
    originals = [members_of(duration_s=11.0), members_of(duration_s=11.0, netflow=False)]
    statuses = set()
    for number in range(n_mutants // BATCH):
        rng = random.Random(number)
        store = Store(tmp_path / f"store{number}")
        for i in range(BATCH):
            if i % 10 == 5:
                store.add("alder", f"good{i}", duration_s=11.0, load=i)
            packed = mutant(rng, f"bad{i}", rng.choice(originals))
            store.put("alder", f"bad{i}", packed)
        (manifest,), _ = read_store(
            {
                "store": store.folder,
                "store_pin": None,
                "batch": {"episodes": 100, "packed_bytes": 10**9},
            }
        )
        out = tmp_path / f"out{number}"
        ingest(
            manifest,
            store=store.folder,
            limits=Limits(),
            verdicts=out / "verdicts.parquet",
            folder=out / "telemetry",
        )
        build(out / "telemetry", SCHEMA, features=out / "f.parquet", tensors=out / "t.safetensors")
        verdicts = pl.read_parquet(out / "verdicts.parquet")
        statuses |= set(verdicts["status"])
        assert verdicts.height == len(manifest["episodes"])
        faulty = verdicts.filter(pl.col("status").is_in(["rejected", "errored"]))
        assert (faulty["reasons"].list.len() > 0).all()
        good = verdicts.filter(pl.col("episode_id").str.starts_with("good"))
        assert set(good["status"]) == {"accepted"}, number
        kept = set(telemetry.read(out / "telemetry")["episodes"]["episode_id"])
        assert set(good["episode_id"]) <= kept
    assert statuses == {"accepted", "degraded", "rejected", "errored"}


def test_every_mutated_index_is_read_and_keeps_its_whole_lines(tmp_path, n_mutants):
    lines = [json.dumps(record_of("alder", f"e{i}", b"x")).encode() for i in range(12)]
    store = Store(tmp_path / "store")
    for number in range(n_mutants):
        rng = random.Random(number)
        mutated = list(lines)
        hit = {rng.randrange(len(lines)) for _ in range(rng.randrange(1, 4))}
        for i in hit:
            # A line break of its own would be a new line; all else stays within the line.
            mutated[i] = mutate_bytes(rng, lines[i]).replace(b"\n", b" ")
        store.index.write_bytes(b"\n".join(mutated) + b"\n")
        try:
            index = read_index(store.folder)
        except StoreError:
            pytest.fail(f"{number}: whole lines were lost")
        found = {record.text("episode_id") for record in index.records}
        assert {f"e{i}" for i in range(12) if i not in hit} <= found, number
