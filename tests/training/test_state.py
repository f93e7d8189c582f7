"""All that a training is between two epochs comes back from its file."""

import numpy as np
import torch
from torch import nn

from cis490.models import FitSettings, WindowView
from cis490.training.batches import Batches
from cis490.training.collapse import Monitor
from cis490.training.losses import Loss
from cis490.training.schedule import EarlyStopping
from cis490.training.state import Kept, State
from cis490.training.step import Stepper


def fresh(seed):
    torch.manual_seed(seed)
    net = nn.Sequential(nn.Flatten(), nn.Linear(2, 4), nn.Dropout(0.5), nn.Linear(4, 2))
    y = np.arange(20) % 2
    options = {"precision": "float32", "clip_norm": 1.0, "micro_batch": 10}
    stepper = Stepper(
        net,
        torch.optim.AdamW(net.parameters()),
        Loss(y, 2, FitSettings()),
        scaler=torch.amp.GradScaler("cpu", init_scale=1024.0, growth_interval=2),
        **options,
    )
    ones, told = np.ones(2), {"batch_size": 10, "warm_up_steps": 1, "chance": 0.7}
    monitor, stopping = Monitor(counts=10 * ones, weights=ones, **told), EarlyStopping(8)
    return State(net, stepper, monitor, stopping, torch.Generator().manual_seed(seed), 1, [])


def lived(seed):
    """A state of which nothing is as it began."""
    state = fresh(seed)
    X = np.random.default_rng(0).normal(size=(20, 1, 1)).astype(np.float32)
    view = WindowView.from_array(X)
    batches = Batches(view, view.series, np.arange(20) % 2, torch.device("cpu"), batch_size=10)
    for batch in batches.shuffled(state.generator):
        made = state.stepper.step(batch, 0.1)
        state.step += 1
        seen = made.loss, made.norm, torch.tensor(made.skipped), made.table
        state.monitor.steps(1, state.step, *(part.numpy()[None] for part in seen))
    state.epoch = 1
    state.keep()
    state.stopping.improved(400, 0.5, 1.0)
    state.stopping.improved(500, 0.4, 1.0)
    state.stepper.micro_batch = 5  # as if memory had run out
    state.attempt, state.epoch = 2, 2
    state.history = [{"epoch": 1}, {"epoch": 2}]
    return state


def plain(value):
    if isinstance(value, torch.Tensor):
        return value.tolist()
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    return [plain(item) for item in value] if isinstance(value, list | tuple) else value


def test_every_part_of_a_state_comes_back(tmp_path):
    kept = Kept(tmp_path / "seed-1.pt", "key")
    state = lived(1)
    wanted = plain(state.save())
    kept.save(state.save())
    other = fresh(2)
    before = plain(other.save())
    assert [name for name in wanted if before[name] == wanted[name]] == ["random_on_card"]
    other.attempt = 2  # `Training` makes it with the attempt
    other.load(kept.load())
    assert plain(other.save()) == wanted


def test_a_state_of_another_key_is_not_used(tmp_path):
    Kept(tmp_path / "seed-1.pt", "key").save(lived(1).save())
    assert Kept(tmp_path / "seed-1.pt", "another").load() is None
