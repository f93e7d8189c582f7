"""Scores that rank windows: ours against scikit-learn's, and against plain loops."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from sklearn import metrics as sk

from cis490.channels import PHASES
from cis490.evaluation.alarms import Windows
from cis490.evaluation.ranking import (
    BASE_RATES,
    FALSE_POSITIVE_RATES,
    Called,
    Ranking,
    mcc,
    precision_at,
    without_threshold,
)

CLEAN, ARMED, INFECTING, RUNNING, DORMANT = range(len(PHASES))
NEVER = float("nan")


def made_up(n: int, seed: int, *, distinct: int = 40, size: int = 11) -> tuple[Windows, np.ndarray]:
    """n episodes whose scores lean towards the truth and tie often."""
    rng = np.random.default_rng(seed)
    phase = np.sort(rng.integers(5, size=(n, size)), axis=1).ravel()
    lean = 0.25 * (phase >= INFECTING) + 0.2 * np.repeat(rng.random(n), size)
    score = np.floor((lean + 0.55 * rng.random(n * size)) * distinct) / distinct
    index = np.tile(np.arange(size), n)
    unit = np.repeat(np.arange(n), size)
    return Windows(unit, index, phase, np.full(n, NEVER), 10, 5), score


def binary(of: Windows, score: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Truth, scores and episodes of the windows that are not armed."""
    chosen = of.positive | of.negative
    return of.positive[chosen], score[chosen], of.unit[chosen]


def by_metric(family: Ranking | Called, values: np.ndarray) -> dict[tuple[str, str], float]:
    return {
        (each.metric, each.key): float(value)
        for each, value in zip(family.figures, values, strict=True)
    }


def plain_tpr(rate: float, truth: np.ndarray, score: np.ndarray, weight: np.ndarray) -> float:
    best = 0.0
    for threshold in set(score):
        said = score >= threshold
        fpr = weight[said & ~truth].sum() / weight[~truth].sum()
        if fpr <= rate:
            best = max(best, weight[said & truth].sum() / weight[truth].sum())
    return best


@pytest.mark.parametrize("distinct", [3, 40, 10**9])
@pytest.mark.parametrize("seed", range(4))
def test_areas_are_scikit_learns_with_ties(seed: int, distinct: int) -> None:
    of, score = made_up(60, seed, distinct=distinct)
    truth, ranked, _ = binary(of, score)
    found = by_metric(Ranking(score[None], of), Ranking(score[None], of).estimates()[:, 0])
    expected = sk.average_precision_score(truth, ranked)
    assert found["pr_auc", "all"] == pytest.approx(expected, abs=1e-9)
    assert found["roc_auc", "all"] == pytest.approx(sk.roc_auc_score(truth, ranked), abs=1e-9)


@pytest.mark.parametrize("seed", range(4))
def test_a_replicate_is_scikit_learns_on_weighted_windows(seed: int) -> None:
    of, score = made_up(60, seed)
    truth, ranked, unit = binary(of, score)
    family = Ranking(score[None], of)
    weights = np.random.default_rng(seed).multinomial(60, np.full(60, 1 / 60), size=5)
    values = family.values(weights.T.astype(np.float32))[:, 0]
    for b, drawn in enumerate(weights):
        of_window = drawn[unit].astype(float)
        found = by_metric(family, values[:, b])
        area = sk.average_precision_score(truth, ranked, sample_weight=of_window)
        assert found["pr_auc", "all"] == pytest.approx(area, abs=1e-6)
        roc = sk.roc_auc_score(truth, ranked, sample_weight=of_window)
        assert found["roc_auc", "all"] == pytest.approx(roc, abs=1e-6)
        for rate in FALSE_POSITIVE_RATES:
            expected = plain_tpr(rate, truth, ranked, of_window)
            assert found["tpr_at_fpr", f"{rate:g}"] == pytest.approx(expected, abs=1e-6)


def test_more_scores_than_a_replicate_can_look_at_change_it_by_next_to_nothing() -> None:
    of, score = made_up(1500, 3, distinct=10**9)
    truth, ranked, unit = binary(of, score)
    family = Ranking(score[None], of)
    exact = sk.average_precision_score(truth, ranked)
    assert family.estimates()[0, 0] == pytest.approx(exact, abs=1e-9)
    assert "|groups=" in family.figures[0].told
    weights = np.random.default_rng(0).multinomial(1500, np.full(1500, 1 / 1500), size=20)
    values = family.values(weights.T.astype(np.float32))[:, 0]
    expected = np.array(
        [
            [
                sk.average_precision_score(truth, ranked, sample_weight=drawn[unit]),
                sk.roc_auc_score(truth, ranked, sample_weight=drawn[unit]),
            ]
            for drawn in weights
        ]
    )
    spread = expected.std(0)
    assert (np.abs(values[:2].T - expected) < 0.05 * spread).all()


def test_few_scores_are_looked_at_one_by_one() -> None:
    of, score = made_up(20, 0)
    assert Ranking(score[None], of).figures[0].told == ""


@pytest.mark.parametrize("seed", range(3))
def test_the_tpr_at_a_rate_is_that_of_the_best_threshold(seed: int) -> None:
    of, score = made_up(700, seed, size=20, distinct=300)
    truth, ranked, _ = binary(of, score)
    family = Ranking(score[None], of)
    found = by_metric(family, family.estimates()[:, 0])
    expected = plain_tpr(0.01, truth, ranked, np.ones(len(truth)))
    assert found["tpr_at_fpr", "0.01"] == pytest.approx(expected, abs=1e-9)
    # 10 / 0.001 clean windows are needed, and there are some 2,800.
    assert np.isnan(found["tpr_at_fpr", "0.001"])


