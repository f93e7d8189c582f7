"""Baselines: what they learn, and from whom."""

from __future__ import annotations

import numpy as np
import pytest

from cis490.channels import PHASES
from cis490.evaluation.baselines import predict_baselines

CLEAN, ARMED, INFECTING, RUNNING, DORMANT = range(len(PHASES))


def test_majority_and_always_infected() -> None:
    said = predict_baselines(np.array([4, 4, 0]), np.array([0, 1, 2]), np.arange(6))
    assert said["majority"].tolist() == [DORMANT] * 6
    assert said["always_infected"].tolist() == [RUNNING] * 6
    assert sorted(said) == ["always_infected", "majority", "window_index"]


def test_window_index_weighs_rare_phases_up() -> None:
    # At index 1 clean leads 3 to 2, but clean is common elsewhere and armed is not.
    phase = np.array([CLEAN] * 10 + [CLEAN] * 3 + [ARMED] * 2)
    window = np.array([0] * 10 + [1] * 5)
    said = predict_baselines(phase, window, np.array([0, 1]))
    assert said["window_index"].tolist() == [CLEAN, ARMED]


@pytest.mark.parametrize(
    ("index", "phase"), [(0, CLEAN), (2, CLEAN), (4, CLEAN), (5, DORMANT), (99, DORMANT)]
)
def test_an_unseen_index_takes_the_nearest_seen_one(index: int, phase: int) -> None:
    said = predict_baselines(np.array([CLEAN, DORMANT]), np.array([2, 6]), np.array([index]))
    assert said["window_index"].tolist() == [phase]


def test_without_training_windows_only_always_infected_can_predict() -> None:
    none = np.array([], dtype=int)
    assert list(predict_baselines(none, none, np.arange(3))) == ["always_infected"]
