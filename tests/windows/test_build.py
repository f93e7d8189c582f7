import json

import numpy as np
import polars as pl
import pytest

from cis490.channels import CHANNELS, PHASES
from cis490.episodes import tarball
from cis490.episodes.telemetry import collect, write
from cis490.episodes.validate import Entry, examine
from cis490.errors import FormatError, SchemaMismatch
from cis490.schema import Schema, feature_names
from cis490.windows.build import build, windows_of
from cis490.windows.codes import to_raw
from cis490.windows.shards import TensorShard, read_episodes, read_tensors, write_tensors
from tests.builders import START, flow, lines, members_of, pack, source_rows

SCHEMA = Schema(hz=10, max_gap_s=None, length_s=10.0, stride_s=5.0)
ROW = {channel.key: i for i, channel in enumerate(CHANNELS)}


def decode(tmp_path, episode_id="e1", members=None, **options):
    members = members or members_of(episode_id, **options)
    packed = pack(members)
    (tmp_path / f"{episode_id}.tar.zst").write_bytes(packed)
    import hashlib

    entry = Entry(
        episode_id,
        "alder",
        f"{episode_id}.tar.zst",
        hashlib.sha256(packed).hexdigest(),
        len(packed),
        1,
        1,
    )
    verdict, episode = examine(entry, tmp_path, tarball.Limits())
    assert episode is not None, verdict.faults
    return episode


class Grid:
    """An episode's grid in raw units, as its codes tell it: (46, n_steps), and its mask."""

    def __init__(self, shard):
        x = shard.decoded()
        self.values, self.mask = to_raw(x).T, ~np.isnan(x).T


def grid_of(episode, schema=SCHEMA):
    return Grid(windows_of(collect([episode]), schema)[2])


def test_netflow_rows_survive_an_uptime_based_mono_clock(tmp_path):
    """Netflow's t_mono_ns counts from the host's boot; aligned on it, every flow would be lost."""
    flows = [
        flow(t, proto=proto, tcp_flags=flags, new=1, dst=f"10.0.0.{t}")
        for t in range(2, 18)
        for proto, flags in (("tcp", 2 | 4), ("arp", 0))
    ]
    assert all(row["t_mono_ns"] > 1e12 for row in flows)
    shard = grid_of(decode(tmp_path, members=members_of() | {"netflow.jsonl": lines(flows)}))
    for channel in CHANNELS:
        if channel.source == "netflow":
            row = ROW[channel.key]
            assert shard.mask[row].all(), channel.key
            assert shard.values[row].max() > 0, channel.key


def test_silence_is_zero_and_absence_is_missing(tmp_path):
    netflow = [ROW[c.key] for c in CHANNELS if c.source == "netflow"]
    silent = grid_of(decode(tmp_path, members=members_of() | {"netflow.jsonl": b""}))
    assert silent.mask[netflow].all()
    assert not silent.values[netflow].any()  # exactly zero
    absent = grid_of(decode(tmp_path, netflow=False))
    assert not absent.mask[netflow].any()


def test_flows_count_what_flags_and_proto_say(tmp_path):
    flows = [
        flow(1.0, tcp_flags=2, new=1, sport=1),
        flow(1.0, tcp_flags=6, new=1, sport=2),
        flow(1.0, tcp_flags=16, sport=2),
        flow(1.0, proto="arp", dst="10.0.0.9", tcp_flags=None),
    ]
    shard = grid_of(decode(tmp_path, members=members_of() | {"netflow.jsonl": lines(flows)}))
    expected = {"syn": 4, "rst": 2, "arp": 2, "new_flows": 4, "pkts_out": 40}
    expected |= {"active_flows": 3, "active_dsts": 2}
    told = {name: shard.values[ROW[f"netflow.{name}"], 7] for name in expected}
    assert told == pytest.approx(expected, rel=1e-5)
    assert shard.mask.all(axis=1)[ROW["netflow.syn"]]


def test_unknown_flags_of_a_tcp_record_make_syn_missing_not_zero(tmp_path):
    flows = [flow(1.0, tcp_flags=None)]
    shard = grid_of(decode(tmp_path, members=members_of() | {"netflow.jsonl": lines(flows)}))
    assert not shard.mask[ROW["netflow.syn"], 5:10].any()
    assert shard.mask[ROW["netflow.syn"], 10:].all()
    assert shard.mask[ROW["netflow.pkts_out"]].all()


def test_null_values_are_bridged_up_to_the_gap_and_missing_beyond(tmp_path):
    rows = [json.loads(line) for line in members_of()["proc.jsonl"].splitlines()]
    rows[20]["minflt"] = None
    del rows[21]["minflt"]
    for row in rows[50:60]:
        row["minflt"] = None
    shard = grid_of(decode(tmp_path, members=members_of() | {"proc.jsonl": lines(rows)}))
    missing = np.flatnonzero(~shard.mask[ROW["proc.minflt"]]).tolist()
    # 2.5 intervals of 0.1 s: two nulls leave a gap of 0.3 s; the last sample is at 19.9 s.
    assert missing == [19, 20, 21, *range(49, 60), 199]
    assert np.flatnonzero(~shard.mask[ROW["proc.utime_ticks"]]).tolist() == [199]


