"""The loop: what its history tells, which weights it keeps, when it stops, what a collapse does."""

import numpy as np
import pytest
import torch
from torch import nn

from cis490.models import FitSettings
from cis490.models.views import WindowView
from cis490.training import loop
from cis490.training.batches import Batches
from cis490.training.collapse import Collapse, Kind, Monitor
from cis490.training.ladder import RUNGS, Ladder
from cis490.training.loop import AnotherSeed, Judged, TrainingFailed, judge, train_network
from cis490.training.losses import Loss
from cis490.training.run import Run
from cis490.training.schedule import EarlyStopping, learning_rate_factor
from cis490.training.state import Kept, State
from cis490.training.step import Stepper

CPU = torch.device("cpu")
GOOD = Judged(1.0, 0.5, np.array([10, 10]), np.array([10, 10]), 1.0)


def batches(n=20, seed=0, batch_size=10):
    rng = np.random.default_rng(seed)
    y = np.arange(n) % 2
    view = WindowView.from_array((rng.normal(size=(n, 1, 1)) + 2 * y[:, None, None]).astype("f4"))
    return Batches(view, view.series, y, CPU, batch_size=batch_size)


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(2, 2))


def state_of(net, patience=8, clip_norm=1.0):
    optimizer = torch.optim.AdamW(net.parameters(), weight_decay=0.01)
    counts = np.array([10, 10])
    loss = Loss(np.arange(20) % 2, 2, FitSettings())
    stepper = Stepper(
        net, optimizer, loss, precision="float32", clip_norm=clip_norm, micro_batch=100
    )
    options = {"batch_size": 10, "warm_up_steps": 1, "chance": float(np.log(2))}
    monitor = Monitor(counts=counts, weights=np.ones(2), **options)
    source = torch.Generator().manual_seed(0)
    return State(net, stepper, monitor, EarlyStopping(patience), source, 1, [])


def run(net=None, train=None, val=None, *, epochs=3, rate=0.001, ladder=None, rows=None, **options):
    state = state_of(network() if net is None else net, **options)
    train_network(
        state,
        batches() if train is None else train,
        val,
        rate=rate,
        epochs=epochs,
        ladder=ladder or Ladder(42),
        run=Run(listen=(rows if rows is not None else []).append),
        kept=Kept(None, ""),
    )
    return state


def judging(monkeypatch, outcomes):
    """Let val's loss and macro F1 be these, one after another."""
    told = iter(outcomes)

    def judged(*_):
        loss, f1 = next(told)
        return GOOD._replace(loss=loss, f1=f1)

    monkeypatch.setattr(loop, "judge", judged)


def test_the_history_tells_steps_rates_and_losses_and_so_does_the_listener():
    rows = []
    state = run(val=batches(seed=1), epochs=4, rate=0.5, rows=rows)
    assert [row["step"] for row in state.history] == [2, 4, 6, 8]
    rates = [0.5 * learning_rate_factor(row["step"] - 1, 8) for row in state.history]
    assert [row["learning_rate"] for row in state.history] == rates
    assert list(state.history[0]) == [
        "attempt",
        "epoch",
        "step",
        "train_loss",
        "val_loss",
        "val_macro_f1",
        "learning_rate",
        "grad_norm",
        "skipped_steps",
    ]
    assert state.best_epoch in range(1, 5)
    assert rows == state.history


def test_the_norm_of_the_history_is_that_of_before_clipping():
    state = run(clip_norm=1e-3)
    assert min(row["grad_norm"] for row in state.history) > 1e-2


def test_the_weights_that_were_best_on_val_are_kept(monkeypatch):
    net, seen = network(), []
    scores = iter([(1.0, 0.2), (1.0, 0.9), (1.0, 0.5), (0.5, 0.9), (2.0, 0.9)])

    def judged(net, *_):
        seen.append([p.detach().clone() for p in net.parameters()])
        loss, f1 = next(scores)
        return GOOD._replace(loss=loss, f1=f1)

    monkeypatch.setattr(loop, "judge", judged)
    assert run(net, val=batches(), epochs=5, rate=0.1).best_epoch == 4  # lower loss than epoch 2
    for kept, then, last in zip(net.parameters(), seen[3], seen[4], strict=True):
        assert torch.equal(kept, then)
        assert not torch.equal(kept, last)


def test_training_stops_when_patience_is_exhausted(monkeypatch):
    judging(monkeypatch, [(1.0, 0.5)] * 20)
    state = run(train=batches(n=100, batch_size=1), val=batches(), epochs=20, patience=2)
    assert [row["step"] for row in state.history] == [100, 200, 300, 400, 500]
    assert state.best_epoch == 1


def test_without_val_training_runs_to_its_end():
    state = run(epochs=5, patience=1)
    assert len(state.history) == state.best_epoch == 5


def test_judging_is_the_loss_and_macro_f1_of_all_cases_together():
    net = network()
    cases, loss = batches(700), Loss(np.arange(20) % 2, 2, FitSettings())
    judged = judge(net, cases, loss)
    x = torch.cat([x for x, _ in cases.in_order()])
    logits, y = net(x), torch.arange(700) % 2
    assert judged.loss == pytest.approx(loss(logits, y).item(), rel=1e-5)
    assert judged.spread == pytest.approx(logits.std(0, correction=0).max().item(), rel=1e-5)
    assert judged.truth.tolist() == [350, 350]
    assert judged.predicted.sum() == 700


