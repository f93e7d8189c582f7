"""Metrics from counts equal scikit-learn's from windows."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn import metrics as sk

from cis490.channels import PHASES
from cis490.evaluation.metrics import (
    K,
    Sums,
    accuracy,
    confusion,
    f1,
    false_alarm_rate,
    macro_f1,
    macro_recall,
    precision,
    recall,
)


def draw(seed: int) -> tuple[np.ndarray, np.ndarray, list[int]]:
    """Random truth and predictions; some phases may be missing from either."""
    rng = np.random.default_rng(seed)
    n = int(rng.integers(5, 200))
    truth = rng.choice(rng.permutation(K)[: rng.integers(1, K + 1)], size=n)
    wrong = rng.choice(rng.permutation(K)[: rng.integers(1, K + 1)], size=n)
    predicted = np.where(rng.random(n) < rng.random(), truth, wrong)
    return truth, predicted, sorted(set(truth.tolist()))


def sums_of(truth: np.ndarray, predicted: np.ndarray) -> Sums:
    return Sums.of(confusion(truth, predicted, np.zeros(len(truth), dtype=int), 1)[0])


@pytest.mark.parametrize("seed", range(60))
def test_macro_metrics_equal_scikit_learn(seed: int) -> None:
    truth, predicted, present = draw(seed)
    sums = sums_of(truth, predicted)
    options = {"labels": present, "average": "macro", "zero_division": 0}
    assert macro_f1(sums, present) == pytest.approx(
        sk.f1_score(truth, predicted, **options), abs=1e-12
    )
    assert macro_recall(sums, present) == pytest.approx(
        sk.recall_score(truth, predicted, **options), abs=1e-12
    )
    assert accuracy(sums, present) == pytest.approx(sk.accuracy_score(truth, predicted), abs=1e-12)


@pytest.mark.parametrize("seed", range(30))
def test_phase_metrics_equal_scikit_learn_where_the_truth_has_the_phase(seed: int) -> None:
    truth, predicted, present = draw(seed)
    sums = sums_of(truth, predicted)
    for ours, theirs in (
        (precision, sk.precision_score),
        (recall, sk.recall_score),
        (f1, sk.f1_score),
    ):
        expected = theirs(truth, predicted, labels=present, average=None, zero_division=0)
        np.testing.assert_allclose(ours(sums)[present], expected, atol=1e-12)


def test_a_phase_that_the_truth_lacks_is_not_measured() -> None:
    truth, predicted = np.array([0, 0, 1]), np.array([0, 2, 1])
    sums = sums_of(truth, predicted)
    for metric in (f1, precision, recall):
        assert np.isnan(metric(sums)[2:]).all()


def test_confusion_counts_each_unit_apart() -> None:
    truth, predicted = np.array([0, 1, 1]), np.array([0, 1, 4])
    counts = confusion(truth, predicted, np.array([0, 0, 2]), 3)
    assert counts.shape == (3, K, K)
    assert counts[0, 0, 0] == counts[0, 1, 1] == counts[2, 1, 4] == 1
    assert counts[1].sum() == 0
    assert counts.sum() == 3


def test_false_alarms_are_the_three_infected_phases_and_armed_is_none() -> None:
    truth = np.zeros(5, dtype=int)
    rate = false_alarm_rate(sums_of(truth, np.arange(5)), [0])
    assert PHASES[1] == "armed"
    assert rate == pytest.approx(3 / 5)
