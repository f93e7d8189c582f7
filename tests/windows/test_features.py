import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cis490.channels import CHANNELS
from cis490.schema import STATISTICS, feature_log, feature_names
from cis490.windows import features
from cis490.windows.features import summarise, summarise_grid

MEAN, STD, MIN, MAX, TREND, MISSING = range(6)


def one(values, hz=10.0):
    x = np.array(values, float)
    return summarise(x[None, None], ~np.isnan(x)[None, None], hz)[0]


def test_statistics_equal_numpy_on_random_windows_with_holes():
    rng = np.random.default_rng(1)
    x = rng.lognormal(3, 2, (5, 4, 30))
    mask = rng.random(x.shape) > 0.3
    got = summarise(np.where(mask, x, 1e9), mask, hz=10).reshape(5, 4, 6)
    t = np.arange(30) / 10
    for n, c in np.ndindex(5, 4):
        v, seconds = x[n, c, mask[n, c]], t[mask[n, c]]
        slope = np.polyfit(seconds, v, 1)[0]
        expected = [v.mean(), v.std(ddof=1), v.min(), v.max(), slope, 1 - v.size / 30]
        np.testing.assert_allclose(got[n, c], expected, rtol=1e-5)


@pytest.mark.parametrize(
    ("values", "alive"),
    [
        ([np.nan] * 4, [MISSING]),
        ([np.nan, 3, np.nan, np.nan], [MEAN, MIN, MAX, MISSING]),
        ([np.nan, 3, 5, np.nan], [MEAN, STD, MIN, MAX, MISSING]),
        ([np.nan, 3, 5, 9], [MEAN, STD, MIN, MAX, TREND, MISSING]),
    ],
)
def test_a_spread_needs_two_valid_steps_and_a_trend_three(values, alive):
    assert np.flatnonzero(~np.isnan(one(values))).tolist() == alive


def test_a_trend_is_per_second():
    assert one([0, 1, 2, 3], hz=10)[TREND] == pytest.approx(10)


def test_huge_values_stay_finite():
    assert np.isfinite(one([1e200, -1e299, 1e300, 0])).all()


@given(
    *(st.integers(1, 40), st.integers(1, 9), st.integers(0, 5)),
    *(st.sampled_from([0.0, 0.02, 0.6, 1.0]), st.sampled_from([1.0, 1e9, 1e33])),
    st.integers(0, 2**32 - 1),
)
def test_compiled_or_not_a_grid_gives_the_statistics_of_its_windows(
    length, stride, n_windows, holes, scale, seed
):
    rng = np.random.default_rng(seed)
    shape = (3, 2, max(n_windows - 1, 0) * stride + length + 3)
    values = (rng.lognormal(0, 2, shape) * rng.choice([-1, 1], shape) * scale).astype(np.float32)
    values[0] = np.float32(247_209_984.0)  # a gauge that stands still
    mask = rng.random(shape) >= holes
    values[~mask] = 0
    cut = {"n_windows": n_windows, "length": length, "stride": stride, "hz": 10.0}
    for i in range(2):  # as the builder has them: channels of one of several episodes
        got = summarise_grid(values[:, i], mask[:, i], **cut)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(features, "_statistics", None)
            plain = summarise_grid(values[:, i], mask[:, i], **cut)
        starts = [k * stride for k in range(n_windows)]
        windows = [(a[:, i, s : s + length]) for s in starts for a in (values, mask)]
        for k in range(n_windows):
            expected = summarise(windows[2 * k][None], windows[2 * k + 1][None], 10.0)[0]
            np.testing.assert_array_equal(plain[k], expected)
            spread = np.repeat(np.nan_to_num(expected.reshape(3, 6)[:, STD].astype(float)), 6)
            assert np.array_equal(np.isnan(got[k]), np.isnan(expected))
            difference = np.nan_to_num(np.abs(got[k].astype(float) - expected))
            assert (difference <= 1e-6 * np.nan_to_num(np.abs(expected)) + 1e-9 * spread).all()


@pytest.mark.parametrize("compiled", [True, False])
def test_windows_beyond_the_end_of_a_grid_are_refused_and_not_read(monkeypatch, compiled):
    if not compiled:
        monkeypatch.setattr(features, "_statistics", None)
    values, mask = np.ones((2, 9), np.float32), np.ones((2, 9), bool)
    cut = {"length": 3, "stride": 2, "hz": 10.0}
    assert len(summarise_grid(values, mask, n_windows=4, **cut)) == 4
    assert len(summarise_grid(values[:, :0], mask[:, :0], n_windows=0, **cut)) == 0
    with pytest.raises(ValueError, match="5 windows of 3 steps each 2 need 11 steps"):
        summarise_grid(values, mask, n_windows=5, **cut)
    with pytest.raises(ValueError, match=r"these are \(2, 9\) and \(1, 9\)"):
        summarise_grid(values, mask[:1], n_windows=4, **cut)


def test_columns_are_named_source_channel_statistic_for_what_a_mode_may_see():
    assert len(feature_names("oracle")) == 46 * len(STATISTICS)
    assert len(feature_names("realistic")) == 31 * len(STATISTICS)
    assert feature_names("oracle")[:6] == [f"proc.utime_ticks.{s}" for s in STATISTICS]
    guest = {c.key for c in CHANNELS if c.trust == "guest"}
    assert not {name.rsplit(".", 1)[0] for name in feature_names("realistic")} & guest
    log = dict(zip(feature_names("oracle"), feature_log("oracle"), strict=True))
    assert log["proc.rss_bytes.trend"]
    assert not log["proc.rss_bytes.missing"]
    assert not log["netflow.active_dsts.mean"]
