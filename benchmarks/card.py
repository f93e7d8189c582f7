"""Training on a card: our loop beside the usual one, and what its parts gain.

    python -m benchmarks.card --out docs      (make bench-card)

Writes card.md. Without a card it says so and writes nothing. The same network, batch and precision
train on the same windows: with a Dataset and a DataLoader, whose workers and pinned memory are
given their better form, and with our loop, its steps made one kernel at a time and recorded.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Final

import torch
import torch.nn.functional as F
from torch import nn
from torch.profiler import ProfilerActivity, profile
from torch.utils.data import DataLoader

from benchmarks.training import NETWORKS, PHASES, SETTINGS, Windows, cases, in_turns, network
from cis490.markdown import table
from cis490.models import WindowView
from cis490.training.batches import Batches
from cis490.training.device import computing
from cis490.training.losses import Loss
from cis490.training.step import TYPES, Stepper, resolve_precision

EPISODES: Final = 400  # 4,400 windows, 69 steps an epoch
WORKERS: Final = (0, 4, 8)
BAR: Final = 5.0
CARD: Final = torch.device("cuda")

Epoch = Callable[[], None]


@dataclass(frozen=True)
class Measured:
    """Windows a second of one network, and the share of the time in which the card computes.

    Attributes:
        usual, workers: of the usual loop with the number of workers that is best.
        plain, recorded, free: of ours, one kernel at a time; recorded; and recorded with whatever
            algorithm is quickest, which need not give the same bits twice.
    """

    name: str
    preset: str
    parameters: int
    usual: float
    workers: int
    plain: float
    recorded: float
    free: float
    usual_busy: float
    recorded_busy: float


def main() -> None:
    """Measure all networks and write the page."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.card", description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder of card.md")
    parser.add_argument("--rounds", type=int, default=5, help="epochs of each loop (default: 5)")
    options = parser.parse_args()
    if not torch.cuda.is_available():
        sys.exit("error: torch finds no CUDA device here; nothing was written")
    precision = resolve_precision("auto", CARD)
    options.out.mkdir(parents=True, exist_ok=True)
    found: list[Measured] = []
    for preset in ("small", "large"):
        for name in NETWORKS:
            found.append(measure(name, preset, precision, options.rounds))
            print(found[-1], flush=True)
            page = render(found, precision, options.rounds, machine())
            (options.out / "card.md").write_text(page)  # a lent card may go at any time


def measure(name: str, preset: str, precision: str, rounds: int) -> Measured:
    """Train one network in every way, in turns."""
    view, y = cases(tabular=name == "mlp", episodes=EPISODES)
    settings = replace(SETTINGS, device="cuda")
    loose = replace(settings, deterministic=False)
    loss = Loss(y, PHASES, settings).to(CARD)
    batches = Batches(view, view.series, y, CARD, batch_size=settings.batch_size)

    def ours(settings: Any, *, recorded: bool) -> Epoch:
        net = _built(name, view, preset)
        stepper = Stepper(
            net,
            torch.optim.AdamW(net.parameters(), weight_decay=0.01, fused=True, capturable=True),
            loss,
            precision=precision,
            clip_norm=1.0,
            micro_batch=settings.batch_size,
            graphs=recorded,
        )
        return partial(_ours, batches, net, stepper, torch.Generator().manual_seed(0), settings)

    loaders = {workers: _loader(view, y, workers) for workers in WORKERS}
    usual = _Usual(_built(name, view, preset), loss, TYPES[precision])
    works: dict[str, Epoch] = {
        "plain": ours(settings, recorded=False),
        "recorded": ours(settings, recorded=True),
        "free": ours(loose, recorded=True),
        **{f"usual_{n}": partial(usual.epoch, loader) for n, loader in loaders.items()},
    }
    seconds = in_turns(works, rounds)
    rate = {what: len(y) / statistics.median(times) for what, times in seconds.items()}
    workers = max(WORKERS, key=lambda n: rate[f"usual_{n}"])
    return Measured(
        name,
        preset,
        sum(parameter.numel() for parameter in usual.net.parameters()),
        rate[f"usual_{workers}"],
        workers,
        rate["plain"],
        rate["recorded"],
        rate["free"],
        _busy(works[f"usual_{workers}"]),
        _busy(works["recorded"]),
    )


def _built(name: str, view: WindowView, preset: str) -> nn.Module:
    net = network(name, view, preset)
    with torch.no_grad():  # the head learns its width
        net(torch.zeros(1, 2 * view.shape[1], view.length))
    return net.to(CARD)


