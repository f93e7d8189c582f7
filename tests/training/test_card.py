"""What only a card can show; skipped where there is none."""

import gc
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from cis490.files import read_json
from cis490.models import FitSettings, WindowView, create, get_class
from cis490.training import memory
from cis490.training.batches import Batches
from cis490.training.collapse import Collapse, Kind, Monitor
from cis490.training.graphs import Graphs
from cis490.training.losses import Loss
from cis490.training.run import Run
from cis490.training.step import Stepper
from tests.models.problems import QUICK, make_problem
from tests.training.test_batches import epoch_of, generator, many_episodes, windows_of
from tests.training.test_fit import BRIEF, NETWORKS, Killed, bits, killed_after, trained

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")

CARD = torch.device("cuda")
ON_CARD = replace(BRIEF, device="cuda")


@pytest.fixture
def recorded(monkeypatch):
    """How often a recording was played."""
    played, step = [], Graphs.step

    def noting(self, batch, work):
        made = step(self, batch, work)
        played.append(made is not None)
        return made

    monkeypatch.setattr(Graphs, "step", noting)
    return played


@pytest.fixture
def little_memory():
    """Let this process take 2 GiB of the card."""
    torch.cuda.empty_cache()
    total = torch.cuda.get_device_properties(CARD).total_memory
    torch.cuda.set_per_process_memory_fraction(2**31 / total)
    yield
    torch.cuda.set_per_process_memory_fraction(1.0)
    torch.cuda.empty_cache()


def one_by_one(monkeypatch):
    monkeypatch.setattr(Graphs, "step", lambda *_: None)


@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_trains_on_a_card_and_predicts_what_the_cpu_predicts(name):
    problem = make_problem()
    settings = FitSettings(**{**vars(QUICK), "device": "cuda"})
    model = create(name, 3, settings=settings).fit(problem.X, problem.y)
    rebuilt = get_class(name).from_state(*model.state())
    there, here = (m.predict_proba(problem.X_val) for m in (model, rebuilt))
    np.testing.assert_allclose(there, here, atol=1e-2)
    assert (here.argmax(1) == problem.y_val).mean() > 0.85


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", NETWORKS)
def test_recorded_steps_are_those_made_one_by_one_to_the_bit(
    monkeypatch, recorded, name, precision
):
    settings = replace(ON_CARD, precision=precision)
    played = trained(name, settings=settings)
    # Seven batches of 16 and one of 8 an epoch; the first of each size is made for real.
    assert sum(recorded) == 3 * 8 - 2
    one_by_one(monkeypatch)
    made = trained(name, settings=settings)
    assert bits(played) == bits(made)
    assert played.history == made.history


def test_a_training_that_goes_back_records_anew(monkeypatch, recorded):
    """The optimiser remembers something else then; old recordings would step along the old."""
    epoch = Monitor.epoch

    def spoilt(self, number, step, *figures):
        found = epoch(self, number, step, *figures)
        return Collapse(Kind.LOSS_SPIKE, number, step, "as if", {}) if number == 2 else found

    monkeypatch.setattr(Monitor, "epoch", spoilt)
    played = trained(settings=ON_CARD)
    assert len(played.events) == 1
    assert sum(recorded) == 3 * 8 - 4
    one_by_one(monkeypatch)
    assert bits(trained(settings=ON_CARD)) == bits(played)


@pytest.mark.parametrize("name", NETWORKS)
def test_a_training_killed_on_a_card_goes_on_to_the_same_bits(tmp_path, monkeypatch, name):
    run = Run(data="d", code="c", folder=tmp_path)
    whole = trained(name, settings=ON_CARD)
    assert whole.chosen["precision"] == "bfloat16" or not torch.cuda.is_bf16_supported()
    with monkeypatch.context() as context:
        killed_after(context, 13)
        with pytest.raises(Killed):
            trained(name, settings=ON_CARD, run=run)
    assert bits(trained(name, settings=ON_CARD, run=run)) == bits(whole)


@pytest.mark.parametrize("name", NETWORKS)
def test_seed_after_seed_records_though_the_last_ones_recordings_are_let_go_meanwhile(
    monkeypatch, recorded, name
):
    """Nothing may be freed while a step is recorded, however often the collector would run."""
    problem = make_problem()
    first = create(name, 3, settings=ON_CARD)
    shared = first.prepare(problem.X, problem.y, X_val=problem.X_val, y_val=problem.y_val)
    threshold = gc.get_threshold()
    gc.set_threshold(1)
    try:
        models = [create(name, 3, seed=seed, settings=ON_CARD) for seed in range(4)]
        played = [bits(model.fit_prepared(shared)) for model in models]
    finally:
        gc.set_threshold(*threshold)
    assert sum(recorded) == 4 * (3 * 8 - 2)
    one_by_one(monkeypatch)
    last = create(name, 3, seed=3, settings=ON_CARD)
    assert bits(last.fit_prepared(shared)) == played[3]


def test_a_rate_is_found_on_a_card_and_twice_the_same():
    settings = replace(ON_CARD, learning_rate="auto")
    one, other = trained(settings=settings), trained(settings=settings)
    assert one.chosen == other.chosen
    assert bits(one) == bits(other)


def test_every_network_trains_with_a_gradient_scaler():
    for name in NETWORKS:
        problem = make_problem()
        settings = FitSettings(**{**vars(QUICK), "device": "cuda", "precision": "float16"})
        model = create(name, 3, settings=settings).fit(problem.X, problem.y)
        assert (model.predict_proba(problem.X_val).argmax(1) == problem.y_val).mean() > 0.85


