import os
import subprocess
import sys

import numpy as np
import pytest

from cis490.models import Columns, FitSettings, InputError, create, gbt
from cis490.models.gbt import COPIES, _class_weights, masked_copies, scaled_copies
from tests.conftest import ROOT
from tests.models.problems import QUICK, make_problem


@pytest.mark.parametrize("name", ["gbt", "mlp"])
def test_features_are_taken_as_they_are(name):
    rng = np.random.default_rng(0)
    y = np.arange(90) % 3
    X = rng.normal(size=(90, 5)).astype(np.float32)
    X[:, 2] += 4 * y
    model = create(name, 3, settings=QUICK).fit(X, y)
    assert (model.predict_proba(X).argmax(1) == y).mean() > 0.85
    with pytest.raises(InputError, match="trained on 5"):
        model.predict_proba(X[:, :4])


@pytest.mark.parametrize("name", ["gbt", "mlp"])
def test_a_share_missing_of_a_channel_never_seen_is_ignored_too(name):
    rng = np.random.default_rng(0)
    y = np.arange(60) % 2
    X = rng.normal(size=(60, 4)).astype(np.float32)
    X[:, 0] += 3 * y
    X[:, 2], X[:, 3] = np.nan, 1.0  # mean and share missing of the second channel
    absent = np.array([np.nan, 1, np.nan, 1], np.float32)
    columns = Columns(np.zeros(4, bool), absent, np.array([0, 0, 1, 1]))
    model = create(name, 2, settings=QUICK, columns=columns).fit(X, y)
    there = X.copy()
    there[:, 2], there[:, 3] = 5.0, 0.0
    assert np.array_equal(model.predict_proba(there), model.predict_proba(X))


def test_gbt_copies_hold_every_mix_of_hidden_sources_at_equal_total_weight():
    X = np.arange(12, dtype=np.float32).reshape(2, 6)
    absent = np.array([np.nan, 1, np.nan, np.nan, np.nan, np.nan], np.float32)
    groups = {"netflow": [0, 1], "qmp": [4], "guest": []}
    columns = Columns(np.zeros(6, bool), absent, np.arange(6), groups)
    settings = FitSettings(source_dropout={"netflow": 0.25, "qmp": 0.5, "guest": 0.9})
    copies, weights = masked_copies(X, columns, settings)
    np.testing.assert_allclose(weights, [0.375, 0.375, 0.125, 0.125])
    assert np.array_equal(copies[0], X)
    assert np.isnan(copies[1][:, 4]).all()
    assert np.isnan(copies[2][:, 0]).all()
    assert (copies[2][:, 1] == 1).all()
    assert np.array_equal(copies[2][:, 2:], X[:, 2:])


def test_gbt_without_source_dropout_sees_each_case_once():
    X = np.ones((3, 2), np.float32)
    copies, weights = masked_copies(X, Columns.plain(2, groups={"netflow": [0]}), FitSettings())
    assert len(copies) == 1
    assert weights.tolist() == [1]


def test_gbt_reads_a_missing_value_as_missing_not_as_zero():
    y = np.arange(80) % 2
    X = np.zeros((80, 1), np.float32)
    X[y == 1] = np.nan
    model = create("gbt", 2).fit(X, y)
    assert (model.predict_proba(X).argmax(1) == y).all()


def test_gbt_does_not_import_torch_nor_a_network_xgboost():
    code = (
        "import sys; from cis490.models import get_class; get_class('{}'); "
        "sys.exit(any(m in sys.modules for m in ('{}', 'pandas')))"
    )
    for name, foreign in (("gbt", "torch"), ("cnn", "xgboost")):
        command = [sys.executable, "-c", code.format(name, foreign)]
        done = subprocess.run(command, env={**os.environ, "PYTHONPATH": str(ROOT / "src")})
        assert done.returncode == 0


def test_an_unknown_architecture_is_refused_with_the_known_ones():
    with pytest.raises(Exception, match="no architecture is called rnn; there are gbt, mlp"):
        create("rnn", 2)


def test_a_problem_of_three_dimensions_is_summarised_for_the_tabular():
    problem = make_problem(n=40)
    model = create("mlp", 3, settings=QUICK).fit(problem.X, problem.y)
    assert len(model.state()[1]["standardiser.mean"]) == 7 * 6


def test_a_class_that_training_lacks_does_not_decide_when_trees_stop():
    """Val's cases of it weigh nothing where sampling would never have drawn one."""
    counts = _class_weights(np.array([0, 0, 0, 1]), 3, "balanced")
    assert counts.tolist() == pytest.approx([4 / 6, 2, 0])


def of_three_channels():
    """A rate with three statistics, two of which have its scale; a state; another rate."""
    absent = np.full(5, np.nan, np.float32)
    scaled = np.array([True, True, False, False, True])
    return Columns(np.zeros(5, bool), absent, np.array([0, 0, 0, 1, 2]), {}, scaled)


def test_gbt_copies_differ_by_a_factor_a_case_and_channel():
    X = np.random.default_rng(0).normal(size=(2000, 5)).astype(np.float32)
    X[:, 4] = 0
    first, *copies = scaled_copies(X, of_three_channels(), FitSettings(scale_jitter=0.2))
    assert np.array_equal(first, X)
    assert len(copies) == COPIES
    factors = [copy[:, 0] / X[:, 0] for copy in copies]
    for copy, factor in zip(copies, factors, strict=True):
        np.testing.assert_allclose(copy[:, 1], X[:, 1] * factor, rtol=1e-5)
        assert np.array_equal(copy[:, 2:], X[:, 2:])  # nothing times anything is nothing
        assert np.log(factor).std() == pytest.approx(0.2, rel=0.1)
        assert abs(np.log(factor).mean()) < 0.02
    assert abs(np.corrcoef(factors[0], factors[1])[0, 1]) < 0.1


def test_gbt_of_many_cases_sees_each_once_at_another_scale(monkeypatch):
    monkeypatch.setattr(gbt, "MANY", 99)
    X = np.ones((100, 5), np.float32)
    (copy,) = scaled_copies(X, of_three_channels(), FitSettings(scale_jitter=0.2))
    assert len(np.unique(copy[:, 0])) > 90
    plain = scaled_copies(X, of_three_channels(), FitSettings())
    assert len(plain) == 1
    assert plain[0] is X


def test_gbt_learns_what_a_scale_does_not_touch():
    """Training shows a level and a state that tell the same; elsewhere levels are doubled."""
    rng = np.random.default_rng(0)
    y = np.arange(300) % 2
    X = rng.normal(10, 0.05, size=(300, 5)).astype(np.float32)
    X[:, 0] += 0.8 * y
    X[:, 3] += 0.15 * y
    elsewhere = X.copy()
    elsewhere[:, 0] *= 1.15
    right = []
    for jitter in (0.0, 0.2):
        settings = FitSettings(scale_jitter=jitter)
        model = create("gbt", 2, settings=settings, columns=of_three_channels()).fit(X, y)
        right.append((model.predict_proba(elsewhere).argmax(1) == y).mean())
    assert right[0] < 0.6
    assert right[1] > 0.8
