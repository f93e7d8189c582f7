"""Labels exchanged between episodes and shifted in a circle: nothing may be left to find.

Each episode gets the phases of another one, from a random place on and then from its first window
again, so that they keep their lengths and their order. Where the other has more windows the rest
is left out; where it has fewer they come again.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

import numpy as np
from scipy import stats

from cis490.evaluation.bootstrap import SEED, TAILS
from cis490.evaluation.metrics import K, Sums, macro_f1
from cis490.evaluation.tables import Provenance
from cis490.probes.booster import NAME, Booster
from cis490.probes.data import Windows, of_mode
from cis490.probes.tables import Name, Said, Scores, row

DRAWS: Final = 1000
# An excess of 0.02 is then seen in 7 of 10 cases: that of one training varies by 0.034.
RETRAINED: Final = 20
TRAINING: Final = "exchanged_training"
OVER_NULL: Final = "macro_f1_over_null"
ROUNDING: Final = 1e-12  # scores that differ by less are the same


def exchange(y: np.ndarray, unit: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """(n_windows,) labels after one exchange.

    Args:
        y: (n_windows,) labels.
        unit: (n_windows,) int64 in [0, n), the episode of each window, neighbours together.
        rng: draws whose labels an episode gets (its own are possible), and from where on.
    """
    length = np.bincount(unit)
    start = np.cumsum(length) - length
    donor = rng.permutation(len(length))
    shift = rng.integers(length[donor])
    place = np.arange(len(y)) - start[unit]
    of = donor[unit]
    return np.asarray(y[start[of] + (place + shift[unit]) % length[of]])


def exchanges(y: np.ndarray, unit: np.ndarray, seed: int) -> Iterator[np.ndarray]:
    """`DRAWS` exchanges."""
    rng = np.random.default_rng([SEED, seed])
    return (exchange(y, unit, rng) for _ in range(DRAWS))


def mean_macro_f1(predicted: np.ndarray, truths: Iterable[np.ndarray], k: int = K) -> np.ndarray:
    """(d,) macro F1 of (r, n_windows) predictions against each of d truths, the mean over runs."""
    cells = [run.astype(np.int64) for run in predicted]
    found = []
    for truth in truths:
        phases = np.flatnonzero(np.bincount(truth, minlength=k)).tolist()
        counts = [np.bincount(truth * k + run, minlength=k * k).reshape(k, k) for run in cells]
        found.append(float(macro_f1(Sums.of(np.stack(counts)), phases).mean()))
    return np.array(found)


def null_row(
    name: Name, null: np.ndarray, n: tuple[int, int], origin: Provenance
) -> dict[str, Any]:
    """The mean of (d,) scores under the null, and the range that holds 95% of them."""
    low, high = np.quantile(null, TAILS)
    return row(
        name,
        "macro_f1_null",
        float(null.mean()),
        n,
        origin,
        interval=(float(low), float(high)),
        kind="null95",
        n_valid=len(null),
        told=f"|draws={len(null)}",
    )


def p_above(score: float, null: np.ndarray) -> float:
    """One-sided p: (1 + scores of the null at least as high) / (1 + all).

    Source: B. Phipson and G. K. Smyth, Permutation p-values should never be zero, 2010.
    """
    return float((1 + (null >= score - ROUNDING).sum()) / (1 + len(null)))


def exchanged_truth(
    windows: Windows, name: Name, predicted: np.ndarray, origin: Provenance
) -> list[dict[str, Any]]:
    """Real predictions against the truth, against exchanged truths, and p.

    Args:
        windows: of the part shown.
        name: whose predictions, (r, n_windows), they are.
    """
    scores = Scores(windows, windows.y, [Said(name, predicted)], origin)
    null = mean_macro_f1(predicted, exchanges(windows.y, windows.unit, 0))
    return [
        scores.row(0),
        null_row(name, null, scores.n, origin),
        _p_row(name, p_above(scores.estimate(0), null), scores.n, origin, len(null)),
    ]


def exchanged_training(
    train: Windows, val: Windows, shown: Windows, part: str, booster: Booster, origin: Provenance
) -> list[dict[str, Any]]:
    """gbt trained on exchanged labels, `RETRAINED` times: what it scores more than chance.

    Exchanged labels are like the true ones by accident, and what gbt learns of that carries to
    the part shown, in either direction: one training's score lies outside its own null far more
    often than that null says. Trainings are drawn independently, so the interval is Student's over
    them. That the mean excess of a sound store is 0 was measured (docs/statistics.md), and is no
    theorem: F1 is not linear. A leak lifts all.

    Raises:
        NotMeasurable: gbt cannot be trained.
    """
    kept = of_mode("realistic")
    X, X_val, X_shown = (each.features(kept) for each in (train, val, shown))
    truths = [shown.y, *exchanges(shown.y, shown.unit, 0)]
    found = []
    for i in range(1, RETRAINED + 1):
        rng = np.random.default_rng([SEED, i])
        y = exchange(train.y, train.unit, rng)
        y_val = exchange(val.y, val.unit, rng) if len(val) else val.y
        model = booster.fit(X, y, kept, X_val=X_val, y_val=y_val)
        predicted = model.predict_proba(X_shown).argmax(1)[None]
        found.append(mean_macro_f1(predicted, truths))
    scores = np.array(found)
    real, chance = scores[:, 0], scores[:, 1:].mean(1)
    over = np.where(np.abs(real - chance) > ROUNDING, real - chance, 0.0)
    name = Name(part, TRAINING, NAME, "realistic", (booster.seed,))
    figures = {"macro_f1": real, "macro_f1_null": chance, OVER_NULL: over}
    intervals = {
        metric: stats.ttest_1samp(values, 0.0).confidence_interval(0.95)
        for metric, values in figures.items()
    }
    return [
        row(
            name,
            metric,
            float(values.mean()),
            (len(shown), len(shown.episodes)),
            origin,
            interval=(float(intervals[metric].low), float(intervals[metric].high)),
            kind="student95",
            n_valid=RETRAINED,
            told=f"|trainings={RETRAINED}|draws={DRAWS}",
        )
        for metric, values in figures.items()
    ]


def _p_row(
    name: Name, p: float, n: tuple[int, int], origin: Provenance, draws: int
) -> dict[str, Any]:
    return row(name, "p", p, n, origin, n_valid=draws, told=f"|draws={draws}|one-sided")


def leaks(rows: Sequence[Mapping[str, Any]]) -> bool | None:
    """Whether gbt surely does better on exchanged labels than chance; None: not known."""
    found = [each["low"] for each in rows if (each["key"], each["metric"]) == (TRAINING, OVER_NULL)]
    return found[0] > 0 if found else None
