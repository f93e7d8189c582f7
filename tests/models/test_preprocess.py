import numpy as np
import pytest

from cis490.models import CodedSeries, InputError
from cis490.models.preprocess import Standardiser
from cis490.windows.codes import LEAST, MISSING, decode

NO_LOG = np.zeros(2, bool)


def test_standardised_training_rows_have_mean_zero_and_spread_one_without_the_missing():
    rows = np.array([[1, 10], [3, np.nan], [5, 30]], np.float32)
    z = Standardiser.fit(rows, NO_LOG).transform(rows)
    np.testing.assert_allclose(z[:, 0], np.array([-2, 0, 2]) / np.sqrt(8 / 3), rtol=1e-6)
    np.testing.assert_allclose(z[:, 1], [-1, np.nan, 1], rtol=1e-6)


def test_a_zero_spread_counts_as_one():
    rows = np.full((1000, 2), 0.1, np.float32)
    z = Standardiser.fit(rows, NO_LOG).transform(np.array([[0.1, 2.1]], np.float32))
    np.testing.assert_allclose(z, [[0, 2]], atol=1e-6)


def test_a_small_spread_around_zero_is_no_zero_spread():
    rows = np.array([[-1e-9, 1e-12], [1e-9, 3e-12]], np.float32)
    z = Standardiser.fit(rows, NO_LOG).transform(rows)
    np.testing.assert_allclose(z, [[-1, -1], [1, 1]], rtol=1e-5)


def test_a_column_without_training_values_gets_mean_zero_and_spread_one():
    rows = np.array([[np.nan, 1], [np.nan, 2]], np.float32)
    standardiser = Standardiser.fit(rows, NO_LOG)
    assert standardiser.mean[0] == 0
    assert standardiser.spread[0] == 1


def test_the_log_is_taken_only_on_flagged_columns():
    rows = np.array([[0, 0], [np.e**2 - 1, 4]], np.float32)
    standardiser = Standardiser.fit(rows, np.array([True, False]))
    np.testing.assert_allclose(standardiser.mean, [1, 2], rtol=1e-6)
    np.testing.assert_allclose(standardiser.spread, [1, 2], rtol=1e-6)


def test_the_given_rows_are_left_as_they_were():
    rows = np.array([[1, 2], [3, 4]], np.float32)
    Standardiser.fit(rows, ~NO_LOG).transform(rows)
    assert rows.tolist() == [[1, 2], [3, 4]]


def test_a_standardiser_is_rebuilt_from_its_state():
    rows = np.random.default_rng(0).normal(size=(9, 2)).astype(np.float32)
    standardiser = Standardiser.fit(rows, np.array([True, False]))
    rebuilt = Standardiser.from_state(standardiser.state())
    assert np.array_equal(rebuilt.transform(rows), standardiser.transform(rows))


def coded(n_steps=(300, 0, 1, 450), n_channels=4, *, seed=0):
    """A coded series, and its values as rows; of channel 1 one episode measured nothing."""
    rng = np.random.default_rng(seed)
    n, offset = len(n_steps), np.concatenate([[0], np.cumsum(n_steps)]).astype(np.int64)
    codes = rng.integers(LEAST, 32768, (offset[-1], n_channels)).astype(np.int16)
    codes[rng.random(codes.shape) < 0.1] = MISSING
    scale = rng.uniform(1e-5, 1e-3, (n, n_channels)).astype(np.float32)
    base = rng.normal(0, 20, (n, n_channels)).astype(np.float32)
    base[-1, 1], scale[-1, 1], codes[offset[-2] :, 1] = np.nan, 0, MISSING
    series = CodedSeries(codes, offset, scale, base)
    return series, rows_of(series)


def rows_of(series):
    of = series.episode(np.arange(len(series.codes)))
    return decode(series.codes, series.scale[of], series.base[of])


def test_a_coded_series_is_measured_and_standardised_like_its_values():
    series, rows = coded()
    one, other = (Standardiser.fit(x, np.zeros(4, bool)) for x in (series, rows))
    np.testing.assert_allclose(one.mean, other.mean, rtol=1e-6)
    np.testing.assert_allclose(one.spread, other.spread, rtol=1e-6)
    z = rows_of(one.transform(series))
    assert np.array_equal(np.isnan(z), np.isnan(rows))
    np.testing.assert_allclose(z, other.transform(rows), atol=2e-5)
    assert one.transform(series).codes is series.codes


def test_a_small_spread_far_from_zero_is_measured_to_its_digits():
    series, _ = coded((5000, 5000), 2)
    series = CodedSeries(series.codes[:, :1], series.offset, series.scale, series.base)
    base = np.array([[1e6], [1e6 + 8]], np.float32)
    far = CodedSeries(series.codes, series.offset, np.full((2, 1), 1e-6, np.float32), base)
    above = np.float64(far.codes) - LEAST
    there = (far.codes != MISSING)[:, 0]
    exact = np.repeat([0, 8], 5000) + above[:, 0] * np.float64(far.scale[0, 0])
    fitted = Standardiser.fit(far, np.zeros(1, bool))
    np.testing.assert_allclose(fitted.spread, exact[there].std(), rtol=1e-6)
    np.testing.assert_allclose(fitted.mean, 1e6 + exact[there].mean(), rtol=1e-7)


def test_coded_columns_that_are_constant_hidden_or_empty_keep_spread_one():
    series, _ = coded((100, 50), 3)
    scale, base = series.scale.copy(), series.base.copy()
    scale[:, 0], base[:, 0] = 0, 13.7
    series = CodedSeries(series.codes, series.offset, scale, base)
    series = series.hidden(np.array([False, False, True]))
    fitted = Standardiser.fit(series, np.zeros(3, bool))
    assert fitted.mean[[0, 2]].tolist() == pytest.approx([13.7, 0])
    assert fitted.spread[[0, 2]].tolist() == [1, 1]
    z = rows_of(fitted.transform(series))
    assert np.nanmax(np.abs(z[:, 0])) < 1e-6
    assert np.isnan(z[:, 2]).all()


def test_a_coded_series_is_never_taken_for_raw_values():
    series, rows = coded()
    log = np.array([True, False, False, False])
    with pytest.raises(InputError, match="model space"):
        Standardiser.fit(series, log)
    with pytest.raises(InputError, match="model space"):
        Standardiser.fit(np.abs(rows), log).transform(series)
