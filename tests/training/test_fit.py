"""Networks through `Training`: seeds that share their data, rates that are found, states kept."""

import io
from dataclasses import replace

import numpy as np
import pytest
import torch

from cis490 import hardware
from cis490.models import FitSettings, create, get_class, network
from cis490.training import finder, fit, memory
from cis490.training.batches import Batches
from cis490.training.finder import RateCache
from cis490.training.ladder import RESEED_OFFSET
from cis490.training.loop import TrainingFailed
from cis490.training.run import Run
from cis490.training.state import State
from tests.models.problems import make_problem

NETWORKS = ("mlp", "cnn", "gru", "lstm", "transformer")
BRIEF = FitSettings(epochs=3, batch_size=16, learning_rate=0.003)
AUTO = replace(BRIEF, learning_rate="auto")


def prepared(model, problem, run=None):
    val = {"X_val": problem.X_val, "y_val": problem.y_val}
    return model.prepare(problem.X, problem.y, **val, run=run)


def bits(model):
    return {name: array.tobytes() for name, array in model.state()[1].items()}


def trained(name="mlp", *, seed=42, settings=BRIEF, run=None, problem=None):
    model = create(name, 3, seed=seed, settings=settings)
    return model.fit_prepared(prepared(model, problem or make_problem(), run), run)


def test_seeds_that_share_prepared_data_train_as_if_each_had_its_own(monkeypatch):
    problem = make_problem()
    alone = [bits(trained("cnn", seed=seed, problem=problem)) for seed in (42, 7)]
    made = []
    init = Batches.__init__
    monkeypatch.setattr(Batches, "__init__", lambda *a, **k: (made.append(1), init(*a, **k))[1])
    first = create("cnn", 3, settings=BRIEF)
    shared = prepared(first, problem)
    models = [create("cnn", 3, seed=seed, settings=BRIEF) for seed in (42, 7)]
    assert [bits(model.fit_prepared(shared)) for model in models] == alone
    assert len(made) == 2  # train and val, once
    assert alone[0] != alone[1]


@pytest.mark.parametrize("name", ["mlp", "gru"])
def test_a_found_rate_trains_the_same_model_whether_it_was_remembered_or_not(tmp_path, name):
    run = Run(data="d", code="c", rates=RateCache(tmp_path, 168))
    torch.manual_seed(5)
    state = torch.get_rng_state()
    missed = trained(name, settings=AUTO, run=run)
    assert torch.equal(torch.get_rng_state(), state)
    (file,) = tmp_path.iterdir()
    written = file.stat().st_mtime_ns
    hit = trained(name, settings=AUTO, run=run)
    assert file.stat().st_mtime_ns == written
    without = trained(name, settings=AUTO)
    assert bits(missed) == bits(hit) == bits(without)
    assert missed.chosen == hit.chosen
    assert missed.chosen["learning_rate_from"] == "range test"
    told = trained(name, settings=replace(AUTO, learning_rate=missed.chosen["learning_rate"]))
    assert bits(told) == bits(missed)
    assert told.chosen["learning_rate_from"] == "config"


def test_a_remembered_rate_is_not_searched_for(tmp_path, monkeypatch):
    run = Run(data="d", code="c", rates=RateCache(tmp_path, 168))
    trained(settings=AUTO, run=run)

    def searched(*_args, **_options):
        raise AssertionError

    monkeypatch.setattr(finder, "range_test", searched)
    trained(settings=AUTO, run=run)
    for changes in (
        {"run": replace(run, data="e")},
        {"run": replace(run, code="e")},
        {"settings": replace(AUTO, batch_size=32)},
        {"settings": replace(AUTO, weight_decay=0.1)},
        {"settings": replace(AUTO, imbalance="none")},
        {"settings": replace(AUTO, precision="bfloat16")},
        {"name": "gru"},
    ):
        with pytest.raises(AssertionError):
            trained(**{"settings": AUTO, "run": run} | changes)
    trained(settings=replace(AUTO, epochs=2, patience=1), run=run, seed=7)  # no part of it


