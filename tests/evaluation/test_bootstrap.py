"""The resampling: what is drawn, what is counted, what is said of it."""

from __future__ import annotations

from math import comb

import numpy as np
import pytest
from scipy import stats

from cis490.evaluation.bootstrap import (
    BLOCK,
    TAILS,
    bca_interval,
    clopper_pearson,
    effect_size,
    episode_weights,
    holm,
    jackknife_influence,
    jackknife_sums,
    p_value,
    percentile_interval,
    percentile_intervals,
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


def test_the_draws_are_the_same_whatever_their_type_and_however_they_are_counted() -> None:
    strata = ["a", "b"] * 9_000
    first, narrow = next(episode_weights(strata, 3)), next(episode_weights(strata, 3, dtype="f4"))
    np.testing.assert_array_equal(first, narrow)
    rng = np.random.default_rng(490)
    for start in (0, 1):
        drawn = rng.integers(9_000, size=(3, 9_000))
        for b in range(3):
            expected = np.bincount(drawn[b], minlength=9_000)
            np.testing.assert_array_equal(first[b, start::2], expected)


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


def test_many_intervals_at_once_are_those_that_numpy_gives_one_by_one() -> None:
    values = np.random.default_rng(5).normal(size=(6, 997))
    values[1, 3:400] = values[2] = np.nan
    values[3, 1:] = np.nan
    found = percentile_intervals(values)
    for row, ends in zip(values, found, strict=True):
        measured = row[~np.isnan(row)]
        expected = np.quantile(measured, TAILS) if len(measured) else [np.nan, np.nan]
        np.testing.assert_array_equal(ends, expected)


def mean_left_out(samples: list[np.ndarray]) -> tuple[np.ndarray, list[str]]:
    """The mean of all, each sample a stratum, without each number in turn."""
    strata = [str(h) for h, sample in enumerate(samples) for _ in sample]
    left_out = np.zeros(len(strata))
    counts = np.column_stack([np.concatenate(samples), np.ones(len(strata))])
    for some, sums in jackknife_sums(counts, strata):
        left_out[some] = sums[:, 0] / sums[:, 1]
    return left_out, strata


@pytest.mark.parametrize("sizes", [(40,), (12, 31)], ids=["one sample", "two samples"])
def test_bca_is_scipys(sizes: tuple[int, ...]) -> None:
    rng = np.random.default_rng(sum(sizes))
    samples = [rng.gamma(0.7, size=n) for n in sizes]
    shares = np.array(sizes) / sum(sizes)

    # Theirs leaves a number out and does not make up for it, so each sample gets its share here.
    def mean(*drawn: np.ndarray, axis: int = -1) -> np.ndarray:
        return sum(share * each.mean(axis) for share, each in zip(shares, drawn, strict=True))

    theirs = stats.bootstrap(samples, mean, n_resamples=2_000, method="BCa", rng=rng)
    left_out, strata = mean_left_out(samples)
    ours = bca_interval(
        theirs.bootstrap_distribution, mean(*samples), jackknife_influence(left_out, strata)
    )
    assert ours == pytest.approx(tuple(theirs.confidence_interval), abs=1e-9)
    assert ours != pytest.approx(percentile_interval(theirs.bootstrap_distribution), abs=1e-3)


def test_without_bias_and_skewness_bca_is_the_percentile_interval() -> None:
    values = np.append(np.arange(-500, 501) / 500, np.nan)
    influence = np.array([-1.0, 1.0, -0.5, 0.5])
    assert bca_interval(values, 0.0, influence) == pytest.approx(percentile_interval(values))


@pytest.mark.parametrize(
    ("values", "influence"),
    [
        ([np.nan] * 3, [1.0, -1.0]),  # no replicate
        ([0.1, 0.2, 0.3], [0.0, 0.0]),  # nothing moves the figure
        ([0.6, 0.7, 0.8], [1.0, -1.0]),  # all on one side
        ([0.1, 0.2, 0.9], [1.0, np.nan]),  # a figure that cannot do without an episode
        ([0.1] * 99_999 + [0.6], [1.0, 0.0]),  # so far out that no percentile is left
    ],
)
def test_bca_says_nothing_where_it_cannot(values: list[float], influence: list[float]) -> None:
    assert bca_interval(np.array(values), 0.5, np.array(influence)) is None


def test_what_an_episode_contributes_to_a_mean_is_its_distance_from_its_stratums_mean() -> None:
    samples = [np.array([1.0, 5.0, 6.0]), np.array([2.0, 3.0]), np.array([9.0])]
    left_out, strata = mean_left_out(samples)
    expected = [each - sample.mean() for sample in samples for each in sample]
    found = jackknife_influence(left_out, strata)
    np.testing.assert_allclose(found, np.array(expected) / 6, atol=1e-12)
    assert found[-1] == 0  # alone: resampling cannot move it


def test_the_effect_of_a_mean_difference_is_cohens_d_and_does_not_grow_with_n() -> None:
    difference = np.random.default_rng(4).normal(0.3, 1, size=50)
    left_out, strata = mean_left_out([difference])
    effect = effect_size(difference.mean(), jackknife_influence(left_out, strata), strata)
    assert effect == pytest.approx(difference.mean() / difference.std(ddof=1))
    twice = np.tile(difference, 2)
    left_out, strata = mean_left_out([twice])
    again = effect_size(twice.mean(), jackknife_influence(left_out, strata), strata)
    assert again == pytest.approx(effect, rel=0.02)


def test_within_strata_the_effect_leaves_out_what_lies_between_them() -> None:
    low, high = np.array([0.0, 0.2, 0.4]), np.array([10.0, 10.2, 10.4])
    left_out, strata = mean_left_out([low, high])
    influence = jackknife_influence(left_out, strata)
    assert effect_size(5.2, influence, strata) == pytest.approx(5.2 / 0.2)


def test_where_episodes_do_not_differ_there_is_no_effect_size() -> None:
    assert effect_size(0.5, np.zeros(3), ["a", "a", "b"]) is None


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
