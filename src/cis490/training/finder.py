"""The learning rate for a network and its data, found by a range test, and remembered.

A range test (Smith 2017, "Cyclical Learning Rates for Training Neural Networks") makes a few steps
at ever higher rates and watches the loss: it stays, falls, and in the end rises again.
"""

from __future__ import annotations

import hashlib
import logging
import math
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import numpy as np

from cis490 import files
from cis490.errors import Cis490Error

logger = logging.getLogger("cis490")

ITERATIONS: Final = 100
LOW, HIGH = 1e-5, 10.0  # AdamW's useful rates lie within, whatever the scale of the inputs
SMOOTHING: Final = 0.95  # weight of the past in the mean of the losses
DIVERGED: Final = 4.0  # times the loss before the first step
SETTLED: Final = 10  # losses after which their smoothed value is worth comparing
SIGNIFICANT: Final = 1.25  # standard deviations of a loss by which the smoothed one must drop
BEGUN: Final = 1 / 3  # of its drop: by then the smoothed loss falls in earnest

KIND: Final = "cis490.learning_rate"
VERSION: Final = 1
KEY_PARTS: Final = ("batch", "code", "data", "loss", "model", "optimiser", "precision")


class FinderError(Cis490Error, ValueError):
    """The finder was asked for what it cannot do; the message says what to change."""


@dataclass(frozen=True)
class Curve:
    """What a range test measured.

    Attributes:
        rates: (n,) float64, rising.
        losses: (n,) float64: of each batch before the step at that rate; NaN or infinite where the
            network had diverged.
    """

    rates: np.ndarray
    losses: np.ndarray


def range_test(
    step: Callable[[float], float],
    *,
    iterations: int = ITERATIONS,
    low: float = LOW,
    high: float = HIGH,
) -> Curve:
    """Make steps at rates that rise geometrically from `low` to `high`, until the loss diverges.

    It ends early at a loss that is not finite, or once the smoothed loss is four times the first.

    Args:
        step: makes one step of the optimiser on the next batch, at the rate that it is given, and
            returns that batch's loss before the step.
        iterations: steps at most.
        low, high: the first and the last rate.

    Raises:
        FinderError: the rates do not rise from above 0, or there are fewer than two of them.
    """
    if iterations < 2 or not 0 < low < high < math.inf:
        raise FinderError(
            f"a range test of {iterations} iterations from {low:g} to {high:g} cannot be made: it "
            "takes at least 2 iterations and 0 < low < high"
        )
    rates = np.geomspace(low, high, iterations)
    losses: list[float] = []
    for rate in rates:
        losses.append(step(float(rate)))
        if not math.isfinite(losses[-1]) or smoothed(losses)[-1] > DIVERGED * abs(losses[0]):
            break
    return Curve(rates[: len(losses)], np.array(losses))


def smoothed(losses: np.ndarray | list[float]) -> np.ndarray:
    """Exponential moving average with bias correction (Kingma and Ba 2015): (n,) to (n,)."""
    mean, means = 0.0, []
    for i, loss in enumerate(losses, start=1):
        mean = SMOOTHING * mean + (1 - SMOOTHING) * loss
        means.append(mean / (1 - SMOOTHING**i))
    return np.array(means)


def suggest(curve: Curve) -> float | None:
    """The rate to train at, or None where the curve does not tell.

    It is the geometric mean of two rates: where the smoothed loss has made a third of
    its drop, and where it is least. What comes after the least does not count, nor do the loss's
    scale and offset; losses that are not finite are passed over. docs/decisions/0006-training.md
    has the measurements behind it.

    Returns:
        A rate below that of the least smoothed loss. None if fewer than 10 losses come before the
        least, or if the smoothed loss drops by no more than the noise of a single loss: the curve
        is flat, rises, or diverged at once.
    """
    known = np.isfinite(curve.losses)
    rates, losses = curve.rates[known], curve.losses[known]
    mean = smoothed(losses)
    if len(mean) <= SETTLED:
        return None
    least = int(mean.argmin())
    if least < SETTLED:
        return None
    top = SETTLED - 1 + int(mean[SETTLED - 1 : least].argmax())
    drop = mean[top] - mean[least]
    rounding = 1e-9 * abs(mean[top])
    if drop <= max(SIGNIFICANT * _noise(losses[: least + 1]), rounding):
        return None
    begun = top + int(np.flatnonzero(mean[top:least] > mean[top] - BEGUN * drop)[-1])
    return float(np.sqrt(rates[begun] * rates[least]))


def _noise(losses: np.ndarray) -> float:
    """Standard deviation of normal noise, from the mean difference of neighbours."""
    return float(np.abs(np.diff(losses)).mean()) * math.sqrt(math.pi) / 2


