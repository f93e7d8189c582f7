"""MiniRocket against a slow reference from the paper, and its ridge against scikit-learn's."""

from itertools import combinations

import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge as SklearnRidge

from cis490.models import Columns, FitSettings, create, minirocket
from cis490.models.minirocket import ALPHAS, KERNELS, Ridge, Transform, dilations
from cis490.models.weights import class_weights
from tests.models.problems import make_problem


def slow_kernel_output(case, channels, twos, dilation):
    """One kernel on one case (c, t), term by term, zeros beyond the ends: (t,)."""
    n = case.shape[1]
    out = np.zeros(n)
    for t in range(n):
        for i in range(9):
            at = t + (i - 4) * dilation
            if 0 <= at < n:
                out[t] += (2 if i in twos else -1) * case[channels, at].sum()
    return out


def slow_features(transform, case):
    """Features of one case in the order of `Transform.__call__`."""
    features = []
    kernels = list(combinations(range(9), 3))
    for d, (dilation, columns) in enumerate(dilations(case.shape[1])):
        for parity in (0, 1):
            for bias in range(columns.start, columns.stop):
                for k in range(parity, 84, 2):
                    channels = transform.members[d, k].numpy() > 0
                    out = slow_kernel_output(case, channels, kernels[k], dilation)
                    if (d + k) % 2:  # only where the kernel does not reach beyond the ends
                        out = out[4 * dilation : len(out) - 4 * dilation]
                    features.append(np.mean(out > float(transform.bias[k, bias])))
    return np.array(features)


def cases(n, n_channels, n_timepoints, seed=0):
    """Random cases on the grid to which MiniRocket rounds."""
    rng = np.random.default_rng(seed)
    return torch.from_numpy(
        np.round(rng.normal(size=(n, n_channels, n_timepoints)) * 4096).astype(np.float32) / 4096
    )


@pytest.mark.parametrize(("n_channels", "n_timepoints"), [(1, 9), (3, 20)])
def test_features_are_those_of_a_slow_reference(n_channels, n_timepoints, monkeypatch):
    monkeypatch.setattr(minirocket, "PER_KERNEL", 3)
    x = cases(5, n_channels, n_timepoints)
    x[0] = 0  # all missing: biases of 0, which an output of 0 does not exceed
    transform = Transform.fit(x, np.random.default_rng(0))
    expected = np.stack([slow_features(transform, case) for case in x.double().numpy()])
    np.testing.assert_allclose(transform(x).numpy(), expected, atol=1e-6)


def test_biases_are_evenly_spread_quantiles_of_a_training_cases_kernel_output():
    x = cases(1, 2, 30)
    transform = Transform.fit(x, np.random.default_rng(0))
    multiples = np.arange(1, 84 * 119 + 1).reshape(84, 119) * (1 + 5**0.5) / 2 % 1
    kernels = list(combinations(range(9), 3))
    for d, (dilation, columns) in enumerate(dilations(30)):
        for k in (0, 41, 83):
            channels = transform.members[d, k].numpy() > 0
            out = slow_kernel_output(x[0].double().numpy(), channels, kernels[k], dilation)
            expected = np.quantile(out, multiples[k, columns])
            np.testing.assert_allclose(transform.bias[k, columns], expected, atol=1e-5)


def test_dilations_grow_until_a_kernel_spans_the_window():
    counts = {
        length: {dilation: columns.stop - columns.start for dilation, columns in dilations(length)}
        for length in (9, 17, 100)
    }
    assert counts[9] == {1: 119}
    assert counts[17] == {1: 116, 2: 3}
    assert list(counts[100]) == list(range(1, 13))
    assert list(counts[100].values()) == [34, 19, 15, 8, 12, 4, 8, 7, 3, 3, 3, 3]