def test_where_no_rate_is_suggested_the_fallback_is_used_and_not_remembered(tmp_path, monkeypatch):
    monkeypatch.setattr(finder, "suggest", lambda _: None)
    run = Run(data="d", code="c", rates=RateCache(tmp_path, 168))
    model = trained(settings=AUTO, run=run)
    assert model.chosen["learning_rate"] == fit.FALLBACK_RATE
    assert model.chosen["learning_rate_from"] == "fallback"
    assert list(tmp_path.iterdir()) == []


class Killed(BaseException):
    """As from outside: nothing of ours may catch it."""


def killed_after(monkeypatch, steps):
    """Let the process die in the step after so many."""
    left = iter(range(steps))
    step = fit.Stepper.step

    def dying(self, *arguments):
        if next(left, None) is None:
            raise Killed
        return step(self, *arguments)

    monkeypatch.setattr(fit.Stepper, "step", dying)


@pytest.mark.parametrize(
    ("name", "steps"),
    [*(("mlp", steps) for steps in (0, 3, 8, 17, 23)), *((name, 13) for name in NETWORKS[1:])],
)
def test_a_killed_training_goes_on_and_ends_with_the_same_weights(
    tmp_path, monkeypatch, name, steps
):
    """Eight steps an epoch: killed before the first, within one and between two."""
    run = Run(data="d", code="c", folder=tmp_path)
    whole = trained(name)
    with monkeypatch.context() as context:
        killed_after(context, steps)
        with pytest.raises(Killed):
            trained(name, run=run)
    rows = []
    resumed = trained(name, run=replace(run, listen=rows.append))
    assert bits(resumed) == bits(whole)
    assert resumed.history == whole.history
    assert resumed.best_epoch == whole.best_epoch
    assert len(rows) == 3 - steps // 8  # no epoch that had ended is made again


def test_a_finished_seed_is_not_trained_again_when_a_later_one_was_killed(tmp_path, monkeypatch):
    run = Run(data="d", code="c", folder=tmp_path)
    first = trained(run=run)
    monkeypatch.setattr(fit.Stepper, "step", None)
    assert bits(trained(run=run)) == bits(first)


@pytest.mark.parametrize(
    "changes",
    [
        {"run": {"data": "e"}},
        {"run": {"code": "e"}},
        {"settings": {"epochs": 4}},
        {"settings": {"patience": 1}},
        {"settings": {"learning_rate": 0.004}},
    ],
)
def test_the_state_of_other_data_code_or_settings_is_not_used(tmp_path, monkeypatch, changes):
    run = Run(data="d", code="c", folder=tmp_path)
    with monkeypatch.context() as context:
        killed_after(context, 20)
        with pytest.raises(Killed):
            trained(run=run)
    other = replace(run, **changes.get("run", {}))
    settings = replace(BRIEF, **changes.get("settings", {}))
    assert bits(trained(run=other, settings=settings)) == bits(trained(settings=settings))


@pytest.mark.parametrize("content", [b"", b"torn", b"\x80\x04K\x01."])
def test_a_damaged_state_is_said_and_training_begins_anew(tmp_path, caplog, content):
    run = Run(data="d", code="c", folder=tmp_path)
    (tmp_path / "seed-42.pt").write_bytes(content)
    assert bits(trained(run=run)) == bits(trained())
    assert "seed-42.pt is damaged" in caplog.text


def test_a_state_holds_tensors_and_plain_values_only(tmp_path):
    trained(run=Run(folder=tmp_path))
    content = (tmp_path / "seed-42.pt").read_bytes()[32:]
    assert torch.load(io.BytesIO(content), weights_only=True)["best"]


def broken(monkeypatch, seeds):
    """Let every loss of trainings that begin with one of `seeds` be NaN."""
    init = State.__init__

    def breaking(self, net, stepper, monitor, stopping, generator, *rest):
        if generator.initial_seed() in seeds:
            with torch.no_grad():
                next(net.parameters()).fill_(torch.nan)
        init(self, net, stepper, monitor, stopping, generator, *rest)

    monkeypatch.setattr(State, "__init__", breaking)


