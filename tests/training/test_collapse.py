import json

import numpy as np
import pytest
import torch

from cis490 import files
from cis490.training.collapse import (
    SKIPS,
    UNSOLVED,
    WINDOW_SAMPLES,
    WINDOW_STEPS,
    Collapse,
    Kind,
    Monitor,
)
from cis490.training.ladder import Action, Ladder, report
from tests.training.runs import (
    AT_A_STEP,
    FROM_THE_START,
    Setup,
    broken,
    chance_loss,
    healthy,
    record,
)

KINDS = {
    "labels": {Kind.ONE_CLASS},
    "labels_and_counts": {Kind.ONE_CLASS},
    "nan_input": {Kind.NON_FINITE_LOSS},
    "nan_weight": {Kind.NON_FINITE_LOSS},
    "infinite_loss": {Kind.NON_FINITE_LOSS},
    "frozen": {Kind.DEAD_GRADIENT},
    "exploding": {Kind.EXPLODING_GRADIENT},
    "spike": {Kind.LOSS_SPIKE},
}
CHANCE = float(np.log(2))
WINDOW = WINDOW_SAMPLES // 16  # steps
TABLE = np.array([[6, 2], [2, 6]])  # of a batch of 16


@pytest.fixture
def long(request: pytest.FixtureRequest) -> bool:
    return bool(request.config.getoption("--long"))


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def monitor(**changed) -> Monitor:
    even = {"counts": np.array([50, 50]), "weights": np.ones(2)}
    options = {**even, "batch_size": 16, "warm_up_steps": 10, **changed}
    chance = chance_loss(options["counts"], options["weights"])
    return Monitor(**{"chance": chance, **options})


def feed(to: Monitor, losses, norms=1.0, skipped=False, table=TABLE, start=0) -> Collapse | None:
    losses = np.atleast_1d(np.asarray(losses, float))
    n = len(losses)
    norms, skipped = np.broadcast_to(norms, n), np.broadcast_to(skipped, n)
    return to.steps(1, start + n, losses, norms, skipped, np.broadcast_to(table, (n, 2, 2)))


def noisy(level: float, n: int, seed: int = 0) -> np.ndarray:
    """Losses about `level` that vary as those of small batches do."""
    return level * np.exp(np.random.default_rng(seed).normal(scale=0.3, size=n))


# Healthy but odd


def test_no_healthy_training_is_stopped(long):
    for seed in range(200 if long else 20):
        run = record(healthy(seed, most_steps=1500 if long else 200))
        assert run.judge() is None, run.setup


def test_a_loss_that_falls_to_zero_and_takes_the_gradients_along_is_success():
    losses = CHANCE * np.exp(-np.arange(2000) / 50)
    assert feed(monitor(), losses, norms=losses) is None


def test_gradients_of_zero_where_no_case_has_weight_are_not_dead():
    judge = monitor()
    feed(judge, noisy(CHANCE, 40))
    assert feed(judge, np.zeros(200), norms=0.0) is None


def test_a_training_that_learns_nothing_and_predicts_the_larger_class_has_not_collapsed():
    rare = {"counts": np.array([97, 3]), "weights": np.array([0.5, 8.0])}
    judge = monitor(**rare)
    chance = chance_loss(rare["counts"], rare["weights"])
    larger = np.array([[15, 0], [1, 0]])
    for epoch in range(30):
        assert feed(judge, noisy(chance, 100, epoch), table=larger, start=100 * epoch) is None
        step = 100 * (epoch + 1)
        assert (
            judge.epoch(epoch, step, 5 * chance, np.array([97, 3]), np.array([100, 0]), 0.02)
            is None
        )


def test_a_hard_batch_now_and_then_is_no_spike():
    losses, norms = noisy(0.05, 2000), noisy(0.1, 2000)
    losses[::16] = 50
    norms[::16] = 1e5
    assert feed(monitor(), losses, norms) is None


def test_first_weights_worse_than_chance_have_time_to_come_down():
    assert feed(monitor(), 20 * CHANCE * np.exp(-np.arange(1000) / 200)) is None


def test_a_val_of_one_class_may_be_predicted_as_one_class():
    judge = monitor()
    for epoch in range(20):
        feed(judge, noisy(CHANCE, WINDOW, epoch))
        assert judge.epoch(epoch, 1, CHANCE, np.array([9, 0]), np.array([9, 0]), 0.0) is None


@pytest.mark.parametrize("losses", [[1.0, 50.0, 60.0], [90.0, 80.0, 100.0]])
def test_three_steps_are_no_evidence(losses):
    assert feed(monitor(warm_up_steps=1), losses, norms=[1.0, 0.0, 1e9]) is None


