"""What every model in the registry must do: one that is registered is tested."""

import json
from dataclasses import replace
from functools import cache

import numpy as np
import pytest

from cis490.errors import Cis490Error, ConfigError, FormatError
from cis490.models import (
    ARCHITECTURES,
    BASELINES,
    CodedSeries,
    Columns,
    InputError,
    WindowView,
    create,
    get_class,
)
from cis490.windows.codes import LEAST, MISSING, STEPS
from tests.models.problems import QUICK, make_problem

NETWORKS = ("mlp", "cnn", "gru", "lstm", "transformer")
pytestmark = pytest.mark.parametrize("name", [*ARCHITECTURES, *BASELINES])
EXTREMES = ((np.min, np.inf), (np.max, -np.inf))
BRIEF = replace(QUICK, epochs=1)


def fitted_to(name, X, y, n_classes, settings=BRIEF, **options):
    return create(name, n_classes, settings=settings, **options).fit(X, y)


@cache
def trained(name):
    """A model that was given time to learn; tests must not change it."""
    problem = make_problem()
    model = create(name, 3, settings=QUICK)
    return model.fit(problem.X, problem.y, X_val=problem.X_val, y_val=problem.y_val)


def state_bytes(model):
    return {key: array.tobytes() for key, array in model.state()[1].items()}


def test_an_easy_problem_is_learned(name):
    problem = make_problem(seed=1)
    right = trained(name).predict_proba(problem.X).argmax(1) == problem.y
    assert right.mean() > 0.85


def test_probabilities_are_float32_and_sum_to_one(name):
    probabilities = trained(name).predict_proba(make_problem().X_val)
    assert probabilities.shape == (40, 3)
    assert probabilities.dtype == np.float32
    assert (probabilities >= 0).all()
    np.testing.assert_allclose(probabilities.sum(1), 1, atol=1e-5)


def test_embeddings_are_float32_rows_that_differ_between_cases(name):
    model = trained(name)
    embedding = model.embed(make_problem().X_val)
    assert embedding.shape == (40, model.embedding_size)
    assert embedding.dtype == np.float32
    assert np.isfinite(embedding).all()
    assert len(np.unique(embedding, axis=0)) > 20


@pytest.mark.parametrize(
    ("n_channels", "n_timepoints", "n_classes"), [(1, 1, 2), (2, 3, 2), (3, 17, 9), (46, 100, 5)]
)
def test_any_number_of_channels_steps_and_classes(name, n_channels, n_timepoints, n_classes):
    problem = make_problem(n_channels, n_timepoints, n_classes, n=40)
    model = fitted_to(name, problem.X, problem.y, n_classes)
    assert model.predict_proba(problem.X_val).shape == (10, n_classes)
    assert np.isfinite(model.embed(problem.X_val)).all()


def an_override(name):
    """A number among the options that differs from the small preset's."""
    small = get_class(name).presets["small"]
    option = next(key for key, value in small.items() if isinstance(value, int))
    return option, small[option] + 1


def test_the_presets_have_the_same_options_of_the_same_types(name):
    presets = get_class(name).presets
    assert {"small", "large"} <= set(presets)
    kinds = [{key: type(value) for key, value in each.items()} for each in presets.values()]
    assert all(kind == kinds[0] for kind in kinds)
    for preset, entries in presets.items():
        assert create(name, 2, preset=preset).options == entries


def test_a_model_is_as_its_options_say_and_rebuilt_without_its_presets_name(name):
    problem = make_problem(n=60)
    option, value = an_override(name)
    model = fitted_to(name, problem.X, problem.y, 3, options={option: value})
    assert model.options == get_class(name).presets["small"] | {option: value}
    description, arrays = model.state()
    description = json.loads(json.dumps(description))
    rebuilt = get_class(name).from_state(description, arrays)
    assert rebuilt.options == model.options
    assert np.array_equal(rebuilt.predict_proba(problem.X), model.predict_proba(problem.X))