def test_a_seed_that_collapses_at_each_rung_trains_from_another(monkeypatch):
    settings = replace(BRIEF, epochs=10)
    broken(monkeypatch, {42})
    model = trained(settings=settings)
    assert [event["action"] for event in model.events][-1] == "reseed"
    assert model.chosen["seed"] == 42 + RESEED_OFFSET
    assert model.best["attempt"] == 2
    assert {row["attempt"] for row in model.history} == {1, 2}
    other = trained(seed=42 + RESEED_OFFSET, settings=settings)
    assert bits(model) == bits(other)


def test_a_training_killed_after_a_reseed_goes_on_there(tmp_path, monkeypatch):
    settings = replace(BRIEF, epochs=10)
    broken(monkeypatch, {42})
    whole = trained(settings=settings)
    run = Run(data="d", code="c", folder=tmp_path)
    with monkeypatch.context() as context:
        killed_after(context, 5 * 8 + 20)
        with pytest.raises(Killed):
            trained(settings=settings, run=run)
    resumed = trained(settings=settings, run=run)
    assert bits(resumed) == bits(whole)
    assert resumed.history == whole.history
    assert resumed.events == whole.events


def test_a_seed_whose_second_start_collapses_too_fails_and_shows_its_history(monkeypatch):
    broken(monkeypatch, {42, 42 + RESEED_OFFSET})
    model = create("mlp", 3, settings=replace(BRIEF, epochs=10))
    with pytest.raises(TrainingFailed, match="the training loss is nan"):
        model.fit_prepared(prepared(model, make_problem()))
    assert len(model.history) == 10
    assert model.events[-1]["action"] == "fail"


@pytest.mark.parametrize("name", NETWORKS)
def test_pieces_of_batches_train_what_whole_batches_do(name):
    """But for dropout, whose masks are drawn for other shapes."""
    dropouts = [option for option in get_class(name).presets["small"] if "dropout" in option]
    options = dict.fromkeys(dropouts, 0.0)
    problem = make_problem()
    found = []
    for micro_batch in (16, 5):
        settings = replace(BRIEF, epochs=1, micro_batch=micro_batch)
        model = create(name, 3, settings=settings, options=options)
        model.fit(problem.X, problem.y)
        assert model.chosen["micro_batch"] == micro_batch
        found.append(model.predict_proba(problem.X_val))
    np.testing.assert_allclose(*found, atol=2e-3)


def test_a_machine_short_of_memory_works_batches_off_in_pieces(monkeypatch):
    whole = trained("cnn")
    assert whole.chosen["micro_batch"] == 16
    free = {}

    def needed(net, loss, x, y):
        free["each"] = memory_needed(net, loss, x, y)
        return free["each"]

    memory_needed = memory._kept_bytes
    monkeypatch.setattr(memory, "_kept_bytes", needed)
    monkeypatch.setattr(memory, "available_memory", lambda: 10**12)
    trained("cnn")
    a_case = 2 * free["each"] / memory.SAMPLED
    # For nine cases, of which a fifth stays free: not for eight.
    monkeypatch.setattr(memory, "available_memory", lambda: int(9 * a_case))
    model = trained("cnn")
    assert model.chosen["micro_batch"] == 4
    override = replace(BRIEF, micro_batch=16)
    assert trained("cnn", settings=override).chosen["micro_batch"] == 16


def test_the_bytes_that_a_backward_pass_needs_grow_with_the_cases():
    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(100, 50), torch.nn.GELU())
    net.append(torch.nn.Linear(50, 3))
    loss = fit.Loss(np.array([0, 1, 2]), 3, BRIEF)
    x, y = torch.randn(64, 100), torch.zeros(64, dtype=torch.int64)
    one, four = (memory._kept_bytes(net, loss, x[:n], y[:n]) for n in (8, 32))
    assert 8 * 4 * (100 + 50 + 50) <= one <= 8 * 4 * 400
    assert four == pytest.approx(4 * one, rel=0.05)
    assert all(parameter.grad is None for parameter in net.parameters())


