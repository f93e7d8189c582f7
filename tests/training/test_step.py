"""One optimiser step: what is done in which order, and that pieces and scalers change nothing."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from cis490.errors import ConfigError
from cis490.models import FitSettings, WindowView
from cis490.training.batches import Batches
from cis490.training.losses import Loss
from cis490.training.step import Stepper, resolve_precision

CPU = torch.device("cpu")


def batches(n=32, size=32, seed=0):
    rng = np.random.default_rng(seed)
    view = WindowView.from_array(rng.normal(size=(n, 3, 8)).astype(np.float32))
    return Batches(view, view.series, rng.integers(0, 3, n), CPU, batch_size=size)


def network(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Flatten(), nn.Linear(48, 16), nn.GELU(), nn.Linear(16, 3))


def stepper_of(net, *, micro_batch=1000, clip_norm=1.0, precision="float32", scaler=None):
    optimizer = torch.optim.AdamW(net.parameters(), lr=1.0, fused=True)
    loss = Loss(np.array([0, 0, 1, 2, 2, 2]), 3, FitSettings())
    options = {"clip_norm": clip_norm, "micro_batch": micro_batch, "precision": precision}
    return Stepper(net, optimizer, loss, scaler=scaler, **options)


def steps(stepper, n, rate=0.01, **options):
    """So many steps on the batches of as many epochs; what they returned."""
    source, train = torch.Generator().manual_seed(0), batches(**options)
    return [stepper.step(next(train.shuffled(source)), rate) for _ in range(n)]


def weights_of(net):
    return torch.cat([parameter.detach().flatten() for parameter in net.parameters()])


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
    steps(stepper_of(network()), 2)
    assert calls == ["scale", "unscale_", "clip_grad_norm_", "step", "update"] * 2


def test_ten_steps_through_the_scaler_equal_plain_float32_ones():
    """A clip before unscaling would shorten gradients that are 65,536 times too long."""
    plain, scaled = network(), network()
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**16, growth_interval=3)
    one = steps(stepper_of(plain, clip_norm=0.05), 10)
    other = steps(stepper_of(scaled, clip_norm=0.05, scaler=scaler), 10)
    assert scaler.get_scale() == 2.0**19
    assert torch.equal(weights_of(plain), weights_of(scaled))  # powers of two round nothing
    assert [s.norm for s in one] == [s.norm for s in other]
    assert not any(s.skipped for s in other)


def test_a_step_whose_scaled_gradients_overflow_is_skipped_and_said_to_be():
    net = network()
    net[3].weight.data *= 50  # whose gradients, times 2 to the 127, are beyond float32
    before = weights_of(net)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**127, growth_interval=1000)
    first, *rest = steps(stepper_of(net, scaler=scaler), 40)
    assert first.skipped
    assert not first.norm.isfinite()
    assert not rest[-1].skipped
    assert torch.isfinite(weights_of(net)).all()
    assert not torch.equal(weights_of(net), before)


def test_the_norm_is_that_of_before_clipping_and_the_optimiser_sees_the_clipped_one(monkeypatch):
    seen = []
    step = torch.optim.AdamW.step

    def noting(self, *args, **kwargs):
        grads = [p.grad.flatten() for group in self.param_groups for p in group["params"]]
        seen.append(torch.cat(grads).norm().item())
        return step(self, *args, **kwargs)

    monkeypatch.setattr(torch.optim.AdamW, "step", noting)
    (stepped,) = steps(stepper_of(network(), clip_norm=1e-3), 1)
    assert seen[0] == pytest.approx(1e-3, rel=1e-3)
    net = network()
    stepper = stepper_of(net)
    stepper._gradients(next(batches().shuffled(torch.Generator().manual_seed(0))))
    norm = torch.cat([p.grad.flatten() for p in net.parameters()]).norm()
    assert stepped.norm.item() == pytest.approx(norm.item(), rel=1e-5)
    assert stepped.norm > 0.1


@pytest.mark.parametrize(("n", "size"), [(32, 32), (23, 32), (32, 7)])
@pytest.mark.parametrize("micro_batch", [1, 5, 8])
def test_the_gradients_of_pieces_are_those_of_the_batch(micro_batch, n, size):
    """Also of the last batch, which is smaller, and of its last piece, which is smaller still."""
    gradients = []
    for piece in (1000, micro_batch):
        net = network()
        stepper = stepper_of(net, micro_batch=piece)
        *_, last = batches(n, size).shuffled(torch.Generator().manual_seed(1))
        loss = stepper._gradients(last)
        gradients.append((loss, torch.cat([p.grad.flatten() for p in net.parameters()])))
    (loss, whole), (same_loss, pieces) = gradients
    torch.testing.assert_close(same_loss, loss)
    torch.testing.assert_close(pieces, whole, rtol=1e-4, atol=1e-7)


class _Narrow(nn.Module):
    """A network on a device where only so many cases fit."""

    def __init__(self, fits):
        super().__init__()
        self.net, self.fits, self.tried = network(), fits, []

    def forward(self, x):
        self.tried.append(len(x))
        if len(x) > self.fits:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return self.net(x)


def test_out_of_memory_halves_the_pieces_and_goes_on_with_the_same_step():
    narrow, wide = _Narrow(9), network()
    stepper = stepper_of(narrow)
    one, other = steps(stepper, 3), steps(stepper_of(wide), 3)
    assert stepper.micro_batch == 8
    assert narrow.tried[:4] == [32, 16, 8, 8]
    assert narrow.tried[-4:] == [8, 8, 8, 8]
    torch.testing.assert_close(weights_of(narrow.net), weights_of(wide))
    torch.testing.assert_close(
        torch.stack([s.loss for s in one]), torch.stack([s.loss for s in other])
    )


def test_where_not_one_case_fits_the_job_ends():
    with pytest.raises(MemoryError, match="not even one case fits"):
        steps(stepper_of(_Narrow(0)), 1)


def test_bfloat16_computes_in_it_and_keeps_weights_and_loss_in_float32():
    net, types = network(), []
    net[1].register_forward_hook(lambda _module, _inputs, output: types.append(output.dtype))
    (stepped,) = steps(stepper_of(net, precision="bfloat16"), 1)
    assert types == [torch.bfloat16]
    assert stepped.loss.dtype == torch.float32
    assert weights_of(net).dtype == torch.float32
    (exact,) = steps(stepper_of(network()), 1)
    assert stepped.loss.item() == pytest.approx(exact.loss.item(), rel=0.01)


def test_the_rate_is_the_one_of_the_step():
    net = network()
    before = weights_of(net)
    steps(stepper_of(net), 1, rate=0.0)
    assert torch.equal(weights_of(net), before)


@pytest.mark.parametrize(
    ("asked", "has_bfloat16", "device", "wanted"),
    [
        ("auto", True, "cpu", "float32"),
        ("auto", True, "cuda", "bfloat16"),
        ("auto", False, "cuda", "float16"),
        ("float32", True, "cuda", "float32"),
        ("float16", True, "cuda", "float16"),
        ("bfloat16", False, "cpu", "bfloat16"),
    ],
)
def test_the_precision_suits_the_device_unless_one_is_named(
    monkeypatch, asked, has_bfloat16, device, wanted
):
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **_: has_bfloat16)
    assert resolve_precision(asked, SimpleNamespace(type=device)) == wanted


@pytest.mark.parametrize(("asked", "device"), [("float16", "cpu"), ("bfloat16", "cuda")])
def test_a_precision_that_the_device_lacks_is_refused(monkeypatch, asked, device):
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **_: False)
    with pytest.raises(ConfigError, match=f"training.precision is {asked}"):
        resolve_precision(asked, SimpleNamespace(type=device))
