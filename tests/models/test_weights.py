import numpy as np
import pytest

from cis490.models.weights import class_weights


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