def test_a_kernel_looks_at_one_to_nine_channels_mostly_few():
    members = Transform.fit(cases(2, 31, 20), np.random.default_rng(0)).members
    counts = members.sum(2).flatten()
    assert (counts.min(), counts.max()) == (1, 9)
    assert (counts == 1).sum() > (counts == 2).sum() > (counts == 5).sum()


def test_a_level_alone_says_nothing_where_no_kernel_reaches_beyond_the_ends():
    transform = Transform.fit(cases(3, 1, 40), np.random.default_rng(0))
    low, high = (transform(level * torch.ones(1, 1, 40)) for level in (1, 2))
    assert KERNELS.sum(1).abs().max() == 0
    assert 0.5 <= (low == high).float().mean() < 1


def test_sums_are_exact_so_that_their_order_cannot_matter():
    rng = np.random.default_rng(0)
    inputs = torch.from_numpy(rng.uniform(-3, 3, (84, 18, 30)).astype(np.float32))
    inputs[:, :, :15] = 3 * inputs[:, :, :15].sign()  # the largest there can be
    x = minirocket._values(inputs)
    given = minirocket._convolved(x.sum(1), 2)
    exact = minirocket._convolved(x.double().sum(1), 2)
    assert torch.equal(given.double(), exact)


def weighted_problem(n=40, d=60, k=3):
    rng = np.random.default_rng(5)
    y = rng.integers(0, k, n)
    features = rng.random((n, d)).astype(np.float32)
    features[:, :6] += y[:, None] / 4
    features[:, 7] = 0.25  # the same in every case
    targets = np.where(y[:, None] == np.arange(k), 1.0, -1.0)
    return features, targets, rng.uniform(0.5, 3, n)


def scaled(features, weights):
    """Features as the ridge takes them: unit length around their weighted mean."""
    centre = np.average(features.astype(np.float64), axis=0, weights=weights)
    length = np.sqrt((weights[:, None] * (features - centre) ** 2).sum(0))
    return features / np.where(length < 1e-9, 1, length)


def ridge_of(features, targets, weights):
    return Ridge.fit(*map(torch.from_numpy, (features, targets, weights)))


def test_the_ridge_is_scikit_learns_with_the_alpha_of_the_least_left_out_error():
    features, targets, weights = weighted_problem()
    ours, X = ridge_of(features, targets, weights), scaled(features, weights)
    left_out = {}
    for alpha in ALPHAS:
        scores = []
        for i in range(len(X)):
            rest = np.arange(len(X)) != i
            model = SklearnRidge(alpha).fit(X[rest], targets[rest], sample_weight=weights[rest])
            scores.append(model.predict(X[i : i + 1])[0])
        left_out[alpha] = np.array(scores)
    errors = {a: (weights[:, None] * (targets - s) ** 2).sum() for a, s in left_out.items()}
    assert ours.alpha == min(errors, key=lambda alpha: errors[alpha])
    assert ALPHAS[0] < ours.alpha < ALPHAS[-1]
    np.testing.assert_allclose(ours.left_out, left_out[ours.alpha], atol=1e-8)
    whole = SklearnRidge(ours.alpha).fit(X, targets, sample_weight=weights)
    scores = features @ ours.coef.numpy() + ours.intercept.numpy()
    np.testing.assert_allclose(scores, whole.predict(X), atol=1e-8)


def test_a_case_has_the_same_features_alone_as_among_others():
    problem = make_problem()
    model = create("minirocket", 3).fit(problem.X, problem.y)
    alone = [model.embed(problem.X_val[i : i + 1]) for i in range(10)]
    assert np.array_equal(np.concatenate(alone), model.embed(problem.X_val[:10]))


def test_probabilities_are_as_sure_as_the_model_is_right():
    """The temperature is fitted to left-out cases: on noise a score is worth little."""
    problem = make_problem(n=400, seed=3)
    rng = np.random.default_rng(0)
    y = np.where(rng.random(len(problem.y)) < 0.4, rng.integers(0, 3, len(problem.y)), problem.y)
    clear = create("minirocket", 3).fit(problem.X, problem.y)
    noisy = create("minirocket", 3).fit(problem.X, y)
    sure = [model.predict_proba(problem.X_val).max(1).mean() for model in (clear, noisy)]
    assert sure[0] > 0.85
    assert 0.5 < sure[1] < 0.8  # 0.73 of these labels are as they should be


