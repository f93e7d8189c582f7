"""Figures of any kind: their means over seeds, and the interval that suits each."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy.stats import poisson

from cis490.evaluation.bootstrap import clopper_pearson
from cis490.evaluation.families import (
    NOT_MEASURABLE,
    Figure,
    figure_rows,
    interval_of,
    moved,
    poisson_interval,
    resample,
)
from cis490.evaluation.tables import Entrant, Provenance

ORIGIN = Provenance("host", "f" * 64, 400)
NEVER = float("inf")


def figure(kind: Any = "other", *, trials: int = 0, hours: float = 0.0, n: int = 6) -> Figure:
    return Figure("alarm", "all", "x", 10, np.ones(n, bool), kind, trials, hours)


class Given:
    """One figure, the mean over drawn episodes of (R, n) numbers."""

    def __init__(self, numbers: list[list[float]], kind: Any = "other") -> None:
        self._numbers = np.array(numbers)
        self.figures = [figure(kind, n=self._numbers.shape[1])]

    def estimates(self) -> np.ndarray:
        return self._numbers.mean(1)[None]

    def values(self, drawn: np.ndarray) -> np.ndarray:
        each = np.where(drawn > 0, self._numbers[:, :, None], 0) * drawn
        return each.sum(1)[None] / drawn.sum(0)


def rows(family: Given, strata: list[str]) -> list[dict[str, Any]]:
    n_runs = len(family.estimates()[0])
    entrant = Entrant("gbt", "oracle", tuple(range(n_runs)), tuple(range(n_runs)))
    (values,) = resample([[family]], strata, 400)
    return figure_rows("test", entrant, [family], values, strata, ORIGIN)


@pytest.mark.parametrize("k", [0, 1, 7])
def test_a_rates_ends_are_where_a_poisson_tail_is_2_5_percent(k: int) -> None:
    low, high = poisson_interval(k, 0.5)
    assert poisson.cdf(k, high * 0.5) == pytest.approx(0.025)
    assert low == 0 if k == 0 else poisson.sf(k - 1, low * 0.5) == pytest.approx(0.025)


def test_each_seed_has_a_row_and_all_together_another() -> None:
    found = rows(Given([[1, 2, 3, 4.0], [5, 6, 7, 8.0]]), ["a"] * 4)
    assert [row["seed"] for row in found] == [None, 0, 1]
    assert [row["estimate"] for row in found] == [4.5, 2.5, 6.5]
    widths = [row["high"] - row["low"] for row in found]
    assert widths[0] > max(widths[1:])  # the seeds are drawn too
    assert "|n=10/4|" in found[0]["signature"]


def test_a_seed_that_is_not_drawn_says_nothing_be_it_infinite() -> None:
    found = rows(Given([[1.0, 2, 3, 4], [NEVER] * 4], "delay"), ["a"] * 4)
    assert found[0]["estimate"] == NEVER
    assert 1 <= found[0]["low"] <= 4  # a quarter of the replicates draw the first seed twice
    assert found[0]["high"] == NEVER
    assert found[0]["n_valid_replicates"] == 400


def test_a_delays_interval_ends_on_replicates() -> None:
    values = np.array([1.0] * 10 + [2.0] * 380 + [NEVER] * 10)
    assert interval_of(figure("delay"), 2.0, values) == ((1.0, NEVER), "percentile")
    assert interval_of(figure("delay"), 2.0, np.full(50, 2.0)) == ((2.0, 2.0), "percentile")


@pytest.mark.parametrize(("estimate", "k"), [(0.0, 0), (1.0, 9)])
def test_a_share_of_none_or_all_has_an_exact_interval(estimate: float, k: int) -> None:
    of = figure("share", trials=9)
    assert interval_of(of, estimate, np.full(50, estimate)) == (clopper_pearson(k, 9), "exact")


def test_a_count_of_zero_has_an_exact_interval_and_another_has_not() -> None:
    of = figure("rate", hours=2.0)
    assert interval_of(of, 0.0, np.zeros(50)) == (poisson_interval(0, 2.0), "exact")
    assert interval_of(of, 0.5, np.linspace(0, 1, 41))[1] == "percentile"


def test_what_resampling_cannot_move_has_no_interval() -> None:
    assert interval_of(figure(), 0.3, np.full(50, 0.3)) == (None, "none")
    assert interval_of(figure(), 0.3, None) == (None, "none")
    assert interval_of(figure(), float("nan"), np.linspace(0, 1, 41)) == (None, NOT_MEASURABLE)
    alone = rows(Given([[1.0, 2.0]]), ["a", "b"])
    assert (alone[0]["low"], alone[0]["high"]) == (None, None)


def test_an_episode_alone_in_its_stratum_moves_nothing() -> None:
    first = Figure("alarm", "all", "x", 1, np.array([True, False, False]))
    both = Figure("alarm", "all", "x", 1, np.array([True, True, False]))
    assert moved([first, both], ["a", "b", "b"]) == [False, True]


@pytest.mark.parametrize("kind", ["delay", "share", "other"])
def test_one_episode_says_the_same_in_every_replicate_and_has_no_interval(kind: Any) -> None:
    of_one = figure(kind, n=6)._replace(episodes=np.arange(6) == 2)
    of_two = of_one._replace(episodes=np.arange(6) < 2)
    assert moved([of_one, of_two], ["io-walk"] * 6) == [False, True]
