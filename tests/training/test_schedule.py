import itertools

import numpy as np
import pytest
from sklearn.metrics import f1_score

from cis490.training.schedule import EarlyStopping, learning_rate_factor, macro_f1


def test_the_rate_rises_over_five_percent_of_the_steps_and_falls_to_zero():
    rates = [learning_rate_factor(step, 200) for step in range(201)]
    np.testing.assert_allclose(rates[:10], np.arange(1, 11) / 10)
    assert rates[10] == 1
    assert rates[105] == pytest.approx(0.5)
    assert rates[200] == pytest.approx(0)
    assert all(earlier >= later for earlier, later in itertools.pairwise(rates[10:]))


def test_a_training_of_one_step_learns_at_the_peak():
    assert learning_rate_factor(0, 1) == 1


def test_patience_is_counted_only_after_300_steps():
    stopping = EarlyStopping(patience=2)
    assert stopping.improved(50, 0.5, 1.0)
    for step in range(100, 301, 50):
        assert not stopping.improved(step, 0.4, 1.0)
    assert not stopping.stop
    stopping.improved(350, 0.4, 1.0)
    assert not stopping.stop
    stopping.improved(400, 0.4, 1.0)
    assert stopping.stop


def test_an_improvement_starts_the_patience_anew():
    stopping = EarlyStopping(patience=2)
    stopping.improved(310, 0.5, 1.0)
    stopping.improved(320, 0.4, 1.0)
    assert stopping.improved(330, 0.6, 2.0)
    stopping.improved(340, 0.6, 2.0)
    assert not stopping.stop


def test_a_tie_of_macro_f1_is_broken_by_the_lower_loss():
    stopping = EarlyStopping(patience=8)
    stopping.improved(1, 0.5, 1.0)
    assert stopping.improved(2, 0.5, 0.9)
    assert not stopping.improved(3, 0.5, 0.9)
    assert not stopping.improved(4, 0.49, 0.1)


def test_macro_f1_is_scikit_learns_over_the_classes_of_the_truth():
    rng = np.random.default_rng(0)
    for _ in range(20):
        y, predicted = rng.choice([0, 2, 3], 30), rng.integers(0, 5, 30)
        wanted = f1_score(y, predicted, labels=np.unique(y), average="macro", zero_division=0)
        assert macro_f1(y, predicted, 5) == pytest.approx(wanted)


def test_steps_beyond_the_total_learn_nothing():
    """A series visited in blocks makes more batches an epoch than were reckoned with."""
    assert [learning_rate_factor(step, 100) for step in (100, 120, 195)] == pytest.approx([0] * 3)
