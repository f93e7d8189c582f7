"""Measure the architectures on sets that nobody here made: `python -m benchmarks.archive`.

Writes the tables of docs/models.md. The sets are BasicMotions and JapaneseVowels of the UEA archive
(Bagnall et al. 2018), which the wheel of aeon holds; of aeon nothing is imported.
"""

from __future__ import annotations

import argparse
import importlib.util
import re
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from benchmarks.run import ROOT
from cis490.models import ARCHITECTURES, FitSettings, create, get_class
from cis490.schema import STATISTICS

PAGE: Final = ROOT / "docs/models.md"
SEEDS: Final = (0, 1, 2, 3, 4)
# Chosen by cross-validation within the training sets alone (docs/models.md). There is no val: the
# sets are too small to give cases away, and the learning rate falls to 0 anyway.
SETTINGS: Final = dict.fromkeys(ARCHITECTURES, FitSettings(epochs=60, batch_size=16)) | {
    "cnn": FitSettings(epochs=100, batch_size=16, learning_rate=0.003, weight_decay=0.1)
}
# The least accuracy asked of the mean over seeds; 0.975 is one error in 40.
BARS: Final[Mapping[str, Mapping[str, float]]] = {
    "BasicMotions": dict.fromkeys(ARCHITECTURES, 0.975),
    "JapaneseVowels": {"mlp": 0.976, "cnn": 0.98, "transformer": 0.98},
}
# One default-sized training set of the sample store, as the times are told of.
SHAPE: Final = (800, 46, 100)
N_CLASSES: Final = 5
TIMED_EPOCHS: Final = 5


class NoArchive(Exception):
    """aeon is not installed, so there are no sets to read."""


@dataclass(frozen=True)
class Dataset:
    """A set of the archive with its own parts.

    Attributes:
        X, X_test: (n_cases, n_channels, n_timepoints) float32, NaN after the end of a shorter one;
            a test case longer than every training case is cut.
        y, y_test: (n_cases,) int64.
        n_classes: labels are 0 .. n_classes - 1.
    """

    X: np.ndarray
    y: np.ndarray
    X_test: np.ndarray
    y_test: np.ndarray
    n_classes: int


def load(name: str) -> Dataset:
    """Read a set from the installed aeon.

    Raises:
        NoArchive: there is no aeon.
    """
    spec = importlib.util.find_spec("aeon")
    if spec is None or spec.origin is None:
        raise NoArchive("aeon is not installed: pip install --no-deps aeon")
    folder = Path(spec.origin).parent / "datasets/data" / name
    cases, labels = read_ts((folder / f"{name}_TRAIN.ts").read_text())
    cases_test, labels_test = read_ts((folder / f"{name}_TEST.ts").read_text())
    classes, y = np.unique(labels, return_inverse=True)
    length = max(case.shape[1] for case in cases)
    return Dataset(
        padded(cases, length),
        y,
        padded(cases_test, length),
        np.searchsorted(classes, labels_test),
        len(classes),
    )


def read_ts(text: str) -> tuple[list[np.ndarray], list[str]]:
    """Cases (n_channels, n_timepoints), each of its own length, and labels of a .ts file.

    After `@data` a line is a case: channels separated by colons, values by commas, the label last.
    """
    lines = [line.strip() for line in text.partition("@data")[2].splitlines()]
    cases, labels = [], []
    for line in filter(None, lines):
        *channels, label = line.split(":")
        cases.append(np.array([channel.split(",") for channel in channels], np.float32))
        labels.append(label)
    return cases, labels


def padded(cases: Sequence[np.ndarray], length: int) -> np.ndarray:
    """Cases as one array (n_cases, n_channels, length), NaN where a case has ended."""
    X = np.full((len(cases), cases[0].shape[0], length), np.nan, np.float32)
    for row, case in zip(X, cases, strict=True):
        row[:, : case.shape[1]] = case[:, :length]
    return X


def accuracy(architecture: str, data: Dataset, seed: int) -> float:
    """Share of the test cases that the small preset gets right, trained with one seed."""
    model = create(architecture, data.n_classes, seed=seed, settings=SETTINGS[architecture])
    model.fit(data.X, data.y)
    return float((model.predict_proba(data.X_test).argmax(1) == data.y_test).mean())


