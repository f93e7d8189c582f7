import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from cis490.errors import ConfigError
from cis490.models import FitSettings
from cis490.models.views import WindowView
from cis490.training import loop
from cis490.training.batches import Batches
from cis490.training.device import deterministic, resolve_device, seeded
from cis490.training.loop import TrainingFailed, train_network, weighted_cross_entropy
from cis490.training.schedule import learning_rate_factor

CPU = torch.device("cpu")
WEIGHTS = torch.ones(2)


def batches(n=20, seed=0, batch_size=10):
    rng = np.random.default_rng(seed)
    y = np.arange(n) % 2
    view = WindowView.from_array((rng.normal(size=(n, 1, 1)) + 2 * y[:, None, None]).astype("f4"))
    return Batches(view, view.series, y, CPU, batch_size=batch_size)


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(2, 2))


def run(net=None, train=None, val=None, **settings):
    net = network() if net is None else net
    train = batches() if train is None else train
    options = FitSettings(**{"epochs": 3, **settings})
    return train_network(net, train, val, WEIGHTS, options, torch.Generator().manual_seed(0))


def test_gradients_are_unscaled_then_clipped_then_applied(monkeypatch):
    calls = []

    def note(owner, name):
        original = getattr(owner, name)

        def noting(*args, **kwargs):
            calls.append(name)
            return original(*args, **kwargs)

        monkeypatch.setattr(owner, name, noting)

    for name in ("scale", "unscale_", "step", "update"):
        note(torch.amp.GradScaler, name)
    note(nn.utils, "clip_grad_norm_")
    run(epochs=1)
    assert calls == ["scale", "unscale_", "clip_grad_norm_", "step", "update"] * 2


def test_clipping_bounds_the_gradient_that_the_optimiser_sees(monkeypatch):
    norms = []
    step = torch.optim.AdamW.step

    def noting(self, *args, **kwargs):
        grads = [p.grad.flatten() for group in self.param_groups for p in group["params"]]
        norms.append(torch.cat(grads).norm().item())
        return step(self, *args, **kwargs)

    monkeypatch.setattr(torch.optim.AdamW, "step", noting)
    history, _ = run(clip_norm=1e-3)
    assert max(norms) <= 1.001e-3
    assert min(row["grad_norm"] for row in history) > 1e-2


def test_the_history_tells_steps_rates_and_losses():
    history, best = run(val=batches(seed=1), epochs=4, learning_rate=0.5)
    assert [row["step"] for row in history] == [2, 4, 6, 8]
    rates = [0.5 * learning_rate_factor(row["step"] - 1, 8) for row in history]
    assert [row["learning_rate"] for row in history] == rates
    assert list(history[0]) == [
        "epoch",
        "step",
        "train_loss",
        "val_loss",
        "val_macro_f1",
        "learning_rate",
        "grad_norm",
    ]
    assert best in range(1, 5)


def test_the_weights_that_were_best_on_val_are_kept(monkeypatch):
    net, seen = network(), []
    scores = iter([(1.0, 0.2), (1.0, 0.9), (1.0, 0.5), (0.5, 0.9), (2.0, 0.9)])

    def evaluate(net, *_):
        seen.append([p.detach().clone() for p in net.parameters()])
        return next(scores)

    monkeypatch.setattr(loop, "evaluate", evaluate)
    _, best = run(net, val=batches(), epochs=5, learning_rate=0.1)
    assert best == 4  # as good as epoch 2, at a lower loss
    for kept, then, last in zip(net.parameters(), seen[3], seen[4], strict=True):
        assert torch.equal(kept, then)
        assert not torch.equal(kept, last)


def test_training_stops_when_patience_is_exhausted(monkeypatch):
    monkeypatch.setattr(loop, "evaluate", lambda *_: (1.0, 0.5))
    history, best = run(train=batches(n=100, batch_size=1), val=batches(), epochs=20, patience=2)
    assert [row["step"] for row in history] == [100, 200, 300, 400, 500]
    assert best == 1


