"""What is done to telemetry: as much as is said, to those rows alone, and never to the truth."""

import numpy as np
import polars as pl
import pytest

from cis490.channels import CHANNELS, SAMPLED, SOURCES, channel_index
from cis490.robustness.conditions import LYING_GUEST, UNPERTURBED, Condition, conditions
from cis490.robustness.perturb import halved, lied, perturb
from cis490.schema import Schema, feature_names
from cis490.windows.build import windows_of
from tests.builders import SECOND, START, flow, lines, members_of
from tests.robustness.made import telemetry_of

SCHEMA = Schema(hz=10, max_gap_s=None, length_s=10.0, stride_s=5.0)
EVERY = conditions({"loss": [0.5, 0.1], "skew_s": [2, 0.5]})
BY_NAME = {condition.name: condition for condition in EVERY}


@pytest.fixture(scope="module")
def frames(tmp_path_factory):
    folder = tmp_path_factory.mktemp("episodes")
    return telemetry_of(
        folder,
        {"episode_id": "e1", "load": 3},
        {"episode_id": "e2", "host_id": "birch", "netflow": False},
        {"episode_id": "control", "profile": "none", "phases": [(0, "clean")]},
        {"episode_id": "infected", "phases": [(0, "infected_running")], "load": 2},
    )


def alone(frames, i):
    """Telemetry of one episode."""
    found = {"episodes": frames["episodes"][i : i + 1]}
    for table, frame in frames.items():
        if table != "episodes":
            found[table] = frame.filter(episode=i).with_columns(episode=pl.lit(0, pl.UInt32))
    return found


def test_conditions_have_a_name_each_and_levels_rise():
    assert [c.name for c in EVERY] == [
        UNPERTURBED,
        *(f"without_{source}" for source in SOURCES),
        *("loss_0.1", "loss_0.5", "skew_0.5", "skew_2", "half_rate", LYING_GUEST),
    ]


@pytest.mark.parametrize("condition", EVERY, ids=lambda c: c.name)
def test_labels_stay_true_and_nothing_is_done_in_place(frames, condition):
    before = {table: frame.clone() for table, frame in frames.items()}
    after = perturb(frames, condition)
    assert after["labels"].equals(frames["labels"])
    assert all(frames[table].equals(frame) for table, frame in before.items())
    assert {table: frame.schema for table, frame in after.items()} == {
        table: frame.schema for table, frame in frames.items()
    }


@pytest.mark.parametrize("condition", EVERY, ids=lambda c: c.name)
def test_what_an_episode_gets_does_not_depend_on_its_neighbours(frames, condition):
    after = perturb(frames, condition)
    for i in range(len(frames["episodes"])):
        by_itself = perturb(alone(frames, i), condition)
        for table in SOURCES:
            assert (
                by_itself[table]
                .drop("episode")
                .equals(after[table].filter(episode=i).drop("episode"))
            ), (table, i)


@pytest.mark.parametrize("source", SOURCES)
def test_a_dropped_source_is_absent_and_not_silent(frames, source):
    _, features, _ = windows_of(perturb(frames, BY_NAME[f"without_{source}"]), SCHEMA)
    _, before, _ = windows_of(frames, SCHEMA)
    for i, name in enumerate(feature_names("oracle")):
        if name.startswith(f"{source}."):
            missing = name.endswith(".missing")
            assert (features[:, i] == 1).all() if missing else np.isnan(features[:, i]).all(), name
        else:
            assert np.array_equal(features[:, i], before[:, i], equal_nan=True), name


def test_rows_lost_are_of_the_share_of_every_source_and_grow_with_it(frames):
    few, many = (perturb(frames, BY_NAME[f"loss_{share}"]) for share in (0.1, 0.5))
    for source in SOURCES:
        n = frames[source].height
        for tables, share in ((few, 0.1), (many, 0.5)):
            spread = np.sqrt(share * (1 - share) * n)
            assert abs(n - tables[source].height - share * n) < 4 * spread
        assert many[source].join(few[source], on=few[source].columns, how="anti").is_empty()


