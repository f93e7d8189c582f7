"""Do 95% intervals cover clustered data as often as they say? Simulated, truth known."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest

from cis490.evaluation import compare_detectors
from cis490.evaluation.bootstrap import bca_interval, percentile_intervals
from cis490.evaluation.breakdowns import ALL, COMPARED, Cell, Scored, replicate

LABELS = ("a", "b", "c")
K = len(LABELS)
# Of each kind of episode: windows of each class, and how often a window is right.
KINDS = (((10, 0, 0), 0.9), ((4, 3, 3), 0.7), ((2, 4, 4), 0.5))
# An episode's skill is beta distributed with mean s: two of its windows agree about being right
# with correlation 1 / (concentration + 1).
MODERATE, HIGH = 4.0, 0.25
SIMULATIONS = 2_000


@dataclass
class Simulation:
    """Many samples of n episodes of three kinds, a run each, and the macro F1 they all estimate."""

    n: int
    concentration: float
    simulations: int = SIMULATIONS
    seed: int = 1

    def __post_init__(self) -> None:
        rng = np.random.default_rng(self.seed)
        self.kind = np.arange(self.n) % len(KINDS)
        self.truth = np.concatenate([np.repeat(np.arange(K), KINDS[kind][0]) for kind in self.kind])
        self.unit = np.repeat(np.arange(self.n), 10)
        s = np.array([KINDS[kind][1] for kind in self.kind])
        shape = (self.simulations, self.n)
        skill = rng.beta(s * self.concentration, (1 - s) * self.concentration, size=shape)
        right = rng.random((self.simulations, len(self.unit))) < skill[:, self.unit]
        wrong = (self.truth + rng.integers(1, K, size=right.shape)) % K
        self.predicted = np.where(right, self.truth, wrong)

    @property
    def macro_f1(self) -> float:
        """Of infinitely many episodes."""
        tp, predicted, truth = np.zeros((3, K))
        for kind in self.kind:
            windows, s = np.array(KINDS[kind][0]), KINDS[kind][1]
            tp += windows * s
            truth += windows
            predicted += windows * s + (windows.sum() - windows) * (1 - s) / (K - 1)
        return float(np.mean(2 * tp / (truth + predicted)))

    def coverage(self, replicates: int = 1_000, *, of_windows: bool = False) -> dict[str, float]:
        """Share of samples whose interval covers, by kind of interval."""
        unit = np.arange(len(self.unit)) if of_windows else self.unit
        strata = [str(kind) for kind in (self.kind[self.unit] if of_windows else self.kind)]
        scored = Scored(
            profile=strata,
            host=["one"] * len(strata),
            unit=unit,
            truth=self.truth,
            phase_share=np.ones(len(unit)),
            predicted=self.predicted,
            labels=LABELS,
        )
        cell = Cell.of(ALL, scored.counts(), np.ones(len(strata), dtype=bool), labels=LABELS)
        scores = replicate(scored, replicates, [cell])
        influence = cell.influence(COMPARED, strata)
        drawn, estimates = scores.replicates[0], scores.estimates[0]
        bca = [bca_interval(*of) for of in zip(drawn, estimates, influence, strict=True)]
        ends = {"percentile": percentile_intervals(drawn), "bca": np.array(bca)}
        return {
            name: float(
                ((low_high[:, 0] <= self.macro_f1) & (self.macro_f1 <= low_high[:, 1])).mean()
            )
            for name, low_high in ends.items()
        }


@pytest.mark.parametrize("n", [102, 201])
@pytest.mark.parametrize("concentration", [MODERATE, HIGH])
def test_both_intervals_cover_at_100_episodes_and_more(n: int, concentration: float) -> None:
    for share in Simulation(n, concentration).coverage().values():
        assert 0.93 <= share <= 0.97


def test_windows_as_the_unit_cover_far_less_where_those_of_an_episode_agree() -> None:
    # Correlation 0.8 and 10 windows an episode: the variance is 8 times what windows say.
    simulation = Simulation(102, HIGH, simulations=300)
    assert max(simulation.coverage(500, of_windows=True).values()) < 0.85
    assert min(simulation.coverage(500).values()) > 0.90


def test_bca_covers_more_than_percentiles_of_few_episodes() -> None:
    shares = Simulation(30, HIGH).coverage()
    assert shares["percentile"] < shares["bca"] < 0.97


def test_intervals_cover_where_the_truth_is_drawn_too(pytestconfig: pytest.Config) -> None:
    if not pytestconfig.getoption("long"):
        pytest.skip("two thousand comparisons: --long")
    assert min(Simulation(402, MODERATE).coverage(4_000).values()) > 0.935
    rng, n, covered = np.random.default_rng(2), 100, {"macro_f1": 0, "macro_f1_bca": 0}
    truth, predictions, cluster = _drawn(rng, 100_000)
    whole = compare_detectors(
        truth, predictions, cluster=cluster, replicates=2, per_class=False
    ).scores
    true = whole.filter(metric="macro_f1")["estimate"][0]
    for _ in range(SIMULATIONS):
        truth, predictions, cluster = _drawn(rng, n)
        scores = compare_detectors(
            truth, predictions, cluster=cluster, replicates=1_000, per_class=False
        ).scores
        for metric in covered:
            row = scores.filter(metric=metric).to_dicts()[0]
            covered[metric] += row["low"] <= true <= row["high"]
    for k in covered.values():
        assert 0.93 <= k / SIMULATIONS <= 0.97


def _drawn(
    rng: np.random.Generator, n: int
) -> tuple[np.ndarray, dict[str, np.ndarray], np.ndarray]:
    """n episodes of 10 windows, each with classes and a skill of its own."""
    mix = rng.dirichlet([0.5] * K, size=n)
    truth = (rng.random((n, 10, 1)) > np.cumsum(mix, axis=1)[:, None, :-1]).sum(-1)
    right = rng.random((n, 10)) < rng.beta(2, 1, size=(n, 1))
    said = np.where(right, truth, (truth + rng.integers(1, K, size=(n, 10))) % K)
    return truth.ravel(), {"one": said.ravel()}, np.repeat(np.arange(n), 10)