def find_rate(
    step: Callable[[float], float], cache: RateCache | None, parts: Mapping[str, Any]
) -> float | None:
    """What was suggested before for the same, or what a range test suggests now; None: nothing.

    Args:
        step: as of `range_test`.
        cache: takes a suggestion that is new; None: none is kept.
        parts: all that the rate depends on, as of `key_of`.
    """
    key = key_of(parts)
    if cache is not None and (found := cache.get(key)):
        return found.rate
    curve = range_test(step)
    rate = suggest(curve)
    if rate is None:
        logger.info("the range test suggests no learning rate (n=%d losses)", len(curve.losses))
    elif cache is not None:
        cache.put(key, rate, curve, parts)
    return rate


@dataclass(frozen=True)
class Found:
    """A suggestion that was kept.

    Attributes:
        rate: the rate suggested.
        of: what it is the rate of, as it was told to `RateCache.put`.
        written: when, in UTC.
        curve: what it was read from; an infinite loss has become NaN.
    """

    rate: float
    of: Mapping[str, Any]
    written: datetime
    curve: Curve


class RateCache:
    """Suggestions on disk, a JSON file each, valid for some hours; remove a file to forget one.

    Args:
        folder: where they lie; it need not exist.
        hours: how long one is valid.
        clock: seconds since 1970.

    Raises:
        FinderError: `hours` is negative or NaN.
    """

    def __init__(
        self, folder: Path, hours: float, *, clock: Callable[[], float] = time.time
    ) -> None:
        if not hours >= 0:
            raise FinderError(f"learning rates cannot be kept for {hours} hours: say 0 or more")
        self.folder = folder
        self.hours = hours
        self.clock = clock

    def get(self, key: str) -> Found | None:
        """What was kept under `key`, unless it is missing, too old, damaged or not ours.

        Raises:
            FinderError: `key` is none that `key_of` gives.
        """
        path = self._path(key)
        try:
            found = _found(files.read_json(path), key)
        except FileNotFoundError:
            return None
        except (OSError, ValueError, TypeError, KeyError, OverflowError, RecursionError) as error:
            logger.warning("%s cannot be used (%s): the rate is searched anew", path, error)
            return None
        age = self.clock() - found.written.timestamp()
        if not 0 <= age < self.hours * 3600:
            logger.info("%s is %.1f hours old: the rate is searched anew", path, age / 3600)
            return None
        return found

    def put(self, key: str, rate: float | None, curve: Curve, of: Mapping[str, Any]) -> None:
        """Keep a suggestion.

        Args:
            key: from `key_of`.
            rate: from `suggest`.
            curve: what it was read from.
            of: what it is the rate of, for people: the parts of the key, say.

        Raises:
            FinderError: `rate` is no suggestion, or `key` is none that `key_of` gives.
        """
        if rate is None or not 0 < rate < math.inf:
            raise FinderError(f"{rate} is no suggestion of a learning rate: it cannot be kept")
        content = {
            "kind": KIND,
            "version": VERSION,
            "key": key,
            "of": of,
            "learning_rate": rate,
            "written": datetime.fromtimestamp(self.clock(), UTC).isoformat(),
            "rates": curve.rates.tolist(),
            # Divergence is expected, so it is said here rather than reported as lost numbers.
            "losses": [x if math.isfinite(x) else None for x in curve.losses.tolist()],
        }
        files.write_json(self._path(key), content)

    def _path(self, key: str) -> Path:
        if not re.fullmatch("[0-9a-f]{64}", key):
            raise FinderError(f"{key!r} is no key of a learning rate: take it from key_of")
        return self.folder / f"{key}.json"


def key_of(parts: Mapping[str, Any]) -> str:
    """The key of a learning rate: sha256 of the JSON of all that it depends on.

    Args:
        parts: at least batch, code, data, loss, model, optimiser and precision, each of anything
            that has a JSON form; the order does not matter.

    Raises:
        FinderError: a part is missing.
        TypeError: a part has no JSON form.
    """
    missing = [name for name in KEY_PARTS if name not in parts]
    if missing:
        raise FinderError(f"the key of a learning rate lacks {', '.join(missing)}: name all parts")
    return hashlib.sha256(files.to_json(parts).encode()).hexdigest()


def _found(content: Any, key: str) -> Found:
    """An entry as it was read from disk.

    Raises:
        ValueError, TypeError, KeyError, OverflowError: it is not what `RateCache.put` wrote.
    """
    if (content["kind"], content["version"], content["key"]) != (KIND, VERSION, key):
        raise ValueError("of another kind, version or key")
    rate, written = float(content["learning_rate"]), datetime.fromisoformat(content["written"])
    curve = Curve(np.array(content["rates"], float), np.array(content["losses"], float))
    if not 0 < rate < math.inf or curve.rates.ndim != 1 or curve.rates.shape != curve.losses.shape:
        raise ValueError("its numbers are no learning rate and curve")
    if written.tzinfo is None:
        raise ValueError("its time has no zone")
    return Found(rate, content["of"], written, curve)