def _ours(
    batches: Batches, net: nn.Module, stepper: Stepper, source: torch.Generator, settings: Any
) -> None:
    """As `training.loop` does: what a step gives is fetched some steps later."""
    net.train()
    with computing(settings):
        made = [stepper.step(batch, 0.001).loss for batch in batches.shuffled(source)]
        torch.stack(made).cpu()


class _Usual:
    """The usual loop, without a wait at each step."""

    def __init__(self, net: nn.Module, loss: Loss, precision: torch.dtype) -> None:
        self.net, self.weights, self.type = net, loss.weights, precision
        self.optimizer = torch.optim.AdamW(net.parameters(), weight_decay=0.01)

    def epoch(self, loader: DataLoader[Any]) -> None:
        """Train on every window once."""
        self.net.train()
        total = torch.zeros((), device=CARD)
        for x, y in loader:
            there, labels = x.to(CARD, non_blocking=True), y.to(CARD, non_blocking=True)
            self.optimizer.zero_grad()
            with torch.autocast("cuda", self.type, enabled=self.type != torch.float32):
                logits = self.net(there)
            loss = F.cross_entropy(logits.float(), labels, weight=self.weights)
            loss.backward()
            nn.utils.clip_grad_norm_(self.net.parameters(), 1.0)
            self.optimizer.step()
            total += loss.detach()
        total.item()


def _loader(view: WindowView, y: Any, workers: int) -> DataLoader[Any]:
    return DataLoader(
        Windows(view, y),
        batch_size=SETTINGS.batch_size,
        shuffle=True,
        num_workers=workers,
        persistent_workers=workers > 0,
        pin_memory=True,
    )


def _busy(epoch: Epoch) -> float:
    """Kernels' time over an epoch's time; above 1 where cuDNN runs several side by side."""
    torch.cuda.synchronize()
    with profile(activities=[ProfilerActivity.CUDA]) as seen:
        begun = time.perf_counter()
        epoch()
        torch.cuda.synchronize()
        took = time.perf_counter() - begun
    computed = sum(event.self_device_time_total for event in seen.key_averages())
    return float(computed / 1e6 / took)


def machine() -> str:
    """What it ran on."""
    return (
        f"{torch.cuda.get_device_name(CARD)}, torch {torch.__version__}, CUDA {torch.version.cuda}"
    )


def render(found: list[Measured], precision: str, rounds: int, where: str) -> str:
    """The page."""
    batch, n = SETTINGS.batch_size, EPISODES * 11
    least = min((m.recorded / m.usual, m.name) for m in found if m.preset == "small")
    rows = [
        [
            m.preset,
            m.name,
            f"{m.parameters:,}",
            f"{m.recorded / m.usual:.1f} ×",
            f"{m.recorded:,.0f}",
            f"{m.plain:,.0f}",
            f"{m.usual:,.0f}",
            m.workers,
            f"{100 * m.recorded_busy:.0f}%",
            f"{100 * m.usual_busy:.0f}%",
            f"{100 * (1 - m.recorded / m.free):.0f}%",
        ]
        for m in found
    ]
    measured = {(m.preset, m.name) for m in found}
    every = [(preset, name) for preset in ("small", "large") for name in NETWORKS]
    lacking = [f"{name} {preset}" for preset, name in every if (preset, name) not in measured]
    header = ["preset", "network", "parameters", "ours over usual", "ours, windows/s"]
    header += ["one kernel at a time", "usual", "its workers", "card computes, ours", "usual"]
    header += ["what determinism costs"]
    lines = [
        "# Training on a card",
        "",
        f"One run of `make bench-card` on {where}. This page is written by it; do not edit it.",
        "",
        f"Windows a second in training, {precision}, n = {n:,} made-up windows in batches of "
        f"{batch}, median of {rounds} epochs, all loops in turn in one process. The usual loop has "
        "the same network, batch and precision and the best of no, 4 and 8 workers, with pinned "
        f"memory and copies that nobody waits for. The bar is {BAR:.0f} × for the small presets: "
        f"the least is {least[0]:.1f} × ({least[1]}), so it "
        f"{'holds' if least[0] >= BAR else 'does **not** hold'}.",
        "",
        *table(header, rows, align="ll"),
        "",
        "Ours records a step as a CUDA graph and plays it (`training/graphs.py`); one kernel at a "
        "time is the same without. `Card computes` is kernels' time over the whole, with "
        "torch.profiler; it passes 100% where cuDNN runs several kernels of a recurrent network "
        "side by side. Determinism (`training.deterministic`, on by default) is beside "
        "whatever algorithm is quickest, both recorded.",
        "",
        *([f"Not measured before the run ended: {', '.join(lacking)}.", ""] if lacking else []),
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
