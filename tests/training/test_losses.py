import numpy as np
import pytest
import torch
import torch.nn.functional as F

from cis490.config import resolve
from cis490.errors import ConfigError
from cis490.models import FitSettings
from cis490.models.weights import class_weights
from cis490.training.losses import IMBALANCE, Loss

Y = np.array([0] * 6 + [1] * 3 + [2])


def loss_of(**settings):
    return Loss(Y, 4, FitSettings(**settings))


def cases(n=50, seed=0):
    source = torch.Generator().manual_seed(seed)
    return torch.randn(n, 4, generator=source), torch.randint(3, (n,), generator=source)


def test_the_default_is_torchs_weighted_cross_entropy_with_the_projects_weights():
    logits, y = cases()
    wanted = F.cross_entropy(logits, y, weight=torch.from_numpy(class_weights(Y, 4)))
    torch.testing.assert_close(loss_of()(logits, y), wanted)


@pytest.mark.parametrize("imbalance", ["none", "balanced"])
def test_without_weights_it_is_torchs_cross_entropy(imbalance):
    logits, y = cases()
    loss = loss_of(imbalance=imbalance)
    torch.testing.assert_close(loss(logits, y), F.cross_entropy(logits, y))


def test_smoothing_is_torchs_and_counts_no_class_more():
    logits, y = cases()
    loss = loss_of(imbalance="smoothing", label_smoothing=0.2)
    torch.testing.assert_close(loss(logits, y), F.cross_entropy(logits, y, label_smoothing=0.2))


@pytest.mark.parametrize("gamma", [0.5, 2.0, 5.0])
def test_focal_loss_is_the_papers(gamma):
    """-(1 - p)^gamma log p (Lin et al. 2017, equation 4)."""
    logits, y = cases()
    p = torch.softmax(logits.double(), 1)[torch.arange(len(y)), y]
    wanted = (-((1 - p) ** gamma) * p.log()).mean().float()
    loss = loss_of(imbalance="focal", focal_gamma=gamma)
    torch.testing.assert_close(loss(logits, y), wanted)


@pytest.mark.parametrize("gamma", [0.5, 1.0, 2.0])
def test_focal_loss_of_a_sure_case_has_a_finite_gradient(gamma):
    logits = torch.tensor([[200.0, 0, 0, 0], [0, 0, 0, 0]], requires_grad=True)
    loss_of(imbalance="focal", focal_gamma=gamma)(logits, torch.tensor([0, 1])).backward()
    assert logits.grad.isfinite().all()


@pytest.mark.parametrize("imbalance", IMBALANCE)
def test_the_shares_of_pieces_add_up_to_the_loss_of_the_batch(imbalance):
    logits, y = cases(23)
    loss = loss_of(imbalance=imbalance)
    total = loss.weight(y)
    pieces = zip(logits.split(5), y.split(5), strict=True)
    shares = [loss.share(part, labels, total) for part, labels in pieces]
    torch.testing.assert_close(sum(shares), loss(logits, y))


def test_a_batch_of_weightless_classes_has_loss_zero_not_nan():
    assert loss_of()(torch.randn(2, 4), torch.tensor([3, 3])).item() == 0


def test_every_way_is_a_setting_and_no_other():
    for way in IMBALANCE:
        assert resolve({"training": {"imbalance": way}})["training"]["imbalance"] == way
    with pytest.raises(ConfigError, match=r"training\.imbalance"):
        resolve({"training": {"imbalance": "smote"}})


@pytest.mark.parametrize(
    ("stacked", "says"),
    [
        ({"imbalance": ["weighted", "focal"]}, "weighted, focal: choose one; each makes up for"),
        ({"imbalance": {"focal": 2, "balanced": 1}}, "focal, balanced: choose one"),
        ({"focal_gamma": 3.0}, "focal_gamma is of imbalance: focal, but .* is weighted"),
        ({"imbalance": "focal", "label_smoothing": 0.2}, "label_smoothing is of .*smoothing"),
    ],
)
def test_stacking_two_is_refused_with_a_reason(stacked, says):
    with pytest.raises(ConfigError, match=says):
        resolve({"training": stacked})


@pytest.mark.parametrize("imbalance", IMBALANCE)
def test_chance_is_the_loss_of_always_predicting_the_weighted_shares(imbalance):
    loss = loss_of(imbalance=imbalance)
    counts, y = np.bincount(Y, minlength=4), torch.from_numpy(Y)
    share = counts * loss.weights.numpy()
    share = share / share.sum()
    if imbalance == "smoothing":
        share = 0.9 * share + 0.1 / 4
    logits = torch.from_numpy(np.log(np.maximum(share, 1e-30))).float()
    wanted = loss(logits.expand(len(y), -1), y).item()
    assert loss.chance(counts) == pytest.approx(wanted, rel=1e-5)


def test_the_floor_is_the_least_loss_there_is_and_above_0_with_smoothing_only():
    counts, (_, y) = np.bincount(Y, minlength=4), cases()
    others = [way for way in IMBALANCE if way != "smoothing"]
    assert [loss_of(imbalance=way).floor(counts) for way in others] == [0] * 4
    loss, right = loss_of(imbalance="smoothing"), F.one_hot(y, 4).float()
    losses = [loss(10.0**scale * right, y).item() for scale in np.linspace(-2, 2, 200)]
    floor = loss.floor(counts)
    assert 0.1 < floor <= min(losses) < floor + 1e-3