def test_the_gap_follows_the_nominal_rate_of_the_source(tmp_path):
    members = members_of(hz=5)
    assert grid_of(decode(tmp_path, members=members)).mask[ROW["proc.minflt"], :190].all()
    tight = Schema(hz=10, max_gap_s=0.15, length_s=10.0, stride_s=5.0)
    assert not grid_of(decode(tmp_path, members=members), tight).mask[ROW["proc.minflt"]].any()


def windows(tmp_path, **options):
    episode = decode(tmp_path, **options)
    return windows_of(collect([episode]), SCHEMA)[:2]


def test_a_window_takes_the_phase_that_covers_most_of_it(tmp_path):
    phases = [(0, "clean"), (4, "armed"), (9.5, "infecting"), (13.5, "infected_running")]
    frame, _ = windows(tmp_path, phases=phases)
    assert frame["phase"].to_list() == ["armed", "armed", "infected_running"]
    np.testing.assert_allclose(frame["phase_share"], [0.55, 0.45, 0.65])


def test_a_tie_of_phases_goes_to_the_later_one(tmp_path):
    frame, _ = windows(tmp_path, phases=[(0, "clean"), (5, "infecting")])
    assert frame["phase"].to_list() == ["infecting"] * 3
    np.testing.assert_allclose(frame["phase_share"], [0.5, 1, 1])


def test_the_first_label_reaches_back_to_the_start_and_the_last_beyond_the_end(tmp_path):
    frame, _ = windows(tmp_path, phases=[(0.9, "armed")], duration_s=9.6)
    assert frame["phase"].to_list() == ["armed"]
    np.testing.assert_allclose(frame["phase_share"], [1.0])


def test_clock_jumps_leave_holes_and_lose_no_other_row(tmp_path):
    rows = [json.loads(line) for line in members_of()["proc.jsonl"].splitlines()]
    for row in rows[100:]:
        row["t_wall_ns"] += 3_000_000_000
    for row in rows[195:]:
        row["t_wall_ns"] = 9_000_000_000_000_000_000
    shard = grid_of(decode(tmp_path, members=members_of() | {"proc.jsonl": lines(rows)}))
    missing = np.flatnonzero(~shard.mask[ROW["proc.minflt"]]).tolist()
    assert missing == list(range(99, 130))


def test_an_episode_shorter_than_a_window_has_no_row_and_no_fault(tmp_path):
    frame, features = windows(tmp_path, duration_s=9.0)
    assert (frame.height, features.shape) == (0, (0, 276))


def build_batch(tmp_path, episodes, out="out", **options):
    write(tmp_path / "telemetry", episodes)
    build(
        tmp_path / "telemetry",
        SCHEMA,
        features=tmp_path / f"{out}.parquet",
        tensors=tmp_path / f"{out}.safetensors",
        **options,
    )
    shard = read_tensors(tmp_path / f"{out}.safetensors", SCHEMA)
    return pl.read_parquet(tmp_path / f"{out}.parquet"), shard


def test_a_batch_holds_the_windows_of_each_episode_as_if_it_were_alone(tmp_path):
    options = [
        {"load": 1},
        {"netflow": False, "load": 5},
        {"duration_s": 9.0},
        {"duration_s": 33.0},
    ]
    episodes = [decode(tmp_path, f"e{i}", **option) for i, option in enumerate(options)]
    frame, shard = build_batch(tmp_path, episodes)
    names = feature_names("oracle")
    assert frame.columns[8:] == names
    for i, episode in enumerate(episodes):
        header, features, alone = windows_of(collect([episode]), SCHEMA)
        mine = frame.filter(episode_id=f"e{i}")
        assert mine.select(header.columns).equals(header)
        np.testing.assert_array_equal(mine.select(names).to_numpy(), features)
        steps = slice(shard.offset[i], shard.offset[i + 1])
        np.testing.assert_array_equal(shard.codes[steps], alone.codes)
        np.testing.assert_array_equal(shard.scale[i], alone.scale[0])
        np.testing.assert_array_equal(shard.base[i], alone.base[0])
        assert shard.n_windows[i] == header.height
    assert frame["t_start_wall_ns"][:3].to_list() == [START + int(s * 1e9) for s in (0, 5, 10)]
    assert {PHASES[p] for p in shard.phase} == {"clean", "infecting", "infected_running"}


