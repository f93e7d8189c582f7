"""The best single feature, against a slow search."""

from itertools import product

import numpy as np
import pytest
from sklearn.metrics import f1_score

from cis490.models import Columns, FitSettings, create
from cis490.models.threshold import assigned
from cis490.models.weights import class_weights


def problem(n=200, d=5, best=3, seed=0):
    """Classes told best by one feature, not in order: 1, 0, 2 from low to high."""
    rng = np.random.default_rng(seed)
    y = rng.choice(3, n, p=[0.5, 0.3, 0.2])
    X = rng.normal(size=(n, d)).astype(np.float32)
    X[:, best] += 2.5 * np.array([1, 0, 2])[y]
    return X, y


def slow_f1(y, place, labels):
    said = np.array(labels)[place]
    return f1_score(y, said, labels=sorted(set(y)), average="macro", zero_division=0)


def test_the_feature_that_tells_most_is_found_with_its_classes_in_any_order():
    X, y = problem()
    model = create("threshold", 3).fit(X, y)
    assert np.array_equal(model.embed(X)[:, 0], X[:, 3])
    low, middle, high = np.full((3, 5), np.float32(0))
    low[3], middle[3], high[3] = -1, 2.5, 6.5
    assert model.predict_proba(np.stack([low, middle, high])).argmax(1).tolist() == [1, 0, 2]


@pytest.mark.parametrize("seed", range(6))
def test_no_change_of_one_bin_is_better_and_f1_is_scikit_learns(seed):
    rng = np.random.default_rng(seed)
    y = rng.choice(3, 60, p=[0.7, 0.2, 0.1])
    place = rng.integers(0, 4, (2, 60))
    counts = np.zeros((2, 4, 3))
    for j in range(2):
        np.add.at(counts[j], (place[j], y), 1)
    labels, f1 = assigned(counts, class_weights(y, 3))
    for j in range(2):
        found = slow_f1(y, place[j], labels[j])
        assert f1[j] == pytest.approx(found, abs=1e-12)
        for b, k in product(range(4), range(3)):
            changed = labels[j].copy()
            changed[b] = k
            assert slow_f1(y, place[j], changed) <= found + 1e-9


def test_probabilities_are_weighted_shares_of_the_bin_and_say_its_class():
    X, y = problem(n=400)
    model = create("threshold", 3, options={"bins": 4}).fit(X, y)
    cuts = np.quantile(X[:, 3], [0.25, 0.5, 0.75])
    place = np.searchsorted(cuts, X[:, 3], side="right")
    counts = np.array([np.bincount(y[place == b], minlength=3) for b in range(4)])
    weighted = (counts + 0.5) * class_weights(y, 3)
    told = np.sort(weighted / weighted.sum(1, keepdims=True), 1)
    p = model.predict_proba(X)
    np.testing.assert_allclose(np.sort(p, 1), told[place], atol=1e-6)
    labels, _ = assigned(counts[None].astype(float), class_weights(y, 3))
    assert np.array_equal(p.argmax(1), labels[0][place])


def test_a_bins_class_is_said_even_where_another_is_more_frequent():
    exchanged = 0
    for seed in range(20):
        rng = np.random.default_rng(seed)
        y = rng.choice(3, 60, p=[0.6, 0.3, 0.1])
        X = rng.normal(size=(60, 1)).astype(np.float32)
        p = create("threshold", 3, options={"bins": 4}).fit(X, y).predict_proba(X)
        place = np.searchsorted(np.quantile(X, [0.25, 0.5, 0.75]), X[:, 0], side="right")
        counts = np.array([np.bincount(y[place == b], minlength=3) for b in range(4)])
        weights = class_weights(y, 3)
        labels, _ = assigned(counts[None].astype(float), weights)
        assert np.array_equal(p.argmax(1), labels[0][place])
        exchanged += not np.array_equal(((counts + 0.5) * weights).argmax(1), labels[0])
    assert exchanged


def test_a_missing_value_has_a_bin_of_its_own():
    X, y = problem()
    X = X[:, :1] * 0 + np.where(y == 2, np.nan, y)[:, None].astype(np.float32)
    model = create("threshold", 3).fit(X, y)
    assert (model.predict_proba(X).argmax(1) == y).all()


def test_what_training_never_saw_is_like_all_of_training():
    X, y = problem()
    p = create("threshold", 3).fit(X, y).predict_proba(np.full((1, 5), np.nan, np.float32))
    weighted = (np.bincount(y) + 0.5) * class_weights(y, 3)
    np.testing.assert_allclose(p[0], weighted / weighted.sum(), atol=1e-6)


def test_a_feature_of_a_source_that_may_be_lacking_counts_as_hidden_by_its_chance():
    X, y = problem()
    X[:, 1] = X[:, 3] / 2 + np.random.default_rng(1).normal(size=200) * 0.8
    for chance, best in ((0.0, 3), (0.5, 1)):
        settings = FitSettings(source_dropout={"netflow": chance})
        columns = Columns.plain(5, groups={"netflow": [3]})
        model = create("threshold", 3, settings=settings, columns=columns).fit(X, y)
        assert np.array_equal(model.embed(X)[:, 0], X[:, best])


def test_a_hidden_share_of_missing_values_reads_one_and_a_hidden_value_is_missing():
    rng = np.random.default_rng(0)
    y = rng.integers(0, 2, 200)
    X = np.column_stack([rng.normal(size=200), y / 4]).astype(np.float32)  # a value, its share
    absent = np.array([np.nan, 1], np.float32)
    columns = Columns(np.zeros(2, bool), absent, np.zeros(2, int), {"netflow": [0, 1]})
    told = {}
    for chance in (0.0, 0.25):
        settings = FitSettings(source_dropout={"netflow": chance})
        model = create("threshold", 2, settings=settings, columns=columns).fit(X, y)
        told[chance] = model.predict_proba(np.array([[0, 0.25], [0, np.nan]], np.float32))[:, 1]
    # What is hidden reads 1, which lies in one bin with 0.25; nothing of it is missing.
    assert told[0.25][0] < told[0.0][0] - 0.05
    assert told[0.25][0] > 0.7
    assert told[0.25][1] == pytest.approx(told[0.0][1], abs=0.01)


def test_of_many_cases_a_seeded_sample_is_learned_from():
    X, y = problem(n=3000)
    tell = [
        create("threshold", 3, seed=seed, options={"cases": 100}).fit(X, y).predict_proba(X)
        for seed in (1, 1, 2)
    ]
    assert np.array_equal(tell[0], tell[1])
    assert not np.array_equal(tell[0], tell[2])
