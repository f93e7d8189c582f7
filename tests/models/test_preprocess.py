import numpy as np
import pytest

from cis490.models.preprocess import Standardiser, class_weights, signed_log1p

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


def test_the_signed_log_is_odd_and_only_on_flagged_columns():
    np.testing.assert_allclose(signed_log1p(np.array([-1.0, 0, 1])), [-np.log(2), 0, np.log(2)])
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


def test_class_weights_by_hand():
    # 10 labels, 2 classes: 10 / (2 * 8) = 0.625 and 10 / (2 * 2) = 2.5; their mean is 1.5625.
    weights = class_weights(np.array([0] * 8 + [1] * 2), 2)
    np.testing.assert_allclose(weights, [0.4, 1.6], rtol=1e-6)


def test_class_weights_are_clipped_before_they_are_averaged():
    # 1000 / (2 * 999) = 0.5005; 1000 / 2 = 500, clipped to 8; mean 4.25025.
    weights = class_weights(np.array([0] * 999 + [1]), 2)
    np.testing.assert_allclose(weights, np.array([0.5005005, 8]) / 4.2502503, rtol=1e-6)
    # 200 / (5 * 196) = 0.204, clipped to 0.25; 200 / 5 = 40, clipped to 8; mean 6.45.
    weights = class_weights(np.array([0] * 196 + [1, 2, 3, 4]), 5)
    np.testing.assert_allclose(weights, np.array([0.25, 8, 8, 8, 8]) / 6.45, rtol=1e-6)


@pytest.mark.parametrize("absent", [0, 1, 2])
def test_an_absent_class_weighs_nothing_and_the_present_average_one(absent):
    y = np.array([c for c in range(3) if c != absent] * 5 + [(absent + 1) % 3])
    weights = class_weights(y, 3)
    assert weights[absent] == 0
    np.testing.assert_allclose(np.delete(weights, absent).mean(), 1, rtol=1e-6)
