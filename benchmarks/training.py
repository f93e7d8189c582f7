"""Windows a second that a network trains on: our loop, and the usual Dataset and DataLoader.

    python -m benchmarks.training ROUNDS

Prints JSON: for each network windows a second of both, each the median of ROUNDS epochs that take
turns, and the same of making batches alone. One process, one thread, the same network and batch.
The usual loop is given its better form: in this process, or with two workers that stay.
"""

import json
import statistics
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, Dataset

from cis490.channels import channel_index
from cis490.models import CodedSeries, FitSettings, WindowView, create
from cis490.models.network import NetworkClassifier
from cis490.schema import feature_names
from cis490.training.batches import Batches
from cis490.training.losses import Loss
from cis490.training.step import Stepper
from cis490.windows.codes import LEAST, MISSING, decode

NETWORKS = ("mlp", "cnn", "gru", "lstm", "transformer")
EPISODES, STEPS, LENGTH, STRIDE, PHASES = 80, 640, 100, 50, 5
SETTINGS = FitSettings(batch_size=64, threads=1)


def measure(rounds: int) -> dict[str, Any]:
    """Windows a second by network."""
    torch.set_num_threads(1)
    found: dict[str, Any] = {}
    for name in NETWORKS:
        view, y = cases(tabular=name == "mlp")
        found[name] = _compare(name, view, y, rounds)
    return {"networks": found, "windows": len(y), "batch": SETTINGS.batch_size, "rounds": rounds}


def _compare(name: str, view: WindowView, y: np.ndarray, rounds: int) -> dict[str, Any]:
    loaders = {
        workers: DataLoader(
            Windows(view, y),
            batch_size=SETTINGS.batch_size,
            shuffle=True,
            num_workers=workers,
            persistent_workers=workers > 0,
        )
        for workers in (0, 2)
    }
    ours = Batches(view, view.series, y, torch.device("cpu"), batch_size=SETTINGS.batch_size)
    source = torch.Generator().manual_seed(0)
    net = network(name, view)
    loss = Loss(y, PHASES, SETTINGS)
    stepper = Stepper(
        net,
        torch.optim.AdamW(net.parameters(), weight_decay=0.01, fused=True),
        loss,
        precision="float32",
        clip_norm=1.0,
        micro_batch=SETTINGS.batch_size,
    )
    usual = network(name, view)
    optimizer = torch.optim.AdamW(usual.parameters(), weight_decay=0.01)

    def train_ours() -> None:
        net.train()
        for batch in ours.shuffled(source):
            stepper.step(batch, 0.001).loss.item()

    def train_usual(loader: DataLoader[Any]) -> None:
        usual.train()
        for x, labels in loader:
            optimizer.zero_grad()
            each = F.cross_entropy(usual(x), labels, weight=loss.weights)
            each.backward()
            nn.utils.clip_grad_norm_(usual.parameters(), 1.0)
            optimizer.step()
            each.item()

    def make_ours() -> None:
        for batch in ours.shuffled(source):
            next(batch.pieces(SETTINGS.batch_size))

    def make_usual(loader: DataLoader[Any]) -> None:
        for _ in loader:
            pass

    works: dict[str, Callable[[], None]] = {"ours": train_ours, "ours_input": make_ours}
    for workers, loader in loaders.items():
        works[f"usual_{workers}"] = partial(train_usual, loader)
        works[f"usual_input_{workers}"] = partial(make_usual, loader)
    seconds = in_turns(works, rounds)
    rate = {what: len(y) / statistics.median(times) for what, times in seconds.items()}
    usual_rate = max(rate["usual_0"], rate["usual_2"])
    usual_input = max(rate["usual_input_0"], rate["usual_input_2"])
    return {
        "parameters": sum(parameter.numel() for parameter in net.parameters()),
        "ours": rate["ours"],
        "usual": usual_rate,
        "workers": 0 if usual_rate == rate["usual_0"] else 2,
        "ours_input": rate["ours_input"],
        "usual_input": usual_input,
    }


def in_turns(works: dict[str, Callable[[], None]], rounds: int) -> dict[str, list[float]]:
    """Seconds of each work in each round; they take turns, and the first round does not count."""
    seconds: dict[str, list[float]] = {name: [] for name in works}
    for number in range(rounds + 1):
        for name, work in works.items():
            begun = time.perf_counter()
            work()
            if number:  # the first one warms up
                seconds[name].append(time.perf_counter() - begun)
    return seconds


class Windows(Dataset[tuple[torch.Tensor, torch.Tensor]]):
    """The usual data set: an item is a window, made ready when it is asked for."""

    def __init__(self, view: WindowView, y: np.ndarray) -> None:
        series = view.series
        if isinstance(series, CodedSeries):
            of = np.repeat(np.arange(len(series.scale)), np.diff(series.offset))
            series = decode(series.codes, series.scale[of], series.base[of])
        self.series, self.start, self.length, self.y = series, view.start, view.length, y
        self.jitter, self.low, self.high = view.jitter, view.low, view.high

    def __len__(self) -> int:
        return len(self.start)

    def __getitem__(self, i: int) -> tuple[torch.Tensor, torch.Tensor]:
        start = int(self.start[i])
        if self.jitter and self.low is not None and self.high is not None:
            shift = int(torch.randint(-self.jitter, self.jitter + 1, ()))
            start = min(max(start + shift, int(self.low[i])), int(self.high[i]))
        window = torch.from_numpy(self.series[start : start + self.length].T)
        mask = ~torch.isnan(window)
        values = torch.nan_to_num(window.clamp(-3, 3), nan=0.0)
        return torch.cat([values, mask.float()]), torch.tensor(self.y[i])


def network(name: str, view: WindowView, preset: str = "small") -> nn.Module:
    """An untrained network for windows of a view, with a head of its own."""
    model = create(name, PHASES, preset=preset, settings=SETTINGS)
    assert isinstance(model, NetworkClassifier)
    torch.manual_seed(0)
    n_inputs = 2 * view.shape[1]
    return nn.Sequential(model._backbone(n_inputs, view.length), nn.LazyLinear(PHASES))


def cases(*, tabular: bool, episodes: int = EPISODES) -> tuple[WindowView, np.ndarray]:
    """Windows of made-up episodes in the realistic mode's shape; only their size matters here."""
    rng = np.random.default_rng(0)
    first = np.arange(0, STEPS - LENGTH + 1, STRIDE)
    n = episodes * len(first)
    y = rng.integers(0, PHASES, n)
    if tabular:
        X = rng.normal(size=(n, len(feature_names("realistic")), 1)).astype(np.float32)
        return WindowView.from_array(X), y
    channels = len(channel_index("realistic"))
    codes = rng.integers(LEAST, 32768, (episodes * STEPS, channels)).astype(np.int16)
    codes[rng.random(codes.shape) < 0.02] = MISSING
    offset = np.arange(episodes + 1) * STEPS
    scale = np.full((episodes, channels), 6e-5, np.float32)
    series = CodedSeries(codes, offset, scale, np.full_like(scale, -2))
    low = np.repeat(offset[:-1], len(first))
    options = {"jitter": STRIDE // 2, "low": low, "high": low + first[-1]}
    labels = rng.integers(0, PHASES, episodes * STEPS).astype(np.int8)
    start = (offset[:-1, None] + first).ravel()
    return WindowView(series, start, LENGTH, step_label=labels, **options), y


if __name__ == "__main__":
    print(json.dumps(measure(int(sys.argv[1]))))