def test_available_memory_is_the_least_of_the_machine_and_its_cgroup(tmp_path, monkeypatch):
    machine = hardware.available_memory()
    assert 2**20 < machine < 2**50
    limit, used = tmp_path / "max", tmp_path / "current"
    monkeypatch.setattr(hardware, "_CGROUP", ((limit, used),))
    for text, wanted in (("max", machine), ("5000", 1000), ("3000", 0)):
        limit.write_text(text)
        used.write_text("4000")
        found = hardware.available_memory()
        assert found == (pytest.approx(machine, rel=0.2) if text == "max" else wanted)


@pytest.mark.parametrize("imbalance", ["weighted", "focal", "smoothing", "balanced", "none"])
@pytest.mark.parametrize("name", ["mlp", "gbt"])
def test_every_treatment_of_imbalance_trains(name, imbalance):
    problem = make_problem()
    settings = replace(BRIEF, epochs=10, imbalance=imbalance)
    model = create(name, 3, settings=settings).fit(problem.X, problem.y)
    assert (model.predict_proba(problem.X).argmax(1) == problem.y).mean() > 0.6
    assert model.events == []


def test_balanced_batches_show_every_class_alike(monkeypatch):
    seen = []
    step = fit.Stepper.step
    monkeypatch.setattr(
        fit.Stepper,
        "step",
        lambda self, batch, rate: (seen.append(batch.y), step(self, batch, rate))[1],
    )
    rng = np.random.default_rng(0)
    y = np.array([0] * 190 + [1] * 10)
    model = create("mlp", 2, settings=replace(BRIEF, imbalance="balanced"))
    model.fit(rng.normal(size=(200, 4)).astype(np.float32), y)
    assert torch.cat(seen).float().mean().item() == pytest.approx(0.5, abs=0.06)


def test_what_fits_has_no_say_in_the_rate_that_is_found():
    """A rate remembered of the one is used for the other, so both must find the same."""
    found = [
        prepared(create("cnn", 3, settings=replace(AUTO, micro_batch=size)), make_problem())
        for size in ("auto", 16)
    ]
    one, other = (ready.data.chosen for ready in found)
    assert one["learning_rate_from"] == "range test"
    assert one == other


def test_a_seed_that_failed_says_what_was_chosen_for_it(monkeypatch):
    broken(monkeypatch, {42, 42 + RESEED_OFFSET})
    model = create("mlp", 3, settings=replace(BRIEF, epochs=10))
    with pytest.raises(TrainingFailed):
        model.fit_prepared(prepared(model, make_problem()))
    assert (model.chosen["learning_rate"], model.chosen["micro_batch"]) == (0.003, 16)


def test_val_may_take_half_of_what_the_training_windows_leave(monkeypatch):
    left = iter([10**9, 10])
    monkeypatch.setattr(network, "series_budget", lambda _: next(left))
    ready = prepared(create("cnn", 3, settings=BRIEF), make_problem()).data
    assert ready.train.resident
    assert not ready.val.resident


def test_the_state_of_another_rate_that_was_found_is_not_used(tmp_path, monkeypatch):
    """The settings are the same; what they come to need not be."""
    run = Run(data="d", code="c", folder=tmp_path)
    monkeypatch.setattr(finder, "range_test", lambda _: None)
    with monkeypatch.context() as context:
        context.setattr(finder, "suggest", lambda _: 0.003)
        killed_after(context, 20)
        with pytest.raises(Killed):
            trained(settings=AUTO, run=run)
    monkeypatch.setattr(finder, "suggest", lambda _: 0.004)
    assert bits(trained(settings=AUTO, run=run)) == bits(trained(settings=AUTO))


def test_where_even_judging_does_not_fit_the_job_ends_and_no_seed_is_called_failed(monkeypatch):
    def judged(*_):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr("cis490.training.loop.judge", judged)
    with pytest.raises(MemoryError, match="CUDA out of memory"):
        trained()
