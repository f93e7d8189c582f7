import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from cis490.channels import CHANNELS
from cis490.episodes.tarball import Limits
from cis490.episodes.telemetry import collect
from cis490.episodes.validate import examine_file
from cis490.schema import Schema
from cis490.windows import build
from cis490.windows.codes import LEAST, MISSING, STEPS, decode, encode, signed_log1p, to_raw
from tests.conftest import SAMPLE_STORE

C = len(CHANNELS)
LOG = next(i for i, channel in enumerate(CHANNELS) if channel.log)
RAW = next(i for i, channel in enumerate(CHANNELS) if not channel.log)
LARGEST = float(np.finfo(np.float32).max)


def grids(n, n_steps, *, seed=0, missing=0.1):
    rng = np.random.default_rng(seed)
    values = np.exp(rng.normal(size=(C, n, n_steps)) * rng.uniform(0, 6, (C, 1, 1)))
    values *= rng.choice([1, 1, 1, 0, -1], values.shape)
    return values.astype(np.float32), rng.random(values.shape) >= missing


def exact(values):
    """Model space in float64, in the layout of the codes."""
    log = np.array([channel.log for channel in CHANNELS])[:, None, None]
    x = values.astype(np.float64)
    return np.where(log, np.sign(x) * np.log1p(np.abs(x)), x).transpose(1, 2, 0)


def series(*values, channel=LOG):
    """One episode whose channel reads `values`, None where missing; all others are missing."""
    grid, mask = (
        np.full((C, 1, len(values)), np.nan, np.float32),
        np.zeros((C, 1, len(values)), bool),
    )
    for step, value in enumerate(values):
        if value is not None:
            grid[channel, 0, step], mask[channel, 0, step] = value, True
    return grid, mask


def decoded(values, mask):
    codes, scale, base = encode(values, mask)
    return decode(codes, scale[:, None], base[:, None])


def test_values_come_back_within_half_a_code_and_what_is_missing_as_nan():
    values, mask = grids(5, 300)
    codes, scale, base = encode(values, mask)
    assert (codes.shape, scale.shape, base.shape) == ((5, 300, C), (5, C), (5, C))
    assert (codes.dtype, scale.dtype, base.dtype) == (np.int16, np.float32, np.float32)
    back, x = decode(codes, scale[:, None], base[:, None]), exact(values)
    assert np.array_equal(np.isnan(back), ~mask.transpose(1, 2, 0))
    largest = np.nanmax(np.abs(np.where(np.isnan(back), np.nan, x)), axis=1, keepdims=True)
    bound = 0.51 * scale[:, None] + 4e-7 * largest
    assert np.nanmax(np.abs(back - x) / bound) <= 1


def test_a_step_is_a_65534th_of_the_range_and_the_ends_are_the_first_and_last_code():
    for channel in (LOG, RAW):
        codes, scale, base = encode(*series(10.0, 2.0, 700.0, channel=channel))
        ends = exact(np.broadcast_to(np.array([[[2, 700]]]), (C, 1, 2)))[0, :, channel]
        np.testing.assert_allclose(base[0, channel], ends[0], rtol=1e-6)
        np.testing.assert_allclose(scale[0, channel], (ends[1] - ends[0]) / STEPS, rtol=1e-6)
        assert codes[0, 1:, channel].tolist() == [LEAST, 32767]


def test_zero_is_exactly_zero_where_it_is_the_least():
    for channel in (LOG, RAW):
        assert decoded(*series(0.0, 1e9, 3.0, 0.0, channel=channel))[
            0, [0, 3], channel
        ].tolist() == [
            0,
            0,
        ]


def test_the_bits_of_an_episode_do_not_depend_on_its_neighbours():
    values, mask = grids(33, 127)
    together = encode(values, mask)
    for i in (0, 1, 7, 32):
        alone = encode(values[:, i : i + 1], mask[:, i : i + 1])
        for one, all_ in zip(alone, together, strict=True):
            assert one[0].tobytes() == all_[i].tobytes()


def test_a_negative_zero_is_zero_whoever_is_beside_it():
    for channel in (LOG, RAW):
        values, mask = series(-0.0, 3.0, 0.0, channel=channel)
        beside = np.concatenate([values, np.full_like(values, -5)], axis=1)
        both = encode(beside, np.concatenate([mask, mask], axis=1))
        for one, two in zip(encode(values, mask), both, strict=True):
            assert one[0].tobytes() == two[0].tobytes()
        assert np.signbit(both[2][0, channel]) == 0


def test_what_is_hidden_by_the_mask_changes_nothing():
    values, mask = grids(2, 50)
    for hidden in (np.nan, np.inf, -LARGEST, LARGEST):
        other = np.where(mask, values, np.float32(hidden))
        for one, two in zip(encode(values, mask), encode(other, mask), strict=True):
            assert one.tobytes() == two.tobytes()


@pytest.mark.parametrize("channel", [LOG, RAW])
@pytest.mark.parametrize(
    "values",
    [
        (5.0, 5.0, 5.0),
        (None, 5.0, None),
        (-7.5, None, -7.5),
        (0.0, 0.0),
        (LARGEST, LARGEST),
        (1e-45, 0.0),
        (1e-38, 2e-38),
    ],
)
def test_constants_and_single_values_come_back(channel, values):
    back = decoded(*series(*values, channel=channel))[0, :, channel]
    there = [v is not None for v in values]
    x = exact(np.broadcast_to(np.array([v or 0.0 for v in values]), (C, 1, len(values))))
    assert np.isfinite(back).tolist() == there
    np.testing.assert_allclose(back[there], x[0, there, channel], rtol=2e-7, atol=1e-37)


