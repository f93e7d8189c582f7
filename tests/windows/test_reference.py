"""What the library computes equals the slow reference, within float32 rounding."""

import hashlib
import io
import json
import math
import random
import tarfile

import numpy as np
import pytest
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cis490.channels import CHANNELS
from cis490.episodes.tarball import Limits
from cis490.episodes.telemetry import collect
from cis490.episodes.validate import Entry, examine
from cis490.schema import Schema
from cis490.windows import codes
from cis490.windows.build import windows_of
from tests.builders import SECOND, START, flow, lines, members_of, pack
from tests.conftest import SAMPLE_STORE
from tests.windows import reference

DEFAULT = Schema(hz=10, max_gap_s=None, length_s=10.0, stride_s=5.0)


def assert_equal_to_reference(members, schema, folder):
    packed = pack(members)
    (folder / "e.tar.zst").write_bytes(packed)
    meta = json.loads(members["meta.json"])
    sha256 = hashlib.sha256(packed).hexdigest()
    entry = Entry(meta["episode_id"], meta["host_id"], "e.tar.zst", sha256, len(packed), 1, 1)
    verdict, episode = examine(entry, folder, Limits())
    assert episode is not None, verdict.faults
    frame, features, shard = windows_of(collect([episode]), schema)

    grid, windows = reference.episode(
        members,
        hz=schema.hz,
        length=schema.length,
        stride=schema.stride,
        max_gap_s=schema.max_gap_s,
    )
    assert [phase for phase, _ in windows] == frame["phase"].to_list()
    np.testing.assert_allclose(frame["phase_share"], [s for _, s in windows], rtol=1e-6)
    assert list(grid) == [channel.key for channel in CHANNELS]
    grids = shard.decoded()
    for c, (key, steps) in enumerate(grid.items()):
        assert (~np.isnan(grids[:, c])).tolist() == [v is not None for v in steps], key
        exact = [None if v is None else reference.float32(v) for v in steps]
        there = np.array([v for v in exact if v is not None])
        if CHANNELS[c].log:
            there = np.sign(there) * np.log1p(np.abs(there))
        got = grids[~np.isnan(grids[:, c]), c]
        largest = np.abs(there).max(initial=0)
        bound = np.ptp(there) / codes.STEPS * 0.51 + 1e-6 * largest if len(there) else 0
        np.testing.assert_allclose(got, there, rtol=0, atol=bound, err_msg=key)
        for k in {0, len(windows) // 2, len(windows) - 1} & set(range(len(windows))):
            inside = exact[k * schema.stride : k * schema.stride + schema.length]
            expected = reference.statistics(inside, schema.hz)
            largest = max((abs(v) for v in inside if v is not None), default=0.0)
            for name, want, got in zip(
                ("mean", "std", "min", "max", "trend", "missing"),
                expected,
                features[k, 6 * c : 6 * c + 6].tolist(),
                strict=True,
            ):
                where = f"{key}.{name} of window {k}: {want} expected, {got} found"
                assert math.isnan(want) == math.isnan(got), where
                # Spread and trend are differences: they inherit the rounding of what is subtracted.
                absolute = 1e-6 * largest * (schema.hz if name == "trend" else 1)
                rounding = absolute if name in ("std", "trend") else 0.0
                assert math.isnan(want) or abs(want - got) <= 1e-6 * abs(want) + rounding, where


@pytest.mark.parametrize("host_id", ["alder", "birch", "dogwood"])
def test_real_episodes_equal_the_reference(host_id, tmp_path):
    path = sorted((SAMPLE_STORE / host_id).glob("*.tar.zst"), key=lambda p: p.stat().st_size)[-1]
    raw = zstandard.ZstdDecompressor().decompressobj().decompress(path.read_bytes())
    with tarfile.open(fileobj=io.BytesIO(raw)) as archive:
        members = {info.name: archive.extractfile(info).read() for info in archive}
    assert_equal_to_reference(members, DEFAULT, tmp_path)


def random_rows(rng, names, hz, duration_s):
    """Rows with jitter, gaps, clock jumps, nulls, restarts, wraps and repeated times."""
    style = rng.choice(["small", "small", "huge", "float"])
    jitter, gaps, nulls = rng.choice([0, 0.2]), rng.choice([0, 0.03]), rng.choice([0, 0.1, 0.4])
    value = {name: rng.choice([0, 2**62, -(2**61)]) if style == "huge" else 1000 for name in names}
    rows, t = [], rng.choice([0.0, rng.uniform(-0.5, 1.0)])
    while t < duration_s:
        row = {"t_wall_ns": START + round(t * SECOND), "t_mono_ns": len(rows)}
        for name in names:
            if name == "net_tx_used":
                value[name] = (value[name] + rng.randrange(20_000)) % 65_536
            elif rng.random() < 0.02:
                value[name] = rng.randrange(10)
            else:
                value[name] += rng.choice([0, 1, rng.randrange(10_000)])
                value[name] += rng.random() if style == "float" else 0
            if rng.random() >= nulls:
                row[name] = value[name]
            elif rng.random() < 0.5:
                row[name] = None
        rows.append(row)
        step = (1 + jitter * rng.uniform(-1, 1)) / hz
        t += 0 if rng.random() < 0.02 else step
        t += rng.uniform(0, 4 / hz) if rng.random() < gaps else 0
        t += rng.uniform(1, 3) if rng.random() < 0.003 else 0
    return rows


def random_flows(rng, duration_s):
    flows, t = [], rng.uniform(-0.3, 0.5)
    while t < duration_s + 1:
        for _ in range(rng.choice([0, 1, 3])):
            values = {
                "proto": rng.choice(["tcp", "udp", "arp", 47, None]),
                "dst": f"10.0.0.{rng.randrange(3)}",
                "sport": rng.randrange(3),
                "tcp_flags": rng.choice([0, 2, 6, 16, None]),
                "new": rng.choice([0, 1, None]),
                "bytes_out": rng.choice([0, 7, 10**15, None]),
            }
            flows.append(flow(t, **values))
        t += 0.5 * rng.uniform(0.6, 1.5)
    return flows


def random_members(rng):
    duration_s = rng.choice([5.0, 9.49, 9.5, 10.03, 14.5, 22.7])
    proc_hz = rng.choice([10, 10, 5, 1])
    sources = {"proc": {"hz": proc_hz}, "qmp": {"hz": 2}, "guest": {"hz": 1}}
    sources["netflow"] = {"interval_s": rng.choice([0.5, 0.5, 0.3, 2])}
    phases = sorted(rng.sample(range(5), rng.randrange(1, 6)))
    times = sorted(rng.choice([rng.uniform(0, duration_s), 5.0]) for _ in phases[1:])
    first = rng.choice([0.0, rng.uniform(-1, 0)])
    labels = [(t, reference.PHASES[p]) for t, p in zip([first, *times], phases, strict=True)]
    members = members_of(
        duration_s=duration_s, meta={"sources": sources}, netflow=False, phases=labels
    )
    for source, channels in reference.SAMPLED.items():
        names, hz = channels.split()[::2], sources[source]["hz"]
        rows = random_rows(rng, names, hz, duration_s)
        while len(rows) < duration_s * hz / 2:  # gaps took too many for the episode to be accepted
            rows = random_rows(rng, names, hz, duration_s)
        members[f"{source}.jsonl"] = lines(rows)
    netflow = rng.choice(["none", "silent", "busy", "busy"])
    if netflow != "none":
        flows = [] if netflow == "silent" else random_flows(rng, duration_s)
        members["netflow.jsonl"] = lines(flows)
    return members


@settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
@given(rng=st.integers(0, 2**32), wide=st.booleans())
def test_random_episodes_equal_the_reference(tmp_path, rng, wide):
    rng = random.Random(rng)
    other = Schema(
        hz=rng.choice([1, 2, 5, 10, 20]),
        max_gap_s=rng.choice([None, 0.15, 1.0, 10.0]),
        length_s=float(rng.choice([3, 5, 6])),
        stride_s=float(rng.choice([1, 2, 4])),
    )
    assert_equal_to_reference(random_members(rng), other if wide else DEFAULT, tmp_path)