@pytest.fixture
def fitted(monkeypatch):
    """Arguments of each ridge that is fitted, as arrays."""
    seen, fit = [], Ridge.fit.__func__

    def noting(cls, *arguments):
        seen.append([argument.numpy() for argument in arguments])
        return fit(cls, *arguments)

    monkeypatch.setattr(Ridge, "fit", classmethod(noting))
    return seen


def test_of_many_cases_a_seeded_sample_is_learned_from(fitted):
    problem = make_problem(n=160)
    model = create("minirocket", 3, options={"cases": 50}).fit(problem.X, problem.y)
    assert [features.shape for features, _, _ in fitted] == [(50, 9996)]
    assert (model.predict_proba(problem.X_val).argmax(1) == problem.y_val).mean() > 0.7


def test_each_case_has_its_classs_weight(fitted):
    problem = make_problem(n=160)
    y = np.where(np.arange(120) % 10 == 0, 2, problem.y % 2)
    create("minirocket", 3).fit(problem.X, y)
    _, targets, weights = fitted[0]
    assert (np.sort(targets, 1) == [-1, -1, 1]).all()
    np.testing.assert_allclose(weights, class_weights(y, 3)[targets.argmax(1)], rtol=1e-6)
    assert weights.max() > 3 * weights.min()


def test_sources_are_hidden_in_training_by_their_chance(monkeypatch):
    seen = []
    fit = Transform.fit.__func__

    def noting(cls, x, rng):
        seen.append((x == 0).all(2).float().mean(0))
        return fit(cls, x, rng)

    monkeypatch.setattr(Transform, "fit", classmethod(noting))
    problem = make_problem(n=400)
    columns = Columns.plain(7, groups={"netflow": [2, 3]})
    settings = FitSettings(source_dropout={"netflow": 0.25})
    create("minirocket", 3, settings=settings, columns=columns).fit(problem.X, problem.y)
    np.testing.assert_allclose(seen[0][[2, 3]], 0.25, atol=0.08)
    assert seen[0][[0, 1, 4, 5, 6]].max() == 0


def test_val_is_measured_and_changes_nothing():
    problem = make_problem()
    one = create("minirocket", 3).fit(problem.X, problem.y)
    other = create("minirocket", 3)
    other.fit(problem.X, problem.y, X_val=problem.X_val, y_val=problem.y_val)
    X = problem.X_val
    assert np.array_equal(one.predict_proba(X), other.predict_proba(X))
    (row,) = other.history
    right = other.predict_proba(X).argmax(1) == problem.y_val
    assert row["val_macro_f1"] == pytest.approx(right.mean(), abs=0.05)
    assert 0 < row["val_loss"] < 1
    assert 0 < row["train_loss"] < 1


def test_val_loss_leaves_out_classes_that_training_lacks():
    problem = make_problem()
    known = problem.y < 2
    model = create("minirocket", 3).fit(
        problem.X[known], problem.y[known], X_val=problem.X_val, y_val=problem.y_val
    )
    assert (problem.y_val == 2).any()
    assert model.history[0]["val_loss"] < 2


def test_val_of_a_class_that_the_sample_missed_still_has_a_loss():
    problem = make_problem()
    y = np.where(np.arange(120) == 8, 2, problem.y % 2)  # a single case, not among the ten
    model = create("minirocket", 3, options={"cases": 10})
    model.fit(problem.X, y, X_val=problem.X_val, y_val=np.full(40, 2))
    assert (model.predict_proba(problem.X_val)[:, 2] == 0).all()
    assert np.isfinite(model.history[0]["val_loss"])