@pytest.mark.parametrize("channel", [LOG, RAW])
def test_the_largest_range_of_float32_does_not_overflow(channel):
    back = decoded(*series(LARGEST, -LARGEST, 0.0, None, channel=channel))[0, :, channel]
    x = exact(np.broadcast_to(np.array([LARGEST, -LARGEST, 0, 0]), (C, 1, 4)))[0, :, channel]
    span = x[0] - x[1]
    assert np.isnan(back[3])
    assert np.abs(back[:3] - x[:3]).max() <= 0.51 * span / STEPS


def test_a_channel_never_measured_has_no_base_and_no_code():
    codes, scale, base = encode(*series(1.0, 2.0))
    assert np.flatnonzero(~np.isnan(base[0])).tolist() == [LOG]
    assert np.flatnonzero(scale[0]).tolist() == [LOG]
    assert (np.delete(codes, LOG, axis=2) == MISSING).all()


@pytest.mark.parametrize(("n", "n_steps"), [(0, 100), (3, 0), (0, 0)])
def test_no_episodes_and_no_steps_are_no_trouble(n, n_steps):
    codes, scale, base = encode(*grids(n, n_steps))
    assert (codes.shape, scale.shape, base.shape) == ((n, n_steps, C), (n, C), (n, C))
    assert np.isnan(base).all()


def test_a_long_way_from_zero_small_changes_of_a_gauge_are_kept():
    back = decoded(*series(1e6, 1e6 + 1, 1e6 + 2, channel=RAW))[0, :, RAW]
    assert back.tolist() == [1e6, 1e6 + 1, 1e6 + 2]


def test_raw_units_are_told_again():
    values, mask = grids(1, 400)
    raw = to_raw(decoded(values, mask))[0].T
    assert np.array_equal(np.isnan(raw), ~mask[:, 0])
    for c, channel in enumerate(CHANNELS):
        there, largest = mask[c, 0], np.abs(values[c]).max()
        if channel.log:  # half a step of a range of at most 2 log(largest) is that share of 1 + |v|
            bound = (1 + np.abs(values[c, 0])) * (1.1 * np.log1p(largest) / STEPS + 1e-5)
        else:
            bound = np.full(400, 1.1 * largest / STEPS)
        assert (np.abs(raw[c] - values[c, 0])[there] <= bound[there]).all(), channel.key


@settings(max_examples=150, deadline=None)
@example(
    two=np.float32(7.316542e-34) * np.tile(np.arange(9, dtype=np.float32) > 0, (2, 1)),
    present=np.ones((2, 9), bool),
)
@given(
    arrays(np.float32, (2, 9), elements=st.floats(-LARGEST, LARGEST, width=32)),
    arrays(np.bool_, (2, 9)),
)
def test_any_finite_values_come_back_in_order_and_in_range(two, present):
    values, mask = np.zeros((C, 1, 9), np.float32), np.zeros((C, 1, 9), bool)
    for row, channel in enumerate((LOG, RAW)):
        values[channel, 0], mask[channel, 0] = two[row], present[row]
    back, x = decoded(values, mask)[0], exact(values)[0]
    for row, channel in enumerate((LOG, RAW)):
        there = present[row]
        assert np.array_equal(~np.isnan(back[:, channel]), there)
        if there.any():
            want, got = x[there, channel], back[there, channel].astype(np.float64)
            bound = 0.51 * np.ptp(want) / STEPS + 4e-7 * np.abs(want).max()
            # A smaller range is taken for a constant; that of a gauge is halved first.
            bound += 2 * STEPS * np.finfo(np.float32).tiny
            assert np.abs(got - want).max() <= bound
            assert (np.diff(got[np.argsort(want, kind="stable")]) >= 0).all()


def test_the_signed_log_is_odd_and_keeps_the_precision_of_its_input():
    x = np.array([-1, 0, 1], np.float32)
    assert signed_log1p(x).dtype == np.float32
    np.testing.assert_allclose(signed_log1p(x), [-np.log(2), 0, np.log(2)], rtol=1e-6)


@pytest.mark.parametrize("host_id", ["alder", "birch", "dogwood", "elm", "fir", "larch"])
def test_real_grids_lose_less_than_a_thousandth_of_a_channels_spread(host_id, monkeypatch):
    """In units in which a network sees them, the codes of real episodes are their values."""
    grids = []

    def recorded(values, mask):
        grids.append((values.copy(), mask.copy()))
        return encode(values, mask)

    monkeypatch.setattr(build, "encode", recorded)
    paths = sorted((SAMPLE_STORE / host_id).glob("*.tar.zst"))
    episodes = [episode for path in paths if (episode := examine_file(path, Limits())[1])]
    build.windows_of(collect(episodes), Schema(10, None, 10.0, 5.0))
    assert sum(values.shape[1] for values, _ in grids) == len(episodes) >= 40
    exacts, errors = [], []
    for values, mask in grids:
        codes, scale, base = encode(values, mask)
        back = decode(codes, scale[:, None], base[:, None])
        x = np.where(mask.transpose(1, 2, 0), exact(values), np.nan)
        assert np.array_equal(np.isnan(back), np.isnan(x))
        error, largest = np.abs(back - x), np.nan_to_num(np.abs(x)).max(axis=1, keepdims=True)
        assert np.nanmax(error - 0.5 * scale[:, None] - 4e-7 * largest) <= 0
        exacts.append(x.reshape(-1, C))
        errors.append(np.nan_to_num(error).max(axis=(0, 1)))
    x = np.concatenate(exacts)
    some = ~np.isnan(x).all(axis=0)
    spread = np.nanstd(x[:, some], axis=0)
    worst = np.max(errors, axis=0)[some]
    varies = spread > 1e-6 * np.abs(np.nanmean(x[:, some], axis=0))
    assert varies.sum() > 30
    assert (worst[varies] / spread[varies]).max() < 1e-3
