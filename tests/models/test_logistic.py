"""Logistic regression against scikit-learn's."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from cis490.models import Columns, FitSettings, create
from cis490.models.logistic import BLIND, STRENGTHS
from cis490.models.weights import class_weights
from tests.models.problems import make_problem


def features(n=200, d=6, k=3, seed=0):
    """Overlapping classes, the last one rare, a tenth missing."""
    rng = np.random.default_rng(seed)
    y = rng.choice(k, n, p=[0.5, 0.4, 0.1])
    X = rng.normal(size=(n, d)).astype(np.float32)
    X[:, :3] += y[:, None] / 2
    X[rng.random(X.shape) < 0.1] = np.nan
    return X, y


def inputs(X):
    """What the networks see: cut z-scores with 0 for missing, then the mask."""
    X = X.astype(float)
    z = (X - np.nanmean(X, 0)) / np.nanstd(X, 0)
    return np.column_stack([np.nan_to_num(z.clip(-3, 3)), ~np.isnan(X)])


def test_it_is_scikit_learns_with_the_same_strength_and_weights():
    X, y = features()
    ours = create("logistic", 3).fit(X, y)
    weights = class_weights(y, 3)[y].astype(float)
    C = 1 / (BLIND * weights.sum())
    theirs = LogisticRegression(C=C, tol=1e-10, max_iter=10_000)
    theirs.fit(inputs(X), y, sample_weight=weights)
    np.testing.assert_allclose(ours.predict_proba(X), theirs.predict_proba(inputs(X)), atol=3e-4)


def test_the_strength_is_the_one_with_the_best_macro_f1_on_val():
    X, y = features(n=120, d=60)
    X_val, y_val = features(n=80, d=60, seed=1)
    model = create("logistic", 3).fit(X, y, X_val=X_val, y_val=y_val)
    scores = [row["val_macro_f1"] for row in model.history]
    assert len(scores) == len(STRENGTHS)
    assert model.best_epoch == 1 + int(np.argmax(scores))
    assert len(set(scores)) > 1
    said = model.predict_proba(X_val).argmax(1)
    assert np.mean(said == y_val) > 0.4
    losses = [row["train_loss"] for row in model.history]
    assert losses == sorted(losses, reverse=True)  # a weaker ridge fits training better


def test_embeddings_are_the_inputs():
    X, y = features()
    np.testing.assert_allclose(create("logistic", 3).fit(X, y).embed(X), inputs(X), atol=1e-5)


def test_of_many_cases_a_seeded_sample_is_learned_from():
    X, y = features(n=300)
    models = [create("logistic", 3, seed=seed, options={"cases": 60}).fit(X, y) for seed in (1, 2)]
    p, q = (model.predict_proba(X) for model in models)
    assert not np.allclose(p, q, atol=0.01)


def test_a_hidden_source_is_learned_to_be_lived_without():
    X, y = features(n=400)
    X[:, 3] = 3 * y  # all there is to know, of a source that may be lacking
    columns = Columns.plain(6, groups={"netflow": [3]})
    alone = {}
    for chance in (0.0, 0.5):
        settings = FitSettings(source_dropout={"netflow": chance})
        model = create("logistic", 3, settings=settings, columns=columns).fit(X, y)
        blind = X.copy()
        blind[:, 3] = np.nan
        alone[chance] = (model.predict_proba(blind).argmax(1) == y).mean()
    assert alone[0.5] > alone[0.0]


def test_scales_are_moved_in_training_where_settings_ask_for_it():
    X, y = features()
    columns = Columns.plain(6, scaled=[True] * 6)
    losses = [
        create("logistic", 3, settings=FitSettings(scale_jitter=jitter), columns=columns)
        .fit(X, y)
        .history[0]["train_loss"]
        for jitter in (0.0, 1.0)
    ]
    assert losses[1] > losses[0] + 0.01


def test_a_class_that_training_lacks_has_no_probability():
    problem = make_problem(n=60)
    model = create("logistic", 5).fit(problem.X, problem.y)
    p = model.predict_proba(problem.X_val)
    assert (p[:, 3:] == 0).all()
    assert np.isfinite(model.embed(problem.X_val)).all()


def test_few_iterations_are_all_that_is_made():
    X, y = features()
    brief = create("logistic", 3, options={"iterations": 1}).fit(X, y)
    whole = create("logistic", 3).fit(X, y)
    assert brief.history[0]["train_loss"] > whole.history[0]["train_loss"] + 0.001


@pytest.mark.parametrize("threads", [1, 2])
def test_missing_indicators_alone_can_be_learned_from(threads):
    rng = np.random.default_rng(0)
    y = rng.integers(0, 2, 100)
    X = rng.normal(size=(100, 3)).astype(np.float32)
    X[y == 1, 1] = np.nan
    model = create("logistic", 2, settings=FitSettings(threads=threads)).fit(X, y)
    assert (model.predict_proba(X).argmax(1) == y).all()