def test_sources_lose_rows_of_their_own(frames):
    lost = perturb(alone(frames, 0), BY_NAME["loss_0.5"])
    qmp, guest = (
        set(((lost[name]["t_wall_ns"] - START) // (SECOND // 2)).to_list())
        for name in ("qmp", "guest")
    )
    assert guest - qmp


@pytest.mark.parametrize(("name", "most"), [("skew_0.5", 0.5), ("skew_2", 2)])
def test_each_clock_but_that_of_proc_is_off_by_one_amount_an_episode(frames, name, most):
    after = perturb(frames, BY_NAME[name])
    assert after["proc"].equals(frames["proc"])
    shifts = set()
    for source in ("qmp", "guest", "netflow"):
        off = after[source]["t_wall_ns"] - frames[source]["t_wall_ns"]
        of_episode = pl.DataFrame([frames[source]["episode"], off]).group_by("episode")
        told = of_episode.agg(pl.col("t_wall_ns").unique())["t_wall_ns"]
        assert (told.list.len() == 1).all()
        shifts |= set(told.list.first().to_list())
        rest = [column for column in frames[source].columns if column != "t_wall_ns"]
        assert after[source].select(rest).equals(frames[source].select(rest))
    assert len(shifts) == 4 + 4 + 3
    assert max(map(abs, shifts)) <= most * SECOND
    assert min(shifts) < 0 < max(shifts)
    assert max(map(abs, shifts)) > 0.5 * most * SECOND


def test_a_sampled_source_at_half_rate_keeps_every_second_row_and_its_rates(frames):
    after = halved(frames)
    for source in SAMPLED:
        for episode in range(len(frames["episodes"])):
            kept, rows = (t[source].filter(episode=episode) for t in (after, frames))
            assert kept.equals(rows.gather_every(2))
    doubled = after["episodes"]["interval_s_proc"] / frames["episodes"]["interval_s_proc"]
    assert (doubled == 2).all()
    i = feature_names("oracle").index("proc.minflt.mean")
    n_inner = slice(1, 3)  # the last window lacks what only a lost row told
    before, half = (windows_of(alone(t, 0), SCHEMA)[1][n_inner, i] for t in (frames, after))
    np.testing.assert_allclose(half, before, rtol=1e-3)


def test_netflow_at_half_rate_adds_up_what_a_flow_did_in_twice_the_interval(tmp_path):
    flows = [
        flow(0.5, bytes_out=100, tcp_flags=2, new=1),
        flow(1.0, bytes_out=10, tcp_flags=16, new=0),
        flow(1.0, bytes_out=7, dport=443, tcp_flags=4, new=1),
        flow(1.5, bytes_out=1, tcp_flags=16),
        flow(2.5, bytes_out=None, tcp_flags=None),
    ]
    members = members_of("e1") | {"netflow.jsonl": lines(flows)}
    after = halved(telemetry_of(tmp_path, {"episode_id": "e1", "members": members}))["netflow"]
    seconds = ((after["t_wall_ns"] - START) / SECOND).to_list()
    assert seconds == [1.0, 1.0, 2.0, 3.0]
    assert after["bytes_out"].to_list() == [110, 7, 1, None]
    assert after["tcp_flags"].to_list() == [18, 4, 16, None]
    assert after["new"].to_list() == [1, 1, 0, 0]
    assert after["dport"].to_list() == [80, 443, 80, 80]


def test_a_lying_guest_goes_on_as_when_it_was_clean(frames):
    spoken = lied(frames)
    for source in ("qmp", "guest"):
        rows, lie = (t[source].filter(episode=0) for t in (frames, spoken))
        t = (rows["t_wall_ns"] - START).to_numpy() / SECOND
        assert lie["t_wall_ns"].equals(rows["t_wall_ns"])
        for channel in (c for c in CHANNELS if c.source == source):
            before, after = rows[channel.name].to_numpy(), lie[channel.name].to_numpy()
            assert lie[channel.name].dtype == pl.Int64
            assert np.array_equal(before[t < 10], after[t < 10]), channel
            if channel.trust == "host":
                assert np.array_equal(before, after), channel


def test_a_lie_freezes_gauges_and_lets_counters_grow_at_their_clean_rate(tmp_path):
    members = members_of("e1", phases=[(0, "clean"), (4, "armed"), (8, "infecting")])
    rows = [
        {"t_wall_ns": START + i * SECOND, "t_mono_ns": 0, "cpu_user": 5 * i if i < 6 else 900 * i}
        | {"procs_running": i}
        for i in range(20)
    ]
    tables = telemetry_of(
        tmp_path, {"episode_id": "e1", "members": members | {"guest.jsonl": lines(rows)}}
    )
    guest = lied(tables)["guest"]
    assert guest["procs_running"].to_list() == [*range(8), *[3] * 12]
    armed = [5400, 6300]
    assert guest["cpu_user"].to_list() == [0, 5, 10, 15, 20, 25, *armed] + [
        6300 + 5 * k for k in range(1, 13)
    ]
    assert guest["ctxt"].null_count() == 20  # never said, so nothing to go on with


def test_a_guest_without_clean_time_or_without_an_infection_tells_no_lie(frames):
    spoken = lied(frames)
    for source in ("qmp", "guest"):
        honest = pl.col("episode") >= 2
        assert spoken[source].filter(honest).equals(frames[source].filter(honest))
        assert not spoken[source].filter(~honest).equals(frames[source].filter(~honest))


def test_the_realistic_inputs_do_not_move_by_a_bit_when_the_guest_lies(frames):
    (_, before, grid), (_, after, lie) = (
        windows_of(tables, SCHEMA) for tables in (frames, perturb(frames, BY_NAME[LYING_GUEST]))
    )
    realistic = channel_index("realistic")
    names = feature_names("oracle")
    seen = [names.index(name) for name in feature_names("realistic")]
    assert after[:, seen].tobytes() == before[:, seen].tobytes()
    for name in ("codes", "scale", "base"):
        ours, theirs = getattr(grid, name), getattr(lie, name)
        assert ours[:, realistic].tobytes() == theirs[:, realistic].tobytes(), name
    assert grid.codes.tobytes() != lie.codes.tobytes()
    assert after.tobytes() != before.tobytes()


def test_no_condition_needs_an_episode(frames):
    empty = {table: frame.clear() for table, frame in frames.items()}
    for condition in EVERY:
        assert all(frame.is_empty() for frame in perturb(empty, condition).values()), condition


def test_a_condition_of_another_kind_does_nothing(frames):
    after = perturb(frames, Condition("still", "unperturbed"))
    assert all(after[table].equals(frame) for table, frame in frames.items())