def test_fourteen_small_batches_are_no_evidence():
    judge = monitor()
    feed(judge, noisy(CHANCE, 100))
    one = np.array([[16, 0], [0, 0]])
    assert feed(judge, np.full(14, 100.0), norms=0.0, table=one) is None


def test_one_batch_an_epoch_is_judged_by_steps_not_samples():
    """A set of 600 is a window by its samples, but one step is no evidence."""
    judge = monitor(batch_size=600, warm_up_steps=1)
    feed(judge, noisy(CHANCE, 8))
    assert feed(judge, np.full(3, 100.0)) is None
    assert feed(judge, np.full(5, 100.0)).kind == Kind.LOSS_SPIKE


def test_steps_that_the_scaler_skips_now_and_then_are_expected():
    skipped = np.arange(400) % 4 == 0
    norms = np.where(skipped, np.inf, 1.0)
    assert feed(monitor(), noisy(CHANCE, 400), norms, skipped) is None


# Collapses


@pytest.mark.parametrize("fault", [f for f in (*FROM_THE_START, *AT_A_STEP) if f in KINDS])
def test_each_fault_is_caught_in_bounded_time(fault, long):
    for seed in range(50 if long else 2):
        run = record(broken(fault, seed))
        found = run.judge()
        if found is None and fault in ("frozen", "exploding"):
            chance = chance_loss(run.counts, run.weights)
            assert np.median(run.losses[-WINDOW:]) <= UNSOLVED * chance  # nothing left to learn
            continue
        if found is None and fault == "spike":  # a head that knows little costs little, turned
            rise = np.mean(run.losses[-WINDOW:]) - np.mean(run.losses[: run.setup.fault_step])
            assert rise < chance_loss(run.counts, run.weights)
            continue
        assert found is not None, run.setup
        assert found.kind in KINDS[fault], found.reason
        assert found.step <= run.setup.fault_step + 100


def test_a_rate_a_thousand_times_too_high_is_caught_where_nothing_is_learnt(long):
    """Networks with norms, and shallow ones, often learn at that rate; those need no help."""
    harmed = caught = 0
    for seed in range(100) if long else range(3, 8):
        run = record(broken("rate", seed))
        if np.mean(run.losses[-16:]) > 0.9 * chance_loss(run.counts, run.weights):
            harmed += 1
            caught += run.judge() is not None
    assert harmed >= (30 if long else 1)
    assert caught >= 0.9 * harmed


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_loss_that_is_not_finite_is_seen_at_its_step(value):
    found = feed(monitor(), [0.7, 0.6, value, 0.5], start=40)
    assert (found.kind, found.epoch, found.step) == (Kind.NON_FINITE_LOSS, 1, 43)
    assert found.measured == {"loss": str(value)}


def test_a_val_loss_that_is_not_finite_is_seen():
    found = monitor().epoch(3, 9, np.nan, np.array([1, 1]), np.array([1, 1]), np.nan)
    assert (found.kind, found.epoch, found.step) == (Kind.NON_FINITE_LOSS, 3, 9)


def test_a_gradient_that_is_not_finite_counts_only_where_the_step_was_made():
    norms = [1.0, np.nan, 1.0]
    assert feed(monitor(), np.ones(3), norms, [False, True, False]) is None
    found = feed(monitor(), np.ones(3), norms)
    assert (found.kind, found.step) == (Kind.NON_FINITE_GRADIENT, 2)


def test_a_loss_that_is_not_finite_counts_though_the_scaler_skipped_the_step():
    assert feed(monitor(), [1.0, np.nan], skipped=[False, True]).kind == Kind.NON_FINITE_LOSS


def test_too_many_skipped_steps_in_a_row_are_a_collapse():
    assert feed(monitor(), np.ones(SKIPS - 1), np.inf, True) is None
    found = feed(monitor(), np.ones(SKIPS), np.inf, True)
    assert (found.kind, found.step) == (Kind.NON_FINITE_GRADIENT, SKIPS)


def test_gradients_that_vanish_while_the_loss_stays_are_dead():
    judge = monitor()
    assert feed(judge, noisy(CHANCE, 100)) is None
    found = feed(judge, noisy(CHANCE, 2 * WINDOW), norms=1e-9, start=100)
    assert found.kind == Kind.DEAD_GRADIENT
    assert found.step <= 100 + 1.25 * WINDOW


@pytest.mark.parametrize(("before", "after"), [(1.0, 500.0), (1e-3, 5.0)])
def test_gradients_that_grow_and_stay_are_exploding(before, after):
    judge = monitor()
    feed(judge, noisy(0.5, 40), norms=1.0)
    assert feed(judge, noisy(0.5, 100), norms=before, start=40) is None
    found = feed(judge, noisy(0.5, WINDOW), norms=after, start=140)
    assert found.kind == Kind.EXPLODING_GRADIENT
    assert found.step <= 140 + WINDOW