class _Breaks(nn.Module):
    """Gives NaN in the calls that it is told to; dropping out nothing, so calls are steps."""

    def __init__(self, *calls):
        super().__init__()
        self.layer, self.at, self.calls = nn.Linear(1, 2), calls, 0

    def forward(self, x):
        self.calls += 1
        return self.layer(x[:, 0]) * (float("nan") if self.calls in self.at else 1)


def test_after_a_collapse_training_goes_on_from_the_best_weights_with_an_optimiser_that_forgot():
    torch.manual_seed(0)
    ladder = Ladder(42)
    state = run(_Breaks(4), epochs=4, ladder=ladder)
    assert [event["action"] for event in ladder.events] == ["restore"]
    assert (ladder.events[0]["kind"], ladder.events[0]["step"]) == ("non_finite_loss", 4)
    assert state.history[1]["train_loss"] is None
    assert state.history[2]["train_loss"] < 2
    assert state.best_epoch == 4
    assert all(p.isfinite().all() for p in state.net.parameters())
    (moment,) = {int(m["step"]) for m in state.stepper.optimizer.state.values()}
    assert moment == 4  # two epochs since then
    assert state.monitor.state()["seen"] == 4  # its windows hold nothing of before


def test_a_scale_that_collapsed_begins_anew_with_the_weights():
    state = state_of(network())
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    state.stepper.scaler = scaler
    state = State(
        state.net, state.stepper, state.monitor, state.stopping, state.generator, 1, state.history
    )
    scaler.load_state_dict(scaler.state_dict() | {"scale": 2.0**-30})
    state.go_back()
    assert scaler.get_scale() == 1024


def test_the_second_collapse_halves_the_rate_of_what_follows():
    torch.manual_seed(0)
    ladder = Ladder(42)
    state = run(_Breaks(2, 4), epochs=4, rate=0.5, ladder=ladder)
    assert [event["action"] for event in ladder.events] == ["restore", "halve"]
    factors = [row["learning_rate"] / 0.5 for row in state.history]
    shares = [learning_rate_factor(row["step"] - 1, 8) for row in state.history]
    assert factors == pytest.approx([shares[0], shares[1], shares[2] / 2, shares[3] / 2])


def test_a_collapse_at_every_rung_asks_for_another_seed_and_then_fails():
    ladder, always = Ladder(42), range(1, 1000)
    with pytest.raises(AnotherSeed, match="the training loss is nan"):
        run(_Breaks(*always), epochs=60, ladder=ladder)
    assert len(ladder.events) == len(RUNGS) + 1
    with pytest.raises(TrainingFailed, match="the training loss is nan"):
        run(_Breaks(*always), epochs=60, ladder=ladder)
    assert ladder.outcome == "failed"


def test_a_training_without_one_good_epoch_fails_though_rungs_were_left():
    with pytest.raises(TrainingFailed, match="not one of 2 epochs ended without a collapse"):
        run(_Breaks(*range(1, 1000)), epochs=2)


def test_a_val_loss_that_is_not_finite_is_a_collapse_too(monkeypatch):
    judging(monkeypatch, [(1.0, 0.5), (float("inf"), 0.9), (0.9, 0.5)])
    ladder = Ladder(42)
    state = run(val=batches(), ladder=ladder)
    assert [event["kind"] for event in ladder.events] == ["non_finite_loss"]
    assert state.history[1]["val_loss"] is None
    assert state.best_epoch == 3


def test_a_collapse_within_an_epoch_ends_the_epoch_soon():
    """Steps are looked at some at a time, and a long epoch must not go on for nothing."""
    torch.manual_seed(0)
    net = _Breaks(30)
    run(net, batches(n=2000), epochs=2)
    assert net.calls == 2 * loop.LOOK + 200


def test_what_the_monitor_sees_does_not_depend_on_when_it_looks(monkeypatch):
    seen = []

    class Noting(Monitor):
        def steps(self, epoch, step, losses, norms, skipped, tables):
            seen.append((losses, norms, tables.sum(0)))
            return super().steps(epoch, step, losses, norms, skipped, tables)

    sums = []
    for look in (1, 3, 25):
        seen.clear()
        monkeypatch.setattr(loop, "LOOK", look)
        monkeypatch.setattr("tests.training.test_loop.Monitor", Noting)
        run(train=batches(n=70), epochs=1)
        sums.append([np.concatenate([s[i] for s in seen]) for i in (0, 1)])
        assert sum(s[2] for s in seen).sum() == 70
    for one in sums[1:]:
        assert np.array_equal(one, sums[0])


def test_another_kind_of_collapse_within_val_counts_as_well(monkeypatch):
    collapse = Collapse(Kind.ONE_CLASS, 1, 2, "one class", {})
    told = iter([collapse, None, None])
    monkeypatch.setattr(Monitor, "epoch", lambda *_: next(told))
    ladder = Ladder(42)
    assert run(val=batches(), ladder=ladder).best_epoch > 1
    assert len(ladder.events) == 1


def test_weights_that_are_not_finite_are_never_kept(monkeypatch):
    """Without val nothing else would look at what the last step did."""
    step = torch.optim.AdamW.step
    left = iter(range(5))

    def explode(self, *arguments, **options):
        step(self, *arguments, **options)
        if next(left, None) is None:  # the sixth step is the last one of three epochs
            for parameter in self.param_groups[0]["params"]:
                parameter.data.fill_(float("inf"))

    monkeypatch.setattr(torch.optim.AdamW, "step", explode)
    with pytest.raises(TrainingFailed, match="weights are not finite after epoch 3"):
        run()