def test_if_the_highest_score_is_a_negatives_no_positive_is_found_at_a_low_rate() -> None:
    positive, negative = np.array([[0.0], [5]]), np.array([[3.0], [97]])
    found = without_threshold(positive, negative)[:, 0]
    assert set(found[2:]) == {0}
    assert len(found) == 2 + len(FALSE_POSITIVE_RATES)


def test_without_a_positive_or_a_negative_nothing_is_measured() -> None:
    one, none = np.array([[2.0], [1]]), np.zeros((2, 1))
    assert np.isnan(without_threshold(one, none)).all()
    assert np.isnan(without_threshold(none, one)).all()


@pytest.mark.parametrize("threshold", [0.0, 0.3, 0.5, 0.9, 1.1])
def test_at_a_threshold_the_figures_are_those_of_the_windows_at_or_above_it(
    threshold: float,
) -> None:
    of, score = made_up(80, 5)
    truth, ranked, _ = binary(of, score)
    family = Called(score[None] >= threshold, of, "threshold")
    found = by_metric(family, family.values(np.ones((80, 1)))[:, 0, 0])
    said = ranked >= threshold
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = sk.matthews_corrcoef(truth, said)
    assert found["mcc", "all"] == pytest.approx(expected, abs=1e-9)
    assert found["tpr", "all"] == pytest.approx(said[truth].mean())
    assert found["fpr", "all"] == pytest.approx(said[~truth].mean())


@pytest.mark.parametrize("seed", range(3))
def test_mcc_is_scikit_learns_on_random_windows(seed: int) -> None:
    rng = np.random.default_rng(seed)
    truth, said = rng.random(300) < 0.3, rng.random(300) < rng.random()
    counts = [(said & truth).sum(), (said & ~truth).sum(), truth.sum(), (~truth).sum()]
    found = mcc(*(np.array([count]) for count in counts))[0]
    assert found == pytest.approx(sk.matthews_corrcoef(truth, said), abs=1e-9)


@pytest.mark.parametrize("base_rate", BASE_RATES)
def test_precision_at_a_base_rate_is_that_of_windows_weighed_to_it(base_rate: float) -> None:
    of, score = made_up(80, 6)
    truth, ranked, _ = binary(of, score)
    family = Called(score[None] >= 0.5, of, "threshold")
    found = by_metric(family, family.estimates()[:, 0])
    weight = np.where(truth, base_rate / truth.sum(), (1 - base_rate) / (~truth).sum())
    expected = sk.precision_score(truth, ranked >= 0.5, sample_weight=weight)
    assert found["precision", f"{base_rate:g}"] == pytest.approx(expected, abs=1e-9)


def test_a_precision_that_rests_on_too_few_false_positives_is_not_measurable() -> None:
    of, score = made_up(80, 6)
    negatives = np.sort(score[of.negative])[::-1]
    for n_false, measurable in ((5, False), (40, True)):
        family = Called(score[None] >= negatives[n_false], of, "threshold")
        found = by_metric(family, family.estimates()[:, 0])
        assert (found["fpr", "all"] * of.negative.sum() >= 10) == measurable
        assert np.isnan(found["precision", "0.01"]) != measurable


def test_nothing_called_infected_has_no_precision() -> None:
    assert np.isnan(precision_at(0.01, np.array([0.0]), np.array([0.0]))).all()
    assert precision_at(0.01, np.array([0.5]), np.array([0.0])).tolist() == [1]


def test_armed_windows_count_for_nothing() -> None:
    of, score = made_up(60, 1)
    changed = np.where(of.phase == ARMED, 1.0, score)
    for family in (Ranking, lambda given, of: Called(given >= 0.5, of, "threshold")):
        same = [family(each[None], of).values(np.ones((60, 1))) for each in (score, changed)]
        np.testing.assert_array_equal(*same)


def test_runs_do_not_mix() -> None:
    of, score = made_up(40, 2)
    both = np.stack([score, 1 - score])
    drawn = np.random.default_rng(1).integers(3, size=(40, 6)).astype(np.float32)
    for family in (Ranking, lambda given, of: Called(given >= 0.5, of, "threshold")):
        together = family(both, of).values(drawn)
        for run in range(2):
            alone = family(both[run : run + 1], of).values(drawn)
            np.testing.assert_allclose(together[:, run], alone[:, 0])


@pytest.mark.parametrize("n_false", [1, 10, 100])
def test_replicates_of_grouped_scores_stay_shares(n_false: int) -> None:
    rng = np.random.default_rng(n_false)
    unit, index = np.divmod(np.arange(6000), 60)
    phase = np.where((unit % 2 == 0) & (index >= 30), INFECTING, 0)
    score = np.where(phase == INFECTING, rng.beta(50, 1, 6000), rng.beta(1, 50, 6000))
    score[np.flatnonzero(phase == 0)[:n_false]] = rng.beta(50, 1, n_false)
    of = Windows(unit, index, phase, np.full(100, NEVER), 10, 5)
    family = Ranking(score[None], of)
    assert "|groups=" in family.figures[0].told
    drawn = rng.multinomial(100, np.full(100, 0.01), size=1000).T
    values = family.values(drawn.astype(np.float32))
    assert values.max() <= 1
    assert values.min() >= 0