def test_neither_bare_sources_nor_long_gaps_let_an_episode_reach_its_neighbour(tmp_path):
    """Sources of no sample, one and two; lengths from a nanosecond on; windows of a step."""
    slow = {"sources": {source: {"interval_s": 1e6} for source in ("proc", "qmp", "guest")}}
    episodes = []
    for i, duration_s in enumerate([1e-9, 0.05, 4.0, 4.0, 4.0, 7.3]):
        members = members_of(f"e{i}", duration_s=duration_s, meta=slow, phases=[(0, "clean")])
        for source, hz in (("proc", 10), ("qmp", 2), ("guest", 1)):
            rows = source_rows(source, hz, 7.0)[2:]
            bare = [{"t_wall_ns": rows[0]["t_wall_ns"], "t_mono_ns": 0}]
            members[f"{source}.jsonl"] = lines([bare, rows[:1], bare, rows[:1], rows[:2], rows][i])
        episodes.append(decode(tmp_path, f"e{i}", members))
    for gap, length_s, stride_s in ((None, 0.1, 0.1), (1e9, 0.1, 0.7), (1e300, 3.0, 5.0)):
        schema = Schema(hz=10, max_gap_s=gap, length_s=length_s, stride_s=stride_s)
        header, features, shard = windows_of(collect(episodes), schema)
        alone = [windows_of(collect([episode]), schema) for episode in episodes]
        assert header.equals(pl.concat([one[0] for one in alone]))
        np.testing.assert_array_equal(features, np.concatenate([one[1] for one in alone]))
        assert shard.offset.tolist() == [0, 0, 0, 40, 80, 120, 193]
        joined = TensorShard.joined([one[2] for one in alone])
        for name in ("offset", "n_windows", "codes", "scale", "base", "phase"):
            np.testing.assert_array_equal(getattr(shard, name), getattr(joined, name))
        write_tensors(tmp_path / "t.safetensors", shard, schema)
        some = read_episodes(tmp_path / "t.safetensors", schema, ["e5", "e0", "e4"])
        for i, one in zip((5, 0, 4), some, strict=True):
            np.testing.assert_array_equal(one.codes, alone[i][2].codes)
            assert one.n_windows[0] == alone[i][0].height


def test_building_twice_gives_the_same_bytes(tmp_path):
    episodes = [decode(tmp_path, f"e{i}", load=i + 1) for i in range(3)]
    build_batch(tmp_path, episodes, "one")
    build_batch(tmp_path, episodes, "two")
    for suffix in ("parquet", "safetensors"):
        assert (tmp_path / f"one.{suffix}").read_bytes() == (
            tmp_path / f"two.{suffix}"
        ).read_bytes()


@pytest.mark.parametrize("share", [0.0, 0.5])
def test_windows_of_a_batch_read_in_pieces_are_those_of_the_whole_byte_for_byte(tmp_path, share):
    options = [{"load": 3}, {"netflow": False}, {"duration_s": 9.0}, {"duration_s": 33.0}, {}]
    episodes = [decode(tmp_path, f"e{i}", **option) for i, option in enumerate(options)]
    rows = [json.loads(line) for line in members_of()["proc.jsonl"].splitlines()]
    rows[7] |= {"rss_bytes": 0.5, "minflt": None}
    fractions = members_of("e5") | {"proc.jsonl": lines(rows)}
    episodes.append(decode(tmp_path, "e5", members=fractions))
    total = sum(episode.header["held_bytes"] for episode in episodes)
    build_batch(tmp_path, episodes, "whole")
    build_batch(tmp_path, episodes, "pieces", most_bytes=int(share * total))
    for suffix in ("parquet", "safetensors"):
        whole, pieces = ((tmp_path / f"{out}.{suffix}").read_bytes() for out in ("whole", "pieces"))
        assert whole == pieces


def test_a_shard_may_be_read_by_whoever_may_read_the_features(tmp_path):
    build_batch(tmp_path, [decode(tmp_path)])
    modes = [(tmp_path / f"out.{suffix}").stat().st_mode for suffix in ("parquet", "safetensors")]
    assert modes[0] == modes[1]


def test_an_empty_batch_gives_empty_files_of_the_right_columns(tmp_path):
    frame, shard = build_batch(tmp_path, [])
    assert frame.height == 0
    assert frame.columns[8:] == feature_names("oracle")
    assert shard.codes.shape == (0, 46)
    assert shard.scale.shape == shard.base.shape == (0, 46)


def test_a_shard_of_another_schema_or_damaged_is_refused(tmp_path):
    build_batch(tmp_path, [decode(tmp_path)])
    path = tmp_path / "out.safetensors"
    other = Schema(hz=10, max_gap_s=None, length_s=10.0, stride_s=2.5)
    with pytest.raises(SchemaMismatch, match=f"(?s){SCHEMA.sha256}.*{other.sha256}"):
        read_tensors(path, other)
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(FormatError, match=r"out\.safetensors"):
        read_tensors(path, SCHEMA)
