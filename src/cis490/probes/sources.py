"""What each source is worth, on val: shuffled under a trained model, and left out of training."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import numpy as np

from cis490.channels import CHANNELS, SOURCES, channel_index
from cis490.evaluation.bootstrap import SEED
from cis490.evaluation.tables import Provenance
from cis490.probes.booster import NAME, Booster
from cis490.probes.data import NotMeasurable, Windows, of_mode
from cis490.probes.tables import Name, Said, Scores

PERMUTATIONS: Final = 5


def sources_of(mode: str) -> list[str]:
    """Those that have a channel in a mode."""
    there = {CHANNELS[i].source for i in channel_index(mode)}
    return [source for source in SOURCES if source in there]


def donors(windows: Windows, rng: np.random.Generator) -> np.ndarray:
    """(n_windows,) int64: the window that each gets a source from.

    Whole episodes change places within their host: a window gets the one at its own place in the
    other episode, counted round where that is shorter.
    """
    unit = windows.unit
    length = np.bincount(unit)
    start = np.cumsum(length) - length
    hosts = windows.episodes["host_id"].to_numpy()
    other = np.arange(len(length))
    for host in np.unique(hosts):
        own = np.flatnonzero(hosts == host)
        other[own] = rng.permutation(own)
    of = other[unit]
    return np.asarray(start[of] + (np.arange(len(unit)) - start[unit]) % length[of])


def permutation_importance(
    windows: Windows,
    X: np.ndarray,
    columns_of_source: dict[str, list[int]],
    predict: Callable[[np.ndarray], np.ndarray],
    name: Name,
    origin: Provenance,
) -> list[dict[str, Any]]:
    """Macro F1 that a trained model loses when a source is that of another episode.

    The mean over `PERMUTATIONS` permutations, which are drawn like seeds in the interval
    (Breiman, Random forests, 2001; Fisher, Rudin and Dominici 2019, on groups).

    Args:
        windows: of val.
        X: (n_windows, ...) input, columns on axis 1.
        columns_of_source: positions on that axis.
        predict: probabilities of such input.
        name: whose model; its key is that of the rows, with the source behind it.

    Raises:
        NotMeasurable: no host has two episodes in val.
    """
    if windows.episodes["host_id"].value_counts()["count"].max() in (None, 1):
        raise NotMeasurable("no host has two episodes in val that could change places")
    rng = np.random.default_rng(SEED)
    taken = [donors(windows, rng) for _ in range(PERMUTATIONS)]
    said = [Said(name, predict(X).argmax(1)[None])]
    for source, members in columns_of_source.items():
        runs = []
        for from_other in taken:
            mixed = X.copy()
            mixed[:, members] = X[from_other][:, members]
            runs.append(predict(mixed).argmax(1))
        own = name._replace(key=f"{name.key}/{source}")
        said.append(Said(own, np.stack(runs)))
    scores = Scores(windows, windows.y, said, origin)
    return [
        scores.difference(each.name, "macro_f1_lost", 0, i) for i, each in enumerate(said) if i > 0
    ]


def leave_one_out(
    train: Windows, val: Windows, mode: str, booster: Booster, origin: Provenance
) -> list[dict[str, Any]]:
    """Macro F1 on val of gbt trained without each source, less that of gbt with all.

    Both stop early on val, so both figures flatter, and their difference hardly.

    Raises:
        NotMeasurable: there is no val, or gbt cannot be trained.
    """
    if not len(val):
        raise NotMeasurable("there is no val to judge by")
    said = []
    for left_out in (None, *sources_of(mode)):
        kept = of_mode(mode, without=left_out)
        X_val = val.features(kept)
        model = booster.fit(train.features(kept), train.y, kept, X_val=X_val, y_val=val.y)
        name = Name("val", f"without/{left_out or 'nothing'}", NAME, mode, (booster.seed,))
        said.append(Said(name, model.predict_proba(X_val).argmax(1)[None]))
    scores = Scores(val, val.y, said, origin)
    rows = [scores.row(i) for i in range(len(said))]
    changes = range(1, len(said))
    return rows + [scores.difference(said[i].name, "macro_f1_change", i, 0) for i in changes]
