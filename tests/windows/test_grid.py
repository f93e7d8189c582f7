import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cis490.windows.grid import (
    SPAN,
    Samples,
    Steps,
    hold_counts,
    n_windows,
    silence,
    spread_sums,
    step_edges,
)

S = 1_000_000_000
EDGES = step_edges(20, 10)  # two seconds at 10 Hz


def times(*seconds):
    return np.array([round(t * S) for t in seconds], np.int64)


def rates(t, v, *, gap=0.25, modulus=None, edges=EDGES):
    v = np.asarray(v)
    v = v.astype(np.int64) if v.dtype.kind == "i" else v.astype(np.float64)
    samples = Samples(times(*t), np.full(len(t), gap * S), Steps(edges, 1))
    rate, valid = samples.counter(v, hz=10, modulus=modulus)
    return rate[0], valid[0]


def test_a_steady_counter_has_a_steady_rate():
    rate, valid = rates(np.arange(0, 2.01, 0.1), np.arange(21) * 7)
    np.testing.assert_allclose(rate, 70.0)
    assert valid.all()


@given(
    st.lists(st.integers(0, 10**12), min_size=4, max_size=40),
    st.randoms(use_true_random=False),
)
def test_totals_are_kept_whatever_the_sampling_times(increments, random):
    inner = sorted(random.uniform(0.001, 1.999) for _ in increments[2:])
    t = [0.0, *inner, 2.0]
    v = np.cumsum(increments)
    rate, valid = rates(t, v, gap=3.0)
    assert valid.all()
    np.testing.assert_allclose(rate.sum() / 10, v[-1] - v[0], rtol=1e-9, atol=1e-6)


def test_interpolation_is_linear_between_samples():
    rate, valid = rates([0.05, 0.25, 0.45], [0, 20, 60], edges=step_edges(5, 10))
    assert valid.tolist() == [False, True, True, True, False]
    np.testing.assert_allclose(rate[1:4], [100.0, 150.0, 200.0])


def test_a_wrap_of_16_bits_is_undone_and_any_other_decrease_is_a_restart():
    t = np.arange(0, 0.6, 0.1)
    v = [65_500, 65_520, 4, 24, 44, 64]
    edges = step_edges(5, 10)
    rate, valid = rates(t, v, modulus=65_536, edges=edges)
    np.testing.assert_allclose(rate, 200.0)
    assert valid.all()
    rate, valid = rates(t, v, edges=edges)
    assert valid.tolist() == [True, False, True, True, True]
    np.testing.assert_allclose(rate[valid], 200.0)


def test_a_restart_inside_a_step_hides_only_the_steps_it_touches():
    rate, valid = rates([0, 0.15, 0.25, 0.5], [10, 40, 5, 30], gap=1, edges=step_edges(5, 10))
    assert valid.tolist() == [True, False, False, True, True]
    np.testing.assert_allclose(rate[valid], [200.0, 100.0, 100.0])


def test_a_gap_longer_than_allowed_is_missing_and_at_the_limit_is_not():
    _, valid = rates([0, 0.25, 0.75], [0, 1, 2], gap=0.5, edges=step_edges(7, 10))
    assert valid.all()
    _, valid = rates([0, 0.25, 0.75], [0, 1, 2], gap=0.499, edges=step_edges(7, 10))
    assert valid.tolist() == [True, True, False, False, False, False, False]


def test_rates_are_not_extrapolated_beyond_the_samples():
    _, valid = rates([0.31, 0.4, 0.5, 0.69], [0, 1, 2, 3], edges=step_edges(10, 10))
    assert valid.tolist() == [False] * 4 + [True] * 2 + [False] * 4


def test_of_samples_at_one_time_the_last_counts():
    rate, valid = rates([0, 0.1, 0.1, 0.2], [0, 7, 10, 20], edges=step_edges(2, 10))
    assert valid.all()
    np.testing.assert_allclose(rate, 100.0)


def test_counters_near_the_end_of_int64_lose_no_count():
    base = 2**63 - 100
    rate, _ = rates([0, 0.1, 0.2], base + np.array([0, 3, 9]), edges=step_edges(2, 10))
    np.testing.assert_allclose(rate, [30.0, 60.0], rtol=1e-12)
    rate, _ = rates([0, 0.1], np.array([-(2**63), 2**63 - 1]), edges=step_edges(1, 10))
    np.testing.assert_allclose(rate, [2.0**64 * 10])