def test_the_large_preset_learns_saves_and_is_larger(name):
    problem = make_problem(n=40)
    settings = replace(QUICK, epochs=2)
    options = {"rounds_blind": 3} if name == "gbt" else {}
    model = fitted_to(name, problem.X, problem.y, 3, settings, preset="large", options=options)
    rebuilt = get_class(name).from_state(*model.state())
    assert np.array_equal(rebuilt.predict_proba(problem.X), model.predict_proba(problem.X))
    if name in NETWORKS:
        assert model.n_parameters > 5 * fitted_to(name, problem.X, problem.y, 3).n_parameters


def test_options_that_cannot_be_are_refused_in_words(name):
    option, _ = an_override(name)
    decimals = [k for k, v in get_class(name).presets["small"].items() if isinstance(v, float)]
    wrong = [
        ({"preset": "huge"}, "no preset huge; there are small, large"),
        ({"options": {"widht": 3}}, f"no option widht; there are .*{option}"),
        ({"options": {option: "3"}}, f"option {option} is '3'; it must be of type int"),
        ({"options": {option: True}}, f"option {option} is True; it must be of type int"),
        ({"options": {option: 0}}, f"option {option} is 0; it must be at least 1"),
    ]
    for decimal in decimals[:1]:
        wrong.append(({"options": {decimal: float("nan")}}, f"option {decimal} is nan"))
        wrong.append(({"options": {decimal: -0.1}}, f"option {decimal} is -0.1"))
    for arguments, message in wrong:
        with pytest.raises(ConfigError, match=message):
            create(name, 3, **arguments)


def test_a_description_without_this_versions_options_is_refused(name):
    problem = make_problem(n=60)
    description, arrays = fitted_to(name, problem.X, problem.y, 3).state()
    older = {key: value for key, value in description.items() if key != "options"}
    more = description | {"options": {**description["options"], "unheard": 1}}
    for changed in (older, more):
        with pytest.raises(FormatError, match="train again"):
            get_class(name).from_state(changed, arrays)


@pytest.mark.parametrize("n_channels", [31, 46])
def test_the_networks_stay_small(name, n_channels):
    problem = make_problem(n_channels, 100, 5, n=20)
    if name in NETWORKS:
        assert fitted_to(name, problem.X, problem.y, 5).n_parameters <= 150_000


def test_a_class_that_training_lacks_is_never_preferred(name):
    problem = make_problem()
    y = np.where(problem.y == 1, 4, problem.y)  # labels 0, 2, 4 of 0 .. 5
    settings = QUICK if name == "gbt" else replace(QUICK, epochs=4)
    model = fitted_to(name, problem.X, y, 6, settings)
    probabilities = model.predict_proba(problem.X_val)
    assert probabilities.shape == (40, 6)
    assert np.isfinite(probabilities).all()
    assert set(probabilities.argmax(1)) <= {0, 2, 4}


def test_a_channel_without_values_and_a_constant_one_do_no_harm(name):
    problem = make_problem(n=60)
    problem.X[:, 3], problem.X[:, 4] = np.nan, 7.25
    model = fitted_to(name, problem.X, problem.y, 3)
    assert np.isfinite(model.predict_proba(problem.X)).all()


def test_a_case_without_a_single_value_gets_probabilities(name):
    probabilities = trained(name).predict_proba(np.full((2, 7, 33), np.nan, np.float32))
    assert np.isfinite(probabilities).all()


def test_a_channel_that_training_never_saw_is_ignored(name):
    problem = make_problem(n=60)
    problem.X[:, 2] = np.nan
    model = fitted_to(name, problem.X, problem.y, 3)
    with_values = problem.X_val.copy()
    with_values[:, 2] = 1000
    without = problem.X_val.copy()
    without[:, 2] = np.nan
    assert np.array_equal(model.predict_proba(with_values), model.predict_proba(without))
    view = WindowView.from_array(with_values)
    assert np.array_equal(model.predict_proba(view), model.predict_proba(without))