def stepper_of(net, *, scaler=None, micro_batch=1000, graphs=False):
    y = np.arange(12) % 3
    optimizer = torch.optim.AdamW(net.parameters(), fused=True, capturable=graphs)
    loss = Loss(y, 3, FitSettings()).to(CARD)
    options = {"precision": "float32", "clip_norm": 0.05, "micro_batch": micro_batch}
    return Stepper(net, optimizer, loss, scaler=scaler, graphs=graphs, **options)


def batches_on_card(n=320, columns=3, size=32):
    rng = np.random.default_rng(0)
    view = WindowView.from_array(rng.normal(size=(n, columns, 8)).astype(np.float32))
    return Batches(view, view.series, rng.integers(0, 3, n), CARD, batch_size=size)


def flat_network(columns=3, width=16):
    torch.manual_seed(0)
    layers = nn.Flatten(), nn.Linear(16 * columns, width), nn.GELU(), nn.Linear(width, 3)
    return nn.Sequential(*layers).to(CARD)


def test_ten_steps_through_the_scaler_equal_plain_ones_and_recorded_ones():
    """All with the same bits, for a power of two rounds nothing."""
    weights = []
    for options in (
        {},
        {"scaler": torch.amp.GradScaler("cuda", init_scale=2.0**16)},
        {"graphs": 1},
    ):
        net = flat_network()
        stepper = stepper_of(net, **options)
        for batch in batches_on_card().shuffled(generator()):
            made = stepper.step(batch, 0.01)
            assert made.norm.isfinite()
        weights.append(torch.cat([p.detach().flatten() for p in net.parameters()]))
    assert torch.equal(weights[0], weights[1])
    # A recording reads the rate as float32, a plain step as float64.
    torch.testing.assert_close(weights[2], weights[0], rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("share", [0.9, 0.1])
def test_a_series_beyond_its_budget_stays_pinned_and_trains_the_same_played_or_not(
    monkeypatch, recorded, share
):
    view = many_episodes(n=60)
    y = np.arange(len(view)) % 3
    budget = int(share * view.series.codes.nbytes)
    here = Batches(view, view.series, y, torch.device("cpu"), batch_size=7, budget=budget)
    there = Batches(view, view.series, y, CARD, batch_size=7, budget=budget)
    assert there.series.steps.is_pinned()
    assert {batch.start.device.type for batch in there.shuffled(generator())} == {"cuda"}
    on_card = [(x.cpu(), y.cpu()) for x, y in epoch_of(there, generator())]
    wanted = epoch_of(here, generator())
    for (x, labels), (x_wanted, labels_wanted) in zip(on_card, wanted, strict=True):
        torch.testing.assert_close(x, x_wanted)
        assert torch.equal(labels, labels_wanted)
    assert len(windows_of(on_card)) == len(view)
    weights = []
    for _ in range(2):
        torch.manual_seed(0)
        net = nn.Sequential(nn.Flatten(), nn.Linear(40, 3)).to(CARD)
        stepper = stepper_of(net, graphs=True)
        for _ in range(3):
            for batch in there.shuffled(generator()):
                stepper.step(batch, 0.01)
        weights.append(net[1].weight.detach().clone())
        one_by_one(monkeypatch)
    assert torch.equal(*weights)
    assert any(recorded) == (share > 0.5)  # small blocks hold no size thrice


@pytest.mark.usefixtures("little_memory")
def test_the_probe_takes_pieces_that_fit_and_the_training_runs_in_them():
    """A batch of 4,096 needs some 6 GiB for its hidden layers; a card's name says nothing of it."""
    net = nn.Sequential(nn.Flatten(), *[layer for _ in range(12) for layer in wide()])
    net.append(nn.Linear(16384, 3)).to(CARD)
    x, y = torch.randn(64, 48, 1, device=CARD), torch.zeros(64, dtype=torch.int64, device=CARD)
    loss = Loss(np.arange(12) % 3, 3, FitSettings()).to(CARD)
    size = memory.largest_micro_batch(net, loss, x, y, torch.float32, batch_size=4096)
    assert 64 <= size < 4096
    assert all(parameter.grad is None for parameter in net.parameters())
    stepper_of(net, micro_batch=size).step(batch_of(4096), 0.001)


@pytest.mark.usefixtures("little_memory")
def test_a_step_that_runs_out_of_memory_is_made_again_in_halves(caplog):
    net = nn.Sequential(nn.Flatten(), *[layer for _ in range(12) for layer in wide()])
    net.append(nn.Linear(16384, 3)).to(CARD)
    for graphs in (False, True):
        stepper = stepper_of(net, micro_batch=4096, graphs=graphs)
        for _ in range(3):
            made = stepper.step(batch_of(4096), 0.001)
        assert made.loss.isfinite()
        assert made.table.sum() == 4096
        assert stepper.micro_batch in (256, 512, 1024, 2048)
    assert "out of memory: goes on with pieces of 2048 cases" in caplog.text


def wide():
    """Cheap in weights, dear in what is kept for the backward pass: 16,384 numbers a case."""
    return (_Spread(), nn.GELU())


class _Spread(nn.Module):
    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1))

    def forward(self, x):
        return x.repeat(1, -(-16384 // x.shape[1]))[:, :16384] * self.scale


_BATCHES = {}


def batch_of(n):
    if n not in _BATCHES:
        _BATCHES[n] = batches_on_card(n, 24, n)  # lives on, so that its series stays the same
    return next(iter(_BATCHES[n].shuffled(generator())))


def test_a_profile_of_a_card_tells_the_share_of_input(tmp_path):
    trained("cnn", settings=replace(ON_CARD, epochs=4), run=Run(profile=tmp_path))
    told = read_json(tmp_path / "profile.json")
    assert told["n_steps"] == 20
    assert 0 < told["input_share"] < 1
    assert (tmp_path / "trace.json").stat().st_size > 1000
