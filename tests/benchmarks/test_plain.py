"""What the bench times against must do the same work: its outputs equal the library's."""

import numpy as np
import pytest

from benchmarks import plain
from cis490.channels import CHANNELS, PHASES
from cis490.episodes.tarball import Limits
from cis490.schema import STATISTICS, Schema
from cis490.windows.codes import signed_log1p
from cis490.windows.episode import episode_windows
from tests.builders import flow, lines, members_of, pack
from tests.conftest import SAMPLE_STORE

SCHEMA = Schema(hz=10, max_gap_s=None, length_s=10.0, stride_s=5.0)
SAMPLES = [
    sorted((SAMPLE_STORE / host).glob("*.tar.zst"))[i]
    for host in ("alder", "birch", "dogwood")
    for i in (-1, -4)
]


def assert_equal(path):
    header, features, shard = episode_windows(path, SCHEMA, Limits())
    ours = plain.episode(plain.read(path), SCHEMA)

    grid = np.array([[0.0 if v is None else v for v in series] for series in ours.grid])
    largest = np.abs(grid).max(axis=1, keepdims=True)
    exact = np.array(ours.grid, float).T
    log = [channel.log for channel in CHANNELS]
    exact[:, log] = signed_log1p(exact[:, log])
    decoded = shard.decoded()
    assert (np.isnan(decoded) == np.isnan(exact)).all()
    room = 0.5 * shard.scale[0] + 1e-6 * (1 + np.abs(exact))
    assert (np.nan_to_num(np.abs(decoded - exact) - room, nan=-1) <= 0).all()
    assert shard.phase.tolist() == ours.step_phase

    # Spread and trend are differences: they inherit the rounding of what is subtracted.
    room = 1e-6 * np.repeat(largest.ravel(), len(STATISTICS)) + 1e-6
    mine = np.array(ours.features)
    assert (np.isnan(features) == np.isnan(mine)).all()
    assert (np.nan_to_num(np.abs(features - mine)) <= room).all()
    assert header["phase"].to_list() == [PHASES[phase] for phase in ours.phase]
    np.testing.assert_allclose(header["phase_share"], ours.share, rtol=1e-6)


@pytest.mark.parametrize("path", SAMPLES, ids=lambda path: f"{path.parent.name}-{path.name[:6]}")
def test_the_plain_reference_equals_the_library_on_sample_episodes(path):
    assert_equal(path)


def test_the_plain_reference_knows_gaps_wraps_restarts_nulls_and_silence(tmp_path):
    members = members_of(duration_s=32.0)
    rows = [plain.json.loads(line) for line in members["qmp.jsonl"].splitlines()]
    for i, row in enumerate(rows):
        row["net_tx_used"] = i * 5000 % 65536  # wraps
        row["rd_bytes"] = row["rd_bytes"] if i < 20 else i  # restarts
        if i % 7 == 3:
            row["wr_ops"] = None
    flows = [flow(t, tcp_flags=None if t == 3 else 2) for t in (0.3, 1, 3, 3, 14, 31.9, 33)]
    path = tmp_path / "e1.tar.zst"
    path.write_bytes(
        pack(
            members
            | {
                "qmp.jsonl": lines([*rows[:30], *rows[36:], rows[-1]]),  # a gap, and a time twice
                "netflow.jsonl": lines(flows),
            }
        )
    )
    assert_equal(path)
    grid = dict(
        zip((c.key for c in CHANNELS), plain.episode(plain.read(path), SCHEMA).grid, strict=True)
    )
    assert grid["qmp.net_tx_used"][5:140] == pytest.approx([10_000.0] * 135)
    assert None in grid["qmp.rd_bytes"][90:110]
    assert grid["netflow.syn"][27] is None
    assert grid["netflow.pkts_out"][100] == 0.0