def test_a_loss_far_above_chance_that_stays_is_a_spike():
    judge = monitor()
    feed(judge, noisy(0.5, 100))
    found = feed(judge, noisy(10.0, WINDOW), start=100)
    assert found.kind == Kind.LOSS_SPIKE
    assert found.step <= 100 + WINDOW


def test_what_was_learnt_and_is_lost_is_a_spike_though_it_is_only_back_at_chance():
    judge = monitor()
    feed(judge, noisy(0.02, 100))
    found = feed(judge, np.full(2 * WINDOW, CHANCE), start=100)
    assert found.kind == Kind.LOSS_SPIKE
    assert found.step <= 100 + 1.25 * WINDOW


def test_outputs_that_do_not_depend_on_the_input_are_a_collapse_once_they_last():
    judge, truth, one = monitor(), np.array([5, 5]), np.array([10, 0])
    feed(judge, noisy(CHANCE, 100))
    assert judge.epoch(1, 100, CHANCE, truth, one, 1e-6) is None
    feed(judge, noisy(CHANCE, WINDOW_STEPS - 1), start=100)
    assert judge.epoch(2, 115, CHANCE, truth, one, 1e-6) is None
    feed(judge, noisy(CHANCE, 1), start=115)
    assert judge.epoch(3, 116, CHANCE, truth, one, 0.02) is None
    assert judge.epoch(3, 116, CHANCE, truth, one, 1e-6).kind == Kind.ONE_CLASS


def test_outputs_that_tell_classes_apart_again_are_forgiven():
    judge, truth = monitor(), np.array([5, 5])
    for epoch in range(1, 7):
        feed(judge, noisy(CHANCE, WINDOW))
        constant = epoch % 2 == 0
        found = np.array([10, 0]) if constant else np.array([9, 1])
        spread = 1e-6 if constant else 0.5
        assert judge.epoch(epoch, epoch * WINDOW, CHANCE, truth, found, spread) is None


def test_outputs_may_be_constant_while_the_rate_warms_up():
    """A head that starts at zero gives the same for every input."""
    judge, truth, one = monitor(warm_up_steps=200), np.array([5, 5]), np.array([10, 0])
    for epoch in range(1, 4):
        feed(judge, noisy(CHANCE, WINDOW))
        assert judge.epoch(epoch, epoch * WINDOW, CHANCE, truth, one, 0.0) is None


def test_one_class_at_a_loss_which_the_labels_do_not_permit_is_a_collapse():
    """Half of the labels are of the other class; each costs log 2 or more if not predicted."""
    one = np.array([[8, 0], [8, 0]])
    assert feed(monitor(), np.full(100, 0.5), table=one) is None
    assert feed(monitor(), np.full(100, 0.02), table=one).kind == Kind.ONE_CLASS


def test_labels_of_one_class_are_seen_before_anything_is_learnt_of_them():
    one = np.array([[8, 8], [0, 0]])
    found = feed(monitor(warm_up_steps=1000), noisy(CHANCE, 100), table=one)
    assert (found.kind, found.step) == (Kind.ONE_CLASS, WINDOW)


def test_a_rare_class_may_be_absent_for_long():
    rare = {"counts": np.array([999, 1]), "weights": np.array([0.5, 8.0])}
    one = np.array([[16, 0], [0, 0]])
    assert feed(monitor(**rare), np.full(1200, 1e-4), table=one) is None
    assert feed(monitor(**rare), np.full(1300, 1e-4), table=one).kind == Kind.ONE_CLASS


def test_a_collapse_tells_its_figures_and_the_bound():
    judge = monitor()
    feed(judge, np.full(WINDOW, CHANCE))
    found = feed(judge, np.full(WINDOW, 2.0), start=WINDOW)
    figures = found.measured
    assert figures["chance"] == pytest.approx(CHANCE)
    assert figures["bound"] == pytest.approx(1.8 * CHANCE)
    assert figures["bound"] < figures["loss"] < 2
    assert f"is {figures['loss']:.3g}, above 1.25" in found.reason
    assert f"(epoch 1, step {found.step})" in found.reason


def test_with_label_smoothing_what_counts_is_above_the_least_loss():
    judge = monitor(chance=0.9, floor=0.3)
    feed(judge, noisy(0.9, 40))
    assert feed(judge, np.full(200, 0.3), norms=0.0) is None
    found = feed(monitor(chance=0.9, floor=0.3), np.repeat([0.9, 1.8], WINDOW))
    assert found.measured["chance"] == pytest.approx(0.6)


# Chunks, restarts and resumes


@pytest.fixture(scope="module")
def runs():
    setups = [Setup(seed=1), Setup(seed=2, batch_size=64, epochs=20)]
    setups += [broken(fault, 3) for fault in (*KINDS, "rate")]
    return [record(setup) for setup in setups]


