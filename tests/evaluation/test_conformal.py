"""Sets of phases: what is promised, and that it is kept where it can be."""

from __future__ import annotations

import numpy as np
import pytest

from cis490.channels import PHASES
from cis490.evaluation.bootstrap import episode_weights
from cis490.evaluation.conformal import (
    MIN_EPISODES,
    Coverage,
    cross_conformal,
    in_words,
    least_coverage,
    least_probability,
    prediction_sets,
)

K = len(PHASES)


def slow_least(of_truth: np.ndarray, unit: np.ndarray, alpha: float) -> float:
    """The largest probability that enough of the episodes' weight reaches, term by term."""
    episodes = sorted(set(unit))
    for level in sorted(set(of_truth), reverse=True):
        reached = sum(np.mean(of_truth[unit == e] >= level) for e in episodes)
        if reached / (len(episodes) + 1) >= 1 - alpha - 1e-12:
            return float(level)
    return 0.0


@pytest.mark.parametrize("alpha", [0.05, 0.1, 0.3])
@pytest.mark.parametrize("seed", range(4))
def test_the_least_probability_is_that_of_a_slow_reference(alpha: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    unit = np.repeat(np.arange(25), rng.integers(1, 9, 25))
    of_truth = rng.integers(0, 20, len(unit)) / 20  # with ties
    found = least_probability(of_truth, unit, alpha=alpha)
    assert found == slow_least(of_truth, unit, alpha)


def test_with_one_window_an_episode_it_is_plain_split_conformal() -> None:
    of_truth = np.random.default_rng(0).random(49)
    # The ceil((n + 1) (1 - alpha)) = 45th largest.
    assert least_probability(of_truth, np.arange(49)) == np.sort(of_truth)[::-1][44]


def test_where_the_episodes_cannot_promise_it_every_phase_is_in() -> None:
    of_truth = np.random.default_rng(0).random(19)
    assert least_probability(of_truth, np.arange(19), alpha=0.01) == 0
    assert prediction_sets(np.eye(K), 0.0).all()


def test_fewer_than_nineteen_episodes_promise_nothing() -> None:
    unit = np.arange(MIN_EPISODES)
    assert least_probability(np.ones(19), unit) is not None
    assert least_probability(np.ones(18), unit[:-1]) is None
    p, truth = np.full((22, K), 0.2), np.zeros(22, int)
    assert cross_conformal(p, truth, np.arange(22), np.arange(22) % 22) is not None
    assert cross_conformal(p, truth, np.arange(22), np.arange(22) % 5) is None


def test_a_set_holds_what_is_probable_enough_and_is_never_empty() -> None:
    p = np.array([[0.5, 0.3, 0.1, 0.05, 0.05], [0.3, 0.25, 0.25, 0.1, 0.1]], np.float32)
    assert prediction_sets(p, 0.3).tolist() == [
        [True, True, False, False, False],
        [True, False, False, False, False],
    ]
    assert prediction_sets(p, 0.9).sum(1).tolist() == [1, 1]


def fleet(n: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """True phases' probabilities of windows, episodes of 1 to 30, the long ones being easy."""
    sizes = rng.integers(1, 31, n)
    unit = np.repeat(np.arange(n), sizes)
    level = sizes / 15 - 1 + rng.normal(0, 0.8, n)  # shared by all windows of an episode
    return 1 / (1 + np.exp(-level[unit] - rng.normal(0, 0.5, len(unit)))), unit


def test_a_window_of_a_new_episode_is_covered_as_promised_and_pooled_windows_would_not_do() -> None:
    rng = np.random.default_rng(0)
    new, new_unit = fleet(4000, rng)
    by_episode, pooled = [], []
    for _ in range(400):
        of_truth, unit = fleet(39, rng)
        least = least_probability(of_truth, unit)
        assert least is not None
        for found, level in ((by_episode, least), (pooled, np.quantile(of_truth, 0.1))):
            shares = np.bincount(new_unit, new >= level) / np.bincount(new_unit)
            found.append(shares.mean())
    assert 0.9 <= np.mean(by_episode) < 0.92
    assert np.mean(pooled) < 0.85


def test_a_fold_is_never_calibrated_on_itself() -> None:
    rng = np.random.default_rng(0)
    p = rng.dirichlet(np.ones(K), 200)
    truth, unit = rng.integers(0, K, 200), np.repeat(np.arange(50), 4)
    fold = unit % 5
    sets = cross_conformal(p, truth, unit, fold)
    other = np.where(fold == 2, (truth + 1) % K, truth)
    again = cross_conformal(p, other, unit, fold)
    assert sets is not None
    assert again is not None
    assert np.array_equal(sets[fold == 2], again[fold == 2])
    assert not np.array_equal(sets, again)


def test_coverage_is_a_mean_over_episodes_of_all_and_by_host_and_phase() -> None:
    rng = np.random.default_rng(0)
    unit = np.repeat(np.arange(10), rng.integers(1, 6, 10))
    truth = rng.integers(0, 3, len(unit))
    sets = rng.random((2, len(unit), K)) < 0.6
    host = ["alder"] * 4 + ["birch"] * 6
    family = Coverage.of(sets, truth, unit, host)
    keys = [(figure.scope, figure.key, figure.metric) for figure in family.figures]
    assert len(set(keys)) == len(keys) == 2 * (1 + 2 + 3)
    weights = np.concatenate(list(episode_weights(["a"] * 10, 3))).T
    once = np.ones((10, 1))
    for drawn, values, error in (
        (once, family.estimates()[..., None], 1e-12),
        (weights, family.values(weights), 1e-5),
    ):
        for figure, found in zip(family.figures, values, strict=True):
            mask = np.ones(len(unit), bool)
            if figure.scope == "conformal_host":
                mask = np.asarray(host)[unit] == figure.key
            if figure.scope == "conformal_phase":
                mask = truth == PHASES.index(figure.key)
            assert figure.n_windows == mask.sum()
            for run, own in enumerate(sets):
                value = (
                    own[np.arange(len(unit)), truth] if figure.metric == "coverage" else own.sum(1)
                )
                means = {e: value[mask & (unit == e)].mean() for e in set(unit[mask])}
                for b in range(drawn.shape[1]):
                    total = sum(drawn[e, b] for e in means)
                    expected = sum(drawn[e, b] * mean for e, mean in means.items()) / total
                    assert found[run, b] == pytest.approx(expected, abs=error)


def test_chance_in_calibration_lowers_coverage_no_further_than_told() -> None:
    rng = np.random.default_rng(0)
    levels = [least_probability(rng.random(39), np.arange(39)) for _ in range(2000)]
    coverage = 1 - np.array(levels, float)  # of uniform probabilities
    assert np.mean(coverage < least_coverage(39)) == pytest.approx(0.025, abs=0.008)


@pytest.mark.parametrize(
    ("ends", "words"),
    [
        (None, "Too few episodes of birch"),
        ((0.6, 0.7), "the promise does not carry over"),
        ((0.82, 0.88), "why cannot be told"),
        ((0.85, 0.93), "whether the promised 0.90 is kept cannot be told"),
        ((0.91, 0.97), "the promised 0.90 is kept"),
    ],
)
def test_what_the_coverage_says_is_said_in_words(
    ends: tuple[float, float] | None, words: str
) -> None:
    assert words in in_words(0.87, ends, 75, ["birch"])
