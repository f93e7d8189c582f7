import itertools

import numpy as np
import pytest
from sklearn.metrics import f1_score

from cis490.probes.exchanged import (
    exchange,
    exchanged_training,
    exchanged_truth,
    exchanges,
    leaks,
    mean_macro_f1,
    p_above,
)
from cis490.probes.tables import Name
from tests.probes.world import BOOSTER, ORIGIN, TWO_HOSTS, tell, windows_of

NAME = Name("test", "exchanged", "cnn", "realistic", (42,))


def test_each_episode_gets_the_circle_of_one_other():
    length = np.array([3, 5, 5, 2])
    unit = np.repeat(np.arange(4), length)
    y = np.arange(15)  # every window its own label, so that it shows where it comes from
    seen = set()
    for seed in range(50):
        mixed = exchange(y, unit, np.random.default_rng(seed))
        donors = []
        for i in range(4):
            own = mixed[unit == i]
            donor = unit[own[0]]
            first, size = np.flatnonzero(unit == donor)[0], length[donor]
            steps = (own - first - (own[0] - first) - np.arange(len(own))) % size
            assert (unit[own] == donor).all()
            assert (steps == 0).all()
            seen.add((i, donor, own[0] - first))
            donors.append(donor)
        assert sorted(donors) == [0, 1, 2, 3]
    assert len({shift for i, donor, shift in seen if (i, donor) == (0, 1)}) > 1


def test_episodes_of_one_length_keep_every_label():
    y = np.random.default_rng(1).integers(5, size=44)
    mixed = exchange(y, np.repeat(np.arange(4), 11), np.random.default_rng(0))
    assert sorted(mixed) == sorted(y)
    assert (mixed != y).any()


def test_macro_f1_is_scikit_learns():
    rng = np.random.default_rng(2)
    predicted, truth = rng.integers(5, size=(3, 60)), rng.integers(4, size=60)
    expected = np.mean(
        [
            f1_score(truth, run, labels=[0, 1, 2, 3], average="macro", zero_division=0)
            for run in predicted
        ]
    )
    assert mean_macro_f1(predicted, [truth])[0] == pytest.approx(expected, abs=1e-9)


def test_p_counts_ties_and_is_never_zero():
    null = np.array([0.1, 0.2, 0.2, 0.3])
    assert p_above(0.2, null) == pytest.approx(4 / 5)
    assert p_above(0.9, null) == pytest.approx(1 / 5)


def test_a_detector_that_knows_the_phase_lies_above_every_exchange():
    windows = windows_of("test", {"birch": {"io-walk": 8}})
    real, null, p = exchanged_truth(windows, NAME, windows.y[None], ORIGIN)
    assert real["estimate"] == 1.0
    assert null["high"] < 0.6
    assert p["estimate"] == pytest.approx(1 / 100)


def test_p_of_a_detector_that_knows_nothing_is_uniform():
    windows = windows_of("test", {"birch": {"io-walk": 8}})
    found = []
    for seed in range(60):
        predicted = exchange(windows.y, windows.unit, np.random.default_rng([9, seed]))[None]
        null = mean_macro_f1(predicted, exchanges(windows.y, windows.unit, seed))
        found.append(p_above(mean_macro_f1(predicted, [windows.y])[0], null))
    assert 0.4 < np.mean(found) < 0.6
    assert 0.0 < np.mean(np.array(found) < 0.1) < 0.25


def test_gbt_on_exchanged_labels_finds_nothing():
    train, val, test = (
        tell(each, "proc.wchar", each.y)
        for each in (windows_of(part, TWO_HOSTS) for part in ("train", "val", "test"))
    )
    rows = exchanged_training(train, val, test, "test", BOOSTER, ORIGIN)
    assert leaks(rows) is False
    real, chance, over = (row["estimate"] for row in rows)
    assert over == pytest.approx(real - chance)
    assert rows[2]["low"] < over < rows[2]["high"]


def test_trainings_that_are_right_by_luck_are_no_leak(monkeypatch):
    # What exchanged labels had in common with the true ones carries to test whole: one training in
    # five is right throughout, four are wrong throughout, and no single null allows for either.
    windows = windows_of("test", TWO_HOSTS)
    shifts = itertools.cycle(range(5))

    class Lucky:
        def predict_proba(self, _):
            return np.eye(5)[(windows.y + next(shifts)) % 5]

    monkeypatch.setattr(type(BOOSTER), "fit", lambda *_, **__: Lucky())
    rows = exchanged_training(windows, windows, windows, "test", BOOSTER, ORIGIN)
    assert rows[0]["estimate"] == pytest.approx(0.2)
    assert rows[2]["low"] < 0 < rows[2]["high"]
    assert leaks(rows) is False


def test_one_answer_throughout_is_no_leak_by_a_rounding(monkeypatch):
    # Each exchange of episodes of one length has the same score, so that nothing varies.
    windows = windows_of("test", TWO_HOSTS)

    class Dull:
        def predict_proba(self, X):
            return np.eye(5)[np.zeros(len(X), int)]

    monkeypatch.setattr(type(BOOSTER), "fit", lambda *_, **__: Dull())
    rows = exchanged_training(windows, windows, windows, "test", BOOSTER, ORIGIN)
    assert [rows[2][key] for key in ("low", "estimate", "high")] == [0, 0, 0]
    assert leaks(rows) is False


def test_a_feature_that_leaks_the_labels_in_training_as_in_test_is_found(monkeypatch):
    # The leak: whatever labels training is given, and the true ones of test, stand in a channel.
    train, val, test = (windows_of(part, TWO_HOSTS) for part in ("train", "val", "test"))
    tell(test, "proc.wchar", test.y)
    honest = type(BOOSTER).fit

    def leaky(self, X, y, kept, *, X_val, y_val):
        columns = [X.copy(), X_val.copy()]
        for given, labels in zip(columns, (y, y_val), strict=True):
            given[:, list(kept).index(_wchar())] += 10 * labels
        return honest(self, columns[0], y, kept, X_val=columns[1], y_val=y_val)

    monkeypatch.setattr(type(BOOSTER), "fit", leaky)
    assert leaks(exchanged_training(train, val, test, "test", BOOSTER, ORIGIN)) is True


def _wchar():
    from cis490.probes.data import columns_at
    from tests.probes.world import channel

    return columns_at([channel("proc.wchar")])[0]