@pytest.mark.parametrize("chunk", [1, 7])
def test_the_answer_does_not_depend_on_how_steps_are_grouped(runs, chunk):
    assert sum(run.judge() is not None for run in runs) >= len(KINDS)
    for run in runs:
        assert run.judge(chunk=chunk) == run.judge()


class Resumed:
    """A monitor that is saved as JSON and made anew after each call."""

    def __init__(self, make) -> None:
        self.make, self.saved = make, json.dumps(make().state())

    def _call(self, name, *arguments):
        judge = self.make()
        judge.restore(json.loads(self.saved))
        found = getattr(judge, name)(*arguments)
        self.saved = json.dumps(judge.state(), allow_nan=False)
        return found

    def steps(self, *arguments):
        return self._call("steps", *arguments)

    def epoch(self, *arguments):
        return self._call("epoch", *arguments)


def test_a_monitor_that_is_saved_and_restored_goes_on_as_if_it_had_not_been(runs):
    for run in runs:
        assert run.judge(Resumed(run.monitor), chunk=9) == run.judge()


def test_after_a_reset_windows_and_warm_up_begin_anew():
    judge = monitor()
    feed(judge, noisy(0.02, 100))
    assert feed(judge, np.full(2 * WINDOW, CHANCE)) is not None
    judge.reset()
    assert feed(judge, np.full(200, CHANCE)) is None  # lost by no one since the reset
    judge.reset()
    assert feed(judge, np.full(10 + WINDOW - 1, 50.0)) is None
    assert feed(judge, np.full(WINDOW, 50.0)).kind == Kind.LOSS_SPIKE


def test_a_restored_monitor_keeps_the_grace_of_a_reset():
    judge, resumed = monitor(), monitor()
    judge.reset()
    resumed.restore(json.loads(json.dumps(judge.state())))
    assert feed(resumed, np.full(10 + WINDOW - 1, 50.0)) is None


# The ladder

COLLAPSE = Collapse(Kind.NON_FINITE_LOSS, 2, 30, "the training loss is nan", {"loss": "nan"})
RUNGS = [Action.RESTORE, Action.HALVE, Action.HALVE, Action.HALVE]


def test_the_ladder_ends():
    ladder, seen = Ladder(42), []
    while Action.FAIL not in seen:
        seen.append(ladder.act(COLLAPSE))
    assert seen == [*RUNGS, Action.RESEED, *RUNGS, Action.FAIL]


def test_seed_rate_and_outcome_follow_the_ladder():
    ladder = Ladder(42)
    assert (ladder.seed, ladder.rate_factor, ladder.outcome) == (42, 1, "healthy")
    ladder.act(COLLAPSE)
    assert (ladder.seed, ladder.rate_factor, ladder.outcome) == (42, 1, "recovered")
    for factor in (0.5, 0.25, 0.125):
        ladder.act(COLLAPSE)
        assert (ladder.seed, ladder.rate_factor, ladder.outcome) == (42, factor, "recovered")
    ladder.act(COLLAPSE)
    assert (ladder.rate_factor, ladder.outcome) == (1, "reseeded")
    assert ladder.seed not in (42, 2025, 7)
    for _ in range(5):
        ladder.act(COLLAPSE)
    assert ladder.outcome == "failed"


def test_a_ladder_is_resumed_from_json():
    ladder = Ladder(42)
    for _ in range(6):
        ladder.act(COLLAPSE)
    resumed = Ladder(42)
    resumed.restore(json.loads(files.to_json(ladder.state())))
    assert (resumed.seed, resumed.rate_factor) == (ladder.seed, ladder.rate_factor)
    assert resumed.act(COLLAPSE) == ladder.act(COLLAPSE) == Action.HALVE
    one, other = (report({42: (each, None)}) for each in (resumed, ladder))
    assert files.to_json(one) == files.to_json(other)


def test_the_report_tells_of_each_seed_the_healthy_ones_too():
    seeds = {42: (Ladder(42), None), 7: (Ladder(7), None), 3: (Ladder(3), "bad luck")}
    seeds[7][0].act(COLLAPSE)
    told = json.loads(files.to_json(report(seeds)))
    assert told["42"] == {
        "outcome": "healthy",
        "reason": None,
        "trained_with": {"seed": 42, "rate_factor": 1.0},
        "events": [],
    }
    assert (told["3"]["outcome"], told["3"]["reason"]) == ("failed", "bad luck")
    assert told["7"]["outcome"] == "recovered"
    assert told["7"]["events"] == [
        {
            "kind": "non_finite_loss",
            "epoch": 2,
            "step": 30,
            "reason": "the training loss is nan",
            "measured": {"loss": "nan"},
            "seed": 7,
            "action": "restore",
        }
    ]