def coded_view(X):
    """(n_cases, n_channels, n_timepoints) as a coded series, an episode a case."""
    rows = X.transpose(0, 2, 1)
    low, high = (f(X, axis=2, initial=i, where=~np.isnan(X)) for f, i in EXTREMES)
    scale = np.where(high > low, (high - low) / STEPS, 0).astype(np.float32)
    base = np.where(high >= low, low, np.nan).astype(np.float32)
    with np.errstate(invalid="ignore", divide="ignore"):
        codes = np.nan_to_num((rows - base[:, None]) / scale[:, None]) + LEAST
    codes = np.where(np.isnan(rows), MISSING, np.rint(codes).clip(LEAST, -LEAST)).astype(np.int16)
    offset = np.arange(len(X) + 1) * X.shape[2]
    series = CodedSeries(codes.reshape(-1, X.shape[1]), offset, scale, base)
    return WindowView(series, offset[:-1], X.shape[2])


def test_codes_are_learned_from_and_judged_like_the_values_that_they_mean(name):
    problem = make_problem(n=60)
    problem.X[:, 2] = np.nan  # unseen: whatever a coded case reads there is hidden from the model
    views = coded_view(problem.X), coded_view(problem.X_val)
    plain = [WindowView.from_array(view.to_array()) for view in views]
    np.testing.assert_allclose(plain[0].to_array(), problem.X, atol=1e-4)
    for fitted in (
        fitted_to(name, plain[0], problem.y, 3),
        fitted_to(name, views[0], problem.y, 3),
    ):
        one, other = fitted.predict_proba(views[1]), fitted.predict_proba(plain[1])
        np.testing.assert_allclose(one, other, atol=1e-4)
        hidden = problem.X_val.copy()
        hidden[:, 2] = np.nan
        without = fitted.predict_proba(coded_view(hidden))
        np.testing.assert_array_equal(one, without)


def test_codes_of_infinite_values_are_refused(name):
    view = coded_view(make_problem(n=20).X)
    series = replace(view.series, base=np.where(view.series.base > 0, np.inf, view.series.base))
    with pytest.raises(InputError, match="infinite"):
        fitted_to(name, replace(view, series=series), np.arange(15) % 3, 3)


def test_val_is_judged_by_what_prediction_will_see(name):
    """A channel that training never saw is hidden from val too, or it would choose the epoch."""
    problem = make_problem()
    X, X_val = problem.X.copy(), problem.X_val.copy()
    X[:, 0] = np.nan
    X_val[:, 0] *= 1000
    hidden = X_val.copy()
    hidden[:, 0] = np.nan
    histories = [
        create(name, 3, settings=BRIEF).fit(X, problem.y, X_val=seen, y_val=problem.y_val).history
        for seen in (X_val, hidden)
    ]
    assert histories[0] == histories[1]


def test_one_case_and_none(name):
    model, X = trained(name), make_problem().X_val
    np.testing.assert_allclose(model.predict_proba(X[:1]), model.predict_proba(X)[:1], atol=1e-5)
    assert model.predict_proba(X[:0]).shape == (0, 3)
    assert model.embed(X[:0]).shape == (0, model.embedding_size)


def test_the_same_seed_gives_the_same_bytes_and_another_seed_others(name):
    problem = make_problem(n=60)
    once, again, other = (
        state_bytes(fitted_to(name, problem.X, problem.y, 3, seed=seed)) for seed in (5, 5, 6)
    )
    assert once == again
    assert (once != other) == (name != "threshold")  # which draws nothing of so few cases


def test_what_is_saved_predicts_the_same(name):
    model, X = trained(name), make_problem().X_val
    description, arrays = model.state()
    rebuilt = get_class(name).from_state(description, arrays)
    assert np.array_equal(rebuilt.predict_proba(X), model.predict_proba(X))
    assert np.array_equal(rebuilt.embed(X), model.embed(X))
    assert state_bytes(rebuilt) == state_bytes(model)