@pytest.mark.parametrize(("t", "v"), [([], []), ([0.5], [3])])
def test_too_few_samples_are_missing(t, v):
    rate, valid = rates(t, np.array(v, np.int64))
    assert not valid.any()
    assert not rate.any()


def test_a_gauge_is_the_last_value_and_is_carried_up_to_the_gap():
    samples = Samples(times(0.05, 0.15, 0.42), np.full(3, 0.2 * S), Steps(step_edges(8, 10), 1))
    level, valid = (found[0] for found in samples.gauge(np.array([5, 6, 7])))
    assert valid.tolist() == [True, True, True, False, True, True, False, False]
    assert level[valid].tolist() == [5, 6, 6, 7, 7]


def flows(t, amounts, *, interval_ns=S // 2, end_ns=2 * S):
    steps = Steps(EDGES, 1)
    values, mask = spread_sums(
        times(*t),
        np.zeros(len(t), int),
        np.atleast_2d(np.array(amounts, float)),
        interval_ns=np.array([interval_ns]),
        mask=silence(np.array([end_ns]), steps),
        steps=steps,
        hz=10,
    )
    return values[:, 0], mask[:, 0]


def test_a_flow_record_is_spread_evenly_over_the_interval_before_it():
    rate, mask = flows([1.0], [50])
    assert mask.all()
    np.testing.assert_allclose(rate[0, 5:10], 100.0)
    assert not rate[0, :5].any()
    assert not rate[0, 10:].any()
    rate, _ = flows([1.03], [50])
    np.testing.assert_allclose(rate[0, 5:11], [70, 100, 100, 100, 100, 30])


def test_records_of_one_flush_and_overlapping_intervals_add_up():
    rate, _ = flows([0.8, 0.8, 1.0], [10, 20, 30])
    assert rate.sum() / 10 == pytest.approx(60)


def test_only_what_lies_on_the_grid_counts_and_beyond_the_end_is_missing():
    rate, mask = flows([0.25, -1.0, 2.25, 9.0], [50, 1, 50, 1], end_ns=int(1.75 * S))
    assert mask[0].tolist() == [True] * 17 + [False] * 3
    np.testing.assert_allclose(rate[0, :3], [100, 100, 50])
    assert not rate[0, 17:].any()


def test_a_record_without_a_value_hides_its_interval_in_that_channel_alone():
    rate, mask = flows([0.5, 1.0], [[np.nan, 10], [10, 10]])
    assert mask[0].tolist() == [False] * 5 + [True] * 15
    assert mask[1].all()
    np.testing.assert_allclose(rate[1, :10], 20.0)


@given(
    st.lists(st.tuples(st.floats(0.6, 1.9), st.floats(0, 1e9)), min_size=1, max_size=30),
    st.sampled_from([0.05, 0.1, 0.5]),
)
def test_flow_totals_are_kept_and_silence_is_exactly_zero(records, interval):
    t, amounts = zip(*sorted(records), strict=True)
    rate, _ = flows(t, amounts, interval_ns=round(interval * S))
    np.testing.assert_allclose(rate.sum() / 10, sum(amounts), rtol=1e-6, atol=1e-6)
    # A step well clear of every record's interval; at its ends float times may differ by a ns.
    begin, end = EDGES[:-1] / S, EDGES[1:] / S
    clear = [
        all(x + 1e-6 < a or x - interval - 1e-6 > b for x in t)
        for a, b in zip(begin, end, strict=True)
    ]
    assert not rate[0, clear].any()


def test_a_large_record_leaves_no_trace_where_it_does_not_reach():
    """Sums that cancel would leave rates below zero, or of 1e-7 where there was nothing."""
    rate, _ = flows([1.03, 1.2, 1.47, 1.97], [10**18, 10**18 // 3, 7, 0])
    np.testing.assert_allclose(rate[0, 12:14], [14, 14], rtol=1e-12)
    assert not rate[0, 15:].any()
    assert (rate >= 0).all()


def test_long_records_are_spread_like_short_ones():
    edges = step_edges(300, 10)
    steps = Steps(edges, 1)
    for interval_s in (5.0, 20.0):
        values, _ = spread_sums(
            times(25.0),
            np.array([0]),
            np.array([[1000.0]]),
            interval_ns=np.array([round(interval_s * S)]),
            mask=silence(np.array([30 * S]), steps),
            steps=steps,
            hz=10,
        )
        covered = (edges[1:] > (25 - interval_s) * S) & (edges[1:] <= 25 * S)
        np.testing.assert_allclose(values[0, 0, covered], 1000 / interval_s)
        assert not values[0, 0, ~covered].any()


def test_distinct_counts_are_held_over_their_interval():
    steps = Steps(EDGES, 1)
    held, mask = hold_counts(
        times(0.5, 1.0, 1.8),
        np.array([[3.0, 4.0, 9.0]]),
        interval_ns=np.full(3, S // 2),
        mask=silence(np.array([2 * S]), steps),
        steps=steps,
    )
    assert mask.all()
    assert held[0, 0].tolist() == [3] * 5 + [4] * 5 + [0] * 3 + [9] * 5 + [0] * 2


def test_a_window_exists_if_95_percent_of_its_steps_lie_before_the_end():
    def count(duration_s):
        return n_windows(round(duration_s * S), 10, 100, 50)

    assert [count(s) for s in (9.4, 9.5, 9.59, 14.4, 14.5, 64.0)] == [0, 1, 1, 1, 2, 11]


def test_edges_of_a_rate_that_does_not_divide_a_second_do_not_drift():
    edges = step_edges(3 * 3600, 3)
    assert edges[-1] == 3600 * S
    assert set(np.diff(edges).tolist()) == {333_333_333, 333_333_334}


def test_nothing_reaches_from_one_episode_into_its_neighbour():
    """Each of three episodes side by side is gridded as if it were alone, to the bit."""
    rng = np.random.default_rng(7)
    alone, t, v, gap = [], [], [], []
    for e in range(3):
        own = np.sort(rng.uniform(-0.5, 2.5, 25))
        own[-1] = 50.0
        values = np.cumsum(rng.integers(-3, 40, 25))
        samples = Samples(times(*own), np.full(25, (0.2 + e) * S), Steps(EDGES, 1))
        alone.append((samples.counter(values, hz=10), samples.gauge(values)))
        t.append(times(*own) + e * SPAN)
        v.append(values)
        gap.append(np.full(25, (0.2 + e) * S))
    together = Samples(np.concatenate(t), np.concatenate(gap), Steps(EDGES, 3))
    v = np.concatenate(v)
    for k, got in enumerate([together.counter(v, hz=10), together.gauge(v)]):
        for part in (0, 1):
            expected = np.concatenate([pair[k][part] for pair in alone])
            np.testing.assert_array_equal(got[part], expected)


def test_wraps_of_a_neighbour_do_not_round_a_counter_of_fractions():
    rng = np.random.default_rng(0)
    own = times(*np.arange(25) / 10)
    levels = [np.cumsum(rng.integers(0, 20_000, 25) + rng.random(25)) % 65_536 for _ in range(3)]

    def counter(levels):
        t = np.concatenate([own + e * SPAN for e in range(len(levels))])
        samples = Samples(t, np.full(len(t), float(S)), Steps(EDGES, len(levels)))
        return samples.counter(np.concatenate(levels), hz=10, modulus=65_536)

    rate, valid = counter(levels)
    assert valid.all()
    for e in range(3):
        np.testing.assert_array_equal(rate[e], counter([levels[e]])[0][0])


def test_no_gap_however_long_reaches_a_neighbour():
    """Two episodes whose samples end, and begin, in the middle; `max_gap_s` may be 1e300."""
    t = np.concatenate([times(0, 0.5, 1) + e * SPAN for e in range(2)])
    samples = Samples(t + S // 2, np.full(6, np.inf), Steps(EDGES, 2))
    _, measured = samples.counter(np.arange(6), hz=10)
    _, held = samples.gauge(np.arange(6))
    for e in range(2):
        assert np.flatnonzero(measured[e]).tolist() == list(range(5, 15))
        assert np.flatnonzero(held[e]).tolist() == list(range(5, 20))