def test_without_val_training_runs_to_its_end():
    history, best = run(epochs=5, patience=1)
    assert len(history) == best == 5


class _Breaks(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer, self.calls = nn.Linear(1, 2), 0

    def forward(self, x):
        self.calls += 1
        return self.layer(x[:, 0]) * (float("nan") if self.calls == 4 else 1)


def test_a_loss_that_is_not_finite_fails_with_epoch_and_step():
    with pytest.raises(TrainingFailed, match="training loss is nan at epoch 2, step 4"):
        run(_Breaks())


def test_a_val_loss_that_is_not_finite_fails_too(monkeypatch):
    monkeypatch.setattr(loop, "evaluate", lambda *_: (float("inf"), 0.5))
    with pytest.raises(TrainingFailed, match="validation loss is inf at epoch 1"):
        run(val=batches())


def test_weights_that_are_not_finite_are_never_kept(monkeypatch):
    """Without val nothing else would look at what the last step did."""
    step = torch.optim.AdamW.step

    def explode(self, *arguments, **options):
        step(self, *arguments, **options)
        for group in self.param_groups:
            for parameter in group["params"]:
                parameter.data.fill_(float("inf"))

    monkeypatch.setattr(torch.optim.AdamW, "step", explode)
    monkeypatch.setattr(loop, "_finite", lambda loss, *_: float(loss.detach()))
    with pytest.raises(TrainingFailed, match="weights are not finite"):
        run()


def test_the_loss_is_torchs_weighted_cross_entropy():
    logits, y = torch.randn(8, 3), torch.tensor([0, 1, 2, 2, 1, 0, 0, 1])
    weights = torch.tensor([0.5, 2.0, 0.0])
    wanted = F.cross_entropy(logits, y, weight=weights)
    torch.testing.assert_close(weighted_cross_entropy(logits, y, weights), wanted)


def test_a_batch_of_weightless_classes_has_loss_zero_not_nan():
    loss = weighted_cross_entropy(torch.randn(2, 2), torch.tensor([1, 1]), torch.tensor([1.0, 0]))
    assert loss.item() == 0


def test_cuda_where_there_is_none_is_refused_in_words(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert resolve_device("auto") == resolve_device("cpu") == CPU
    with pytest.raises(ConfigError, match=r"training\.device is cuda, but"):
        resolve_device("cuda")
    with pytest.raises(ConfigError, match="tpu is not one of auto, cpu, cuda"):
        resolve_device("tpu")


def test_auto_takes_cuda_where_there_is_one(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert resolve_device("auto").type == resolve_device("cuda").type == "cuda"
    assert resolve_device("cpu") == CPU


def test_the_callers_random_state_threads_and_algorithms_come_back():
    torch.manual_seed(1)
    wanted = torch.rand(3)
    torch.manual_seed(1)
    threads = torch.get_num_threads()
    with deterministic(1), seeded(7, CPU):
        assert torch.are_deterministic_algorithms_enabled()
        torch.rand(5)
    assert torch.equal(torch.rand(3), wanted)
    assert torch.get_num_threads() == threads
    assert not torch.are_deterministic_algorithms_enabled()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_network_trains_on_cuda_and_predicts_what_the_cpu_predicts():
    from cis490.models import create, get_class
    from tests.models.problems import QUICK, make_problem

    problem = make_problem()
    for name in ("mlp", "cnn", "gru", "lstm", "transformer"):
        settings = FitSettings(**{**vars(QUICK), "device": "cuda"})
        model = create(name, 3, settings=settings).fit(problem.X, problem.y)
        rebuilt = get_class(name).from_state(*model.state())
        there, here = (m.predict_proba(problem.X_val) for m in (model, rebuilt))
        np.testing.assert_allclose(there, here, atol=1e-2)
        assert (here.argmax(1) == problem.y_val).mean() > 0.85
