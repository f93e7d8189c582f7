"""The resampling: what is drawn, what is counted, what is said of it."""

from __future__ import annotations

from math import comb

import numpy as np
import pytest

from cis490.evaluation.bootstrap import (
    BLOCK,
    clopper_pearson,
    episode_weights,
    holm,
    p_value,
    percentile_interval,
    seed_weights,
)

STRATA = ["none"] * 4 + ["io-walk"] * 7 + ["cpu-saturate"]


def draw(strata: list[str], replicates: int) -> np.ndarray:
    return np.concatenate(list(episode_weights(strata, replicates)))


def test_every_replicate_keeps_the_size_of_each_stratum() -> None:
    weights = draw(STRATA, 3 * BLOCK + 7)
    assert weights.shape == (3 * BLOCK + 7, len(STRATA))
    for name, size in (("none", 4), ("io-walk", 7), ("cpu-saturate", 1)):
        chosen = [i for i, stratum in enumerate(STRATA) if stratum == name]
        assert (weights[:, chosen].sum(1) == size).all()


def test_weights_are_multinomial_within_a_stratum() -> None:
    weights = draw(["a"] * 5, 20_000)
    assert weights.mean(0) == pytest.approx(1, abs=0.03)
    assert weights.var(0) == pytest.approx(1 - 1 / 5, abs=0.03)


def test_weights_are_reproducible_and_come_in_bounded_blocks() -> None:
    np.testing.assert_array_equal(draw(STRATA, 600), draw(STRATA, 600))
    assert max(len(block) for block in episode_weights(STRATA, 600)) <= BLOCK


def test_more_replicates_leave_the_full_blocks_as_they_were() -> None:
    np.testing.assert_array_equal(draw(STRATA, 2 * BLOCK), draw(STRATA, 3 * BLOCK)[: 2 * BLOCK])


def test_seeds_are_drawn_with_replacement_and_independently_for_each_model() -> None:
    weights = seed_weights(3, 4000, "gru_oracle")
    assert weights.sum(1) == pytest.approx(1)
    assert (weights == 0).any()
    assert (weights == 1).any()
    other = seed_weights(3, 4000, "cnn_oracle")
    assert np.corrcoef(weights[:, 0], other[:, 0])[0, 1] == pytest.approx(0, abs=0.06)


def test_a_single_seed_is_always_drawn() -> None:
    assert (seed_weights(1, 10, "gbt_oracle") == 1).all()


def test_percentile_interval_has_both_ends_and_leaves_undefined_replicates_out() -> None:
    values = np.append(np.arange(1001) / 1000, [np.nan] * 50)
    assert percentile_interval(values) == pytest.approx((0.025, 0.975))
    assert percentile_interval(np.full(5, np.nan)) is None


@pytest.mark.parametrize(
    ("differences", "expected"),
    [
        ([0.1, 0.2, 0.3, 0.4], 2 / 5),  # none <= 0
        ([-0.1, 0.2, 0.3, 0.4], 4 / 5),  # one <= 0
        ([-0.1, -0.2, -0.3, 0.4, -0.5, -0.6, -0.7], 4 / 8),  # one >= 0
        ([0.0, 0.0, 0.0], 1.0),  # all on both sides
        ([0.1, np.nan, 0.2, 0.3], 2 / 4),  # B counts what is defined
    ],
)
def test_p_value_counts_by_hand(differences: list[float], expected: float) -> None:
    assert p_value(np.array(differences)) == pytest.approx(expected)


def test_no_defined_difference_gives_no_p_value() -> None:
    assert p_value(np.array([np.nan])) is None


def test_holm_by_hand() -> None:
    # 0.01 x 4, 0.02 x 3, 0.03 x 2 (not under the one before), 0.5 x 1
    assert holm([0.03, 0.01, 0.5, 0.02]) == pytest.approx([0.06, 0.04, 0.5, 0.06])
    assert holm([0.9, 0.8]) == pytest.approx([1.0, 1.0])


def test_holm_does_not_count_what_was_not_tested() -> None:
    assert holm([None, 0.02, 0.04]) == [None, pytest.approx(0.04), pytest.approx(0.04)]
    assert holm([]) == []


def test_clopper_pearson_known_values() -> None:
    assert clopper_pearson(0, 10) == (0.0, pytest.approx(0.3084971, abs=1e-6))
    assert clopper_pearson(10, 10) == (pytest.approx(0.6915029, abs=1e-6), 1.0)
    assert clopper_pearson(4, 10) == pytest.approx((0.1215523, 0.7376219), abs=1e-6)
    assert clopper_pearson(0, 0) == (0.0, 1.0)


def test_clopper_pearson_ends_are_where_a_binomial_tail_is_2_5_percent() -> None:
    low, high = clopper_pearson(3, 12)
    upper = sum(comb(12, k) * low**k * (1 - low) ** (12 - k) for k in range(3, 13))
    lower = sum(comb(12, k) * high**k * (1 - high) ** (12 - k) for k in range(4))
    assert (upper, lower) == pytest.approx((0.025, 0.025))
