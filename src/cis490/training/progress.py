"""What a person sees while a model trains: a line an epoch, and TensorBoard's files if asked for.

It is told what happened and computes nothing of the training, so a training with it and one
without it end with the same bits.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from cis490.errors import ConfigError
from cis490.training.run import Row
from cis490.words import duration

logger = logging.getLogger("cis490")

_PAUSE_S: Final = 0.5  # between two lines of the log: rounds of gbt take milliseconds
# What TensorBoard calls the columns of the history; the part before the slash groups its charts.
_TAGS: Final = {
    "train_loss": "loss/train",
    "val_loss": "loss/val",
    "val_macro_f1": "macro_f1/val",
    "learning_rate": "learning_rate",
    "grad_norm": "grad_norm",
}


class Progress:
    """Tells how the trainings of one model go, over its seeds and attempts.

    Call `started`, then `epoch` after each epoch (it can be handed on as a callback), then `ended`.
    All times are wall-clock and go to the log and to TensorBoard only.

    Args:
        name: the model's, which begins each line.
        seeds: all that will be trained, in order.
        epochs: at most so many of each seed.
        tensorboard: folder for event files, a run `seed_<seed>` each, further attempts apart;
            what an earlier training left there of a seed is removed. None: none are written.
        clock: seconds that never go back.

    Raises:
        ConfigError: event files are asked for and the package tensorboard is not installed.
    """

    def __init__(
        self,
        name: str,
        *,
        seeds: Sequence[int],
        epochs: int,
        tensorboard: Path | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.name = name
        self.seeds = list(seeds)
        self.epochs = epochs
        self._events = None if tensorboard is None else _Events(tensorboard)
        self._clock = clock

    @contextmanager
    def watching(self, seed: int, n_windows: int) -> Iterator[None]:
        """Tell of the training of a seed that happens within; arguments as of `started`."""
        self.started(seed, n_windows)
        try:
            yield
        except BaseException:
            self.ended("failed")
            raise
        self.ended("ok")

    def started(self, seed: int, n_windows: int) -> None:
        """The training of a seed begins, or goes on.

        Args:
            seed: one of `seeds`.
            n_windows: training windows an epoch.
        """
        self._seed, self._n_windows = seed, n_windows
        self._attempt = 0  # none was heard of
        self._last = 0
        self._best: float | None = None
        self._began = self._begin = self._next_line = self._clock()

    def epoch(self, row: Row) -> None:
        """An epoch ended.

        Args:
            row: of the history (`training.checkpoint.HISTORY_SCHEMA`, without the seed). The first
                one may be of any epoch and attempt, for a training that was killed goes on.
        """
        now = self._clock()
        if row["attempt"] != self._attempt:
            self._attempt, self._first = int(row["attempt"] or 1), int(row["epoch"] or 1)
            self._best = None
            self._next_line = now
            if self._attempt > 1:
                self._begin = now
            if self._events:
                self._events.open(self._seed, self._attempt, self._first)
        self._last = int(row["epoch"] or 0)
        f1 = row.get("val_macro_f1")
        if f1 is not None and (self._best is None or f1 > self._best):
            self._best = f1
        if self._events:
            self._events.write(row)
        if now >= self._next_line or self._last == self.epochs:
            self._next_line = now + _PAUSE_S
            logger.info(self._line(row, now - self._begin))

    def ended(self, status: str) -> None:
        """The training ended, with `status` ("ok", or what became of it)."""
        if self._events:
            self._events.close()
        best = "" if self._best is None else f", best val macro F1 {self._best:.3f}"
        took = duration(self._clock() - self._began)
        logger.info("%s: %s after epoch %d%s, %s", self._whose(), status, self._last, best, took)

    def _whose(self) -> str:
        place = self.seeds.index(self._seed) + 1
        text = f"{self.name}: seed {self._seed} ({place} of {len(self.seeds)})"
        return text if self._attempt < 2 else f"{text}, attempt {self._attempt}"

    def _line(self, row: Row, elapsed_s: float) -> str:
        each_s = max(elapsed_s, 1e-9) / (self._last - self._first + 1)
        seeds_left = len(self.seeds) - self.seeds.index(self._seed) - 1
        epochs_left = self.epochs - self._last + seeds_left * self.epochs
        parts = [
            self._whose(),
            f"epoch {self._last} of {self.epochs}",
            f"loss {_number(row['train_loss'])}",
        ]
        if row.get("val_macro_f1") is not None:
            parts.append(f"val macro F1 {row['val_macro_f1']:.3f} (best {self._best:.3f})")
        if row.get("learning_rate") is not None:
            parts.append(f"rate {row['learning_rate']:.2g}")
        parts += [
            f"{self._n_windows / each_s:,.0f} windows/s",
            # Nobody knows where early stopping will end it, or what another attempt will take.
            f"at most {duration(each_s * epochs_left)} left",
        ]
        return ", ".join(parts)


def _number(value: float | None) -> str:
    """A loss; in an epoch that collapsed there may be none."""
    return "unknown" if value is None else f"{value:.3f}"


class _Events:
    """TensorBoard's event files, one run at a time."""

    def __init__(self, folder: Path) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise ConfigError(
                f"TensorBoard files are asked for, but there is no tensorboard here ({error}): "
                "pip install 'cis490[tensorboard]', or do not ask for them"
            ) from None
        self._folder = folder
        self._make = SummaryWriter
        self._writer: Any = None

    def open(self, seed: int, attempt: int, first_epoch: int) -> None:
        self.close()
        run = self._folder / (f"seed_{seed}" + (f"_attempt_{attempt}" if attempt > 1 else ""))
        if attempt == first_epoch == 1:
            for runs in (f"seed_{seed}", f"seed_{seed}_attempt_*"):
                for earlier in self._folder.glob(f"{runs}/events.out.tfevents.*"):
                    earlier.unlink()
        # Of a training that goes on, readers pass over what was written of these epochs before.
        self._writer = self._make(run, purge_step=first_epoch, flush_secs=10)

    def write(self, row: Row) -> None:
        for column, tag in _TAGS.items():
            if row.get(column) is not None:
                self._writer.add_scalar(tag, row[column], row["epoch"])

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None