@pytest.mark.parametrize("shape", [(4, 6, 33), (4, 7, 32), (4, 8, 33)])
def test_other_channels_or_steps_than_in_training_are_refused(name, shape):
    with pytest.raises(InputError, match=r"trained on 7 x 33 .* but X has"):
        trained(name).predict_proba(np.zeros(shape, np.float32))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda X, y: (X[0], y), r"(must be|cases)"),
        (lambda X, y: (X[None], y), "must be"),
        (lambda X, y: (X, y[:-1]), r"60 cases, but y is of shape \(59,\)"),
        (lambda X, y: (X, y.astype(float)), "integer"),
        (lambda X, y: (X, y + 1), r"0 \.\. 2"),
        (lambda X, y: (X, y - 1), r"0 \.\. 2"),
        (lambda X, y: (X, y * 0), "single class"),
        (lambda X, y: (X[:0], y[:0]), "not one case"),
        (lambda X, y: (X[:, :, :0], y), "nothing to learn from"),
        (lambda X, y: (np.where(X > 8, np.inf, X), y), "infinite"),
    ],
)
def test_arrays_that_cannot_be_used_are_refused_in_words(name, change, message):
    problem = make_problem(n=80)
    problem.X[0, 0, 0] = 9
    X, y = change(problem.X, problem.y)
    with pytest.raises(InputError, match=message):
        fitted_to(name, X, y, 3)


def test_an_unfitted_model_says_so(name):
    model = create(name, 3)
    for call in (model.predict_proba, model.embed):
        with pytest.raises(Cis490Error, match="not fitted"):
            call(np.zeros((1, 2, 3), np.float32))
    with pytest.raises(Cis490Error, match="not fitted"):
        model.state()


def test_the_history_has_a_row_an_epoch_and_the_best_one_is_known(name):
    model = trained(name)
    assert [row["epoch"] for row in model.history] == list(range(1, len(model.history) + 1))
    key = "val_loss" if name == "gbt" else "val_macro_f1"
    values = [row[key] for row in model.history]
    best = values[model.best_epoch - 1]
    assert best == (min(values) if name == "gbt" else max(values))


def test_without_val_the_last_weights_are_kept_and_val_columns_are_empty(name):
    problem = make_problem(n=60)
    model = fitted_to(name, problem.X, problem.y, 3, replace(QUICK, epochs=2))
    assert model.best_epoch == len(model.history)
    assert {row["val_loss"] for row in model.history} == {None}
    assert {row["val_macro_f1"] for row in model.history} == {None}


def test_val_of_foreign_classes_counts_as_none(name):
    problem = make_problem(n=60)
    model = create(name, 5, settings=BRIEF)
    model.fit(problem.X, problem.y, X_val=problem.X, y_val=np.full(45, 4))
    assert {row["val_loss"] for row in model.history} == {None}


def test_source_dropout_teaches_to_live_without_the_best_channel(name):
    rng = np.random.default_rng(3)
    y = np.arange(120) % 2
    X = rng.normal(size=(120, 4, 20)).astype(np.float32)
    X[:, 0] += 6 * y[:, None]  # the easy source, which a test host may lack
    X[:, 1] += 0.7 * y[:, None]
    settings = replace(QUICK, source_dropout={"easy": 0.5, "not there": 0.5})
    columns = Columns.plain(4, groups={"easy": [0], "hard": [1, 2, 3], "empty": []})
    model = create(name, 2, settings=settings, columns=columns).fit(X, y)
    X[:, 0] = np.nan
    assert (model.predict_proba(X).argmax(1) == y).mean() > 0.8


def test_columns_of_another_width_are_refused(name):
    problem = make_problem(n=20)
    with pytest.raises(InputError, match="columns tell of 3"):
        fitted_to(name, problem.X, problem.y, 3, columns=Columns.plain(3))
