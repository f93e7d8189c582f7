import pytest
import torch

from cis490.models import ARCHITECTURES, get_class
from cis490.models.blocks import Stem, as_rows, convolution, measured, pool

NETWORKS = [name for name in ARCHITECTURES if name != "gbt"]


def inputs(b=4, c=3, t=20, *, seed=0):
    """Values and masks (b, 2 c, t), all measured."""
    generator = torch.Generator().manual_seed(seed)
    values = torch.randn(b, c, t, generator=generator)
    return torch.cat([values, torch.ones_like(values)], dim=1)


def network(name, n_inputs=6, n_timepoints=20):
    """An untrained network without dropout, whose every case must stand alone."""
    dropouts = [key for key in get_class(name).presets["small"] if key.endswith("dropout")]
    model = get_class(name)(3, options=dict.fromkeys(dropouts, 0.0))
    model._input_shape = (n_inputs // 2,) if model.tabular else (n_inputs // 2, n_timepoints)
    torch.manual_seed(0)
    return model._build(n_inputs // 2)


@pytest.mark.parametrize("name", NETWORKS)
def test_the_large_preset_is_for_fleets(name):
    """Between one and some three million parameters at 46 channels of 100 steps, or 6 features."""
    model = get_class(name)(5, preset="large")
    model._input_shape = (276,) if model.tabular else (46, 100)
    net = model._build(model._input_shape[0])
    assert 1e6 < sum(parameter.numel() for parameter in net.parameters()) < 3.5e6


@pytest.mark.parametrize("name", NETWORKS)
def test_gradients_of_parts_of_a_batch_add_up_to_those_of_the_whole(name):
    """No layer may look at the batch, or accumulated gradients would be other ones."""
    net, x = network(name), inputs(t=1 if name == "mlp" else 20)
    y = torch.tensor([0, 1, 2, 0])

    def gradients(*parts):
        net.zero_grad()
        for part in parts:
            torch.nn.functional.cross_entropy(net(x[part]), y[part], reduction="sum").backward()
        return torch.cat([p.grad.flatten() for p in net.parameters()])

    net.train()
    whole = gradients(slice(None))
    parts = gradients(slice(0, 1), slice(1, 4))
    torch.testing.assert_close(parts, whole, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", [name for name in NETWORKS if name != "mlp"])
def test_what_stands_in_steps_that_were_not_measured_does_not_matter(name):
    """Shorter series are padded, and the padding must not tell the class."""
    net, x = network(name, n_timepoints=24).eval(), inputs(t=24)
    x[:, :, 8:] = 0
    with torch.inference_mode():
        features, there = net.backbone.stem(x)
        wanted = net(x)
        hidden = ~there[:, :, None] if name == "transformer" else ~there[:, None, None]
        changed = features.masked_fill(hidden, 7.0)
        net.backbone.stem.forward = lambda _: (changed, there)
        torch.testing.assert_close(net(x), wanted)


def test_a_step_counts_as_measured_where_any_channel_was():
    x = torch.zeros(2, 4, 3)
    x[0, 3, 1] = 1  # the mask of the second channel
    assert measured(x).tolist() == [[False, True, False], [True, True, True]]


@pytest.mark.parametrize("n_timepoints", [1, 2, 24, 25, 26, 99, 100])
def test_a_stem_leaves_at_most_so_many_steps_and_tells_which_were_measured(n_timepoints):
    stem = Stem(6, n_timepoints, 8, steps=25)
    x = inputs(t=n_timepoints)
    x[0, 3:, 1:] = 0
    features, there = stem(x)
    assert features.shape == (4, 8, 1, stem.n_steps)
    assert stem.n_steps <= 25
    assert there.shape == (4, stem.n_steps)
    assert there[0].sum() == 1
    assert there[1:].all()


def test_pooling_sees_measured_steps_only():
    x = torch.tensor([[[1.0], [3.0], [9.0]]])
    there = torch.tensor([[True, True, False]])
    assert pool(x, there).tolist() == [[2.0, 3.0]]


def test_a_row_is_convolved_as_a_series_is():
    x, convolve = inputs(), convolution(6, 8, 5)
    wanted = torch.nn.functional.conv1d(x, convolve.weight[:, :, 0], padding=2)
    torch.testing.assert_close(convolve(as_rows(x)).squeeze(2), wanted)


@pytest.mark.parametrize("name", ["cnn", "gru", "lstm"])
def test_channels_lie_side_by_side_on_the_way_forth_and_back(name):
    """In the other order a CPU convolves half as fast, and nothing but the time would tell."""
    net, seen = network(name), []
    convolutions = [each for each in net.modules() if isinstance(each, torch.nn.Conv2d)]
    for each in convolutions[1:]:  # nothing comes back of the stem's input
        each.register_forward_hook(lambda _module, given, out: seen.extend([given[0], out]))
        each.register_full_backward_hook(lambda _module, _given, out: seen.append(out[0]))
    net(inputs(t=100)).sum().backward()
    assert len(seen) == 3 * len(convolutions[1:])
    assert {each.stride(1) for each in seen} == {1}