def reaches(each: Sequence[float], bar: float) -> bool:
    """Whether the mean is at the bar or above; a rounding error below counts as at it."""
    return bool(np.mean(each) >= bar - 1e-9)


def archive_table(say: Callable[[str], None]) -> list[str]:
    """A row an architecture and set: mean, spread, each seed, and the bar."""
    rows = [
        "| set | architecture | mean accuracy | sd | each seed | bar | holds |",
        "|---|---|---:|---:|---|---:|---|",
    ]
    for name, bars in BARS.items():
        data = load(name)
        for architecture in ARCHITECTURES:
            each = [accuracy(architecture, data, seed) for seed in SEEDS]
            mean, sd, bar = np.mean(each), np.std(each, ddof=1), bars.get(architecture)
            told = ", ".join(f"{100 * value:.1f}" for value in each)
            verdict = "–" if bar is None else "yes" if reaches(each, bar) else "**no**"
            asked = "–" if bar is None else f"{100 * bar:.1f}%"
            rows.append(
                f"| {name} | {architecture} | {100 * mean:.2f}% | {100 * sd:.2f} | {told} "
                f"| {asked} | {verdict} |"
            )
            say(rows[-1])
    return rows


def size_table(say: Callable[[str], None]) -> list[str]:
    """A row an architecture: parameters of its presets, and the CPU of one epoch."""
    rows = [
        "| architecture | parameters, small | parameters, large | CPU s an epoch, small |",
        "|---|---:|---:|---:|",
    ]
    y = np.arange(SHAPE[0]) % N_CLASSES
    for name in ARCHITECTURES:
        if name == "gbt":
            continue  # its size is what the data make of it
        X = _cases(name)
        small = _fitted(name, "small", X[:10], y[:10], epochs=1).n_parameters
        large = _fitted(name, "large", X[:10], y[:10], epochs=1).n_parameters
        seconds = _seconds_an_epoch(name, X, y)
        rows.append(f"| {name} | {small:,} | {large:,} | {seconds:.2f} |")
        say(rows[-1])
    return rows


def _cases(name: str) -> np.ndarray:
    """Random cases of SHAPE, or as many features as are made of them: summaries are not timed."""
    n_cases, n_channels, _ = SHAPE
    tabular = get_class(name).tabular
    shape = (n_cases, n_channels * len(STATISTICS)) if tabular else SHAPE
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


def _fitted(name: str, preset: str, X: np.ndarray, y: np.ndarray, *, epochs: int) -> Any:
    settings = FitSettings(epochs=epochs)
    return create(name, N_CLASSES, preset=preset, settings=settings).fit(X, y)


def _seconds_an_epoch(name: str, X: np.ndarray, y: np.ndarray) -> float:
    """CPU time of an epoch on one thread: what some more epochs add, divided by their number."""
    took = []
    for epochs in (1, 1 + TIMED_EPOCHS):
        begun = time.process_time()
        _fitted(name, "small", X, y, epochs=epochs)
        took.append(time.process_time() - begun)
    return (took[1] - took[0]) / TIMED_EPOCHS


def replaced(page: str, name: str, rows: Sequence[str]) -> str:
    """The page with what stands between `<!-- name -->` and `<!-- end of name -->` replaced."""
    begin, end = f"<!-- {name} -->\n", f"<!-- end of {name} -->"
    pattern = re.escape(begin) + ".*?" + re.escape(end)
    found, n = re.subn(pattern, lambda _: begin + "\n".join(rows) + "\n" + end, page, flags=re.S)
    if n != 1:
        sys.exit(f"error: {PAGE} holds {begin.strip()} {n} times; it takes one")
    return found


def main() -> None:
    """Measure, and write both tables into the page."""
    argparse.ArgumentParser(prog="python -m benchmarks.archive", description=__doc__).parse_args()

    def say(text: str) -> None:
        print(text, flush=True)

    try:
        tables = {"sizes": size_table(say), "archive": archive_table(say)}
    except NoArchive as error:
        sys.exit(f"error: {error}")
    page = PAGE.read_text()
    for name, rows in tables.items():
        page = replaced(page, name, rows)
    PAGE.write_text(page)
    say(f"{PAGE} is written")


if __name__ == "__main__":
    main()
