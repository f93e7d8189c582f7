"""Temperature, reliability, ECE, Brier score and likelihood of arrays."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from sklearn.metrics import brier_score_loss, log_loss

from cis490.evaluation.bootstrap import episode_weights
from cis490.evaluation.calibration import (
    BINS,
    COLDEST,
    EDGES,
    FLOOR,
    Calibration,
    Reliability,
    Sums,
    bins,
    fit_temperature,
    scaled,
)
from cis490.evaluation.families import figure_rows, resample
from cis490.evaluation.tables import Entrant, Provenance

K = 5
CNN = Entrant("cnn", "oracle", (), (0,))
ORIGIN = Provenance("host", "c0ffee", 500)


def softmax(z: np.ndarray) -> np.ndarray:
    e = np.exp(z - z.max(-1, keepdims=True))
    return np.asarray(e / e.sum(-1, keepdims=True))


def detected(
    n: int = 30, each: int = 7, *, sure: float = 2.0, seed: int = 0, runs: int = 1
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Probabilities (runs, n_windows, K) that are `sure` times as sure as they should be."""
    rng = np.random.default_rng(seed)
    unit = np.repeat(np.arange(n), each)
    z = rng.normal(0, 1.5, (runs, n * each, K))
    chances = softmax(z[0])
    truth = (chances.cumsum(1) < rng.random((len(unit), 1))).sum(1)
    return softmax(sure * z).astype(np.float32), truth, unit


def torchmetrics_ece(p: np.ndarray, truth: np.ndarray) -> float:
    """As torchmetrics has it: norm l1, `bucketize(..., right=True) - 1`, 15 bins."""
    confidence, right = p.max(1), p.argmax(1) == truth
    total = 0.0
    for b in range(BINS):
        chosen = (confidence >= EDGES[b]) & (confidence < EDGES[b + 1])
        if chosen.any():
            gap = abs(right[chosen].mean() - confidence[chosen].mean())
            total += gap * chosen.mean()
    return float(total)


def by_name(family: Any, run: int = 0) -> dict[str, float]:
    names = [figure.metric for figure in family.figures]
    return dict(zip(names, family.estimates()[:, run].tolist(), strict=True))


@pytest.mark.parametrize("seed", range(5))
def test_metrics_are_those_of_others(seed: int) -> None:
    p, truth, unit = detected(sure=1 + seed, seed=seed)
    p = p.astype(float) / p.astype(float).sum(-1, keepdims=True)
    ours = by_name(Calibration(Sums.of(p, truth, unit, 30)))
    assert ours["ece"] == pytest.approx(torchmetrics_ece(p[0], truth), abs=1e-9)
    expected = brier_score_loss(truth, p[0], labels=range(K))
    assert ours["brier"] == pytest.approx(expected, abs=1e-9)
    assert ours["nll"] == pytest.approx(log_loss(truth, p[0], labels=range(K)), abs=1e-9)


def test_a_replicate_is_the_figure_of_the_episodes_it_drew() -> None:
    p, truth, unit = detected(n=12, runs=2)
    after = scaled(p, 1.7)
    family = Calibration(Sums.of(p, truth, unit, 12), Sums.of(after, truth, unit, 12))
    weights = np.concatenate(list(episode_weights(["a", "b"] * 6, 4))).T
    values = family.values(weights.astype(np.float32))
    names = [figure.metric for figure in family.figures]
    for b in range(4):
        drawn = np.repeat(np.arange(len(unit)), weights[unit, b].astype(int))
        for run in range(2):
            found = dict(zip(names, values[:, run, b], strict=True))
            for suffix, own in (("", p[run]), ("_scaled", after[run])):
                ece = torchmetrics_ece(own[drawn].astype(float), truth[drawn])
                assert found[f"ece{suffix}"] == pytest.approx(ece, abs=1e-6)
            of_truth = [np.log(own[run][drawn, truth[drawn]]).mean() for own in (p, after)]
            assert found["nll_change"] == pytest.approx(of_truth[0] - of_truth[1], abs=1e-5)
            change = found["brier_scaled"] - found["brier"]
            assert found["brier_change"] == pytest.approx(change, abs=1e-6)


def test_the_order_of_the_episodes_changes_no_bit_of_a_replicate() -> None:
    """Sums are exact, so neither order nor threads can show."""
    p, truth, unit = detected(n=200, runs=2)
    weights = next(episode_weights(["a"] * 200, 50)).T
    order = np.random.default_rng(1).permutation(200)
    moved = np.argsort(order)[unit]
    one = Calibration(Sums.of(p, truth, unit, 200)).values(weights)
    other = Calibration(Sums.of(p, truth, moved, 200)).values(weights[order])
    assert np.array_equal(one, other)


def test_an_edge_belongs_to_the_bin_below_and_certainty_to_the_last() -> None:
    assert bins(np.array([0.2, 0.2001, EDGES[4], 1.0])).tolist() == [2, 3, 3, BINS - 1]


def test_a_probability_of_zero_costs_much_but_not_everything() -> None:
    p = np.array([[[1.0, 0, 0, 0, 0]]], np.float32)
    cost = by_name(Calibration(Sums.of(p, np.array([1]), np.array([0]), 1)))
    assert cost["nll"] == pytest.approx(-np.log(FLOOR))
    assert np.isfinite(scaled(p, 3.0)).all()


def test_scaling_keeps_the_most_probable_phase_and_a_sum_of_one() -> None:
    p = detected()[0]
    for temperature in (0.3, 1.0, 4.0):
        again = scaled(p, temperature)
        assert np.array_equal(again.argmax(-1), p.argmax(-1))
        np.testing.assert_allclose(again.sum(-1), 1)
    np.testing.assert_allclose(scaled(p, 1.0), p, atol=1e-6)


def test_the_temperature_is_what_the_probabilities_were_sharpened_by() -> None:
    p, truth, unit = detected(n=400, sure=2.5)
    found = fit_temperature(p[0], truth, unit)
    assert found.interval is not None
    assert found.interval[0] < 2.5 < found.interval[1]
    assert found.value == pytest.approx(2.5, rel=0.1)
    losses = [
        log_loss(truth, scaled(p[0], found.value * factor))
        for factor in (0.98, 0.999, 1, 1.001, 1.02)
    ]
    assert losses[2] <= min(losses) + 1e-9
    assert losses[0] > losses[2] < losses[4]


def test_the_interval_of_the_temperature_covers_as_often_as_it_says() -> None:
    covered = 0
    for seed in range(200):
        p, truth, unit = detected(n=60, each=5, sure=2.0, seed=seed)
        interval = fit_temperature(p[0], truth, unit).interval
        assert interval is not None
        covered += interval[0] <= 2.0 <= interval[1]
    assert 180 <= covered <= 198


def test_a_window_said_four_times_in_an_episode_makes_the_temperature_no_surer() -> None:
    p, truth, unit = detected()
    once = fit_temperature(p[0], truth, unit)
    often = fit_temperature(*(np.repeat(each, 4, axis=0) for each in (p[0], truth, unit)))
    assert often.value == pytest.approx(once.value, rel=1e-4)
    assert often.interval == pytest.approx(once.interval, rel=1e-4)


def test_a_temperature_where_the_search_ends_has_no_interval() -> None:
    p, _, unit = detected()
    always_right = fit_temperature(p[0], p[0].argmax(1), unit)
    assert always_right.at_bound
    assert always_right.value == pytest.approx(COLDEST, rel=0.01)
    assert always_right.interval is None


def test_the_temperature_of_one_episode_or_of_equal_probabilities_has_no_interval() -> None:
    p, truth, unit = detected()
    assert fit_temperature(p[0], truth, 0 * unit).interval is None
    alike = fit_temperature(np.full((9, K), 0.2), np.zeros(9, int), np.arange(9))
    assert (alike.value, alike.interval) == (1, None)


def rows_of(
    p: np.ndarray, truth: np.ndarray, unit: np.ndarray, strata: list[str]
) -> list[dict[str, Any]]:
    family = Reliability(Sums.of(p, truth, unit, len(strata)))
    runs = tuple(range(len(p)))
    (values,) = resample([[family]], strata, 500)
    return family.rows(values, Entrant("cnn", "oracle", runs, runs), strata)


def test_a_reliability_row_says_what_its_bin_holds() -> None:
    p, truth, unit = detected(n=40, runs=3)
    rows = rows_of(p, truth, unit, ["a", "b"] * 20)
    assert [row["bin"] for row in rows] == list(range(BINS))
    confidence, right = p.max(-1), p.argmax(-1) == truth
    for row in rows:
        chosen = (confidence > row["low_edge"]) & (confidence <= row["high_edge"])
        assert row["n_windows"] == chosen.sum()
        assert row["n_episodes"] == len(set(unit[chosen.any(0)]))
        if chosen.any():
            assert row["accuracy"] == pytest.approx(right[chosen].mean())
            assert row["confidence"] == pytest.approx(confidence[chosen].mean())
            assert row["low"] <= row["accuracy"] <= row["high"]
        else:
            assert "accuracy" not in row
    assert sum(row["n_windows"] for row in rows) == 3 * len(unit)


def test_a_bin_that_is_always_right_has_an_exact_interval_by_episodes() -> None:
    p = np.tile(np.float32([0.96, 0.01, 0.01, 0.01, 0.01]), (1, 20, 1))
    (last,) = [
        row
        for row in rows_of(p, np.zeros(20, int), np.repeat(np.arange(4), 5), ["a"] * 4)
        if row["n_windows"]
    ]
    assert (last["accuracy"], last["high"]) == (1, 1)
    assert last["low"] == pytest.approx(0.025 ** (1 / 4))


def test_an_episode_alone_gives_a_bin_no_interval() -> None:
    p, truth, unit = detected(n=1, each=200)
    mixed = [row for row in rows_of(p, truth, unit, ["a"]) if 0 < row.get("accuracy", 0) < 1]
    assert mixed
    assert {row["low"] for row in mixed} == {None}


def test_the_interval_of_ece_starts_near_zero_where_nothing_is_wrong() -> None:
    """Replicates of an ECE are larger than it: percentiles would say that it is miscalibrated."""
    for seed in range(20):
        p, truth, unit = detected(n=44, each=11, sure=1.0, seed=seed)
        family = Calibration(Sums.of(p, truth, unit, 44))
        (values,) = resample([[family]], ["a"] * 44, 500)
        percentile = np.quantile(values[0, 0], [0.025, 0.975])
        (row, *_) = figure_rows("test", CNN, [family], values, ["a"] * 44, ORIGIN)
        assert row["metric"] == "ece"
        assert "interval=basic" in row["signature"]
        assert 0 <= row["low"] < 0.03 < percentile[0]
        assert row["estimate"] <= row["high"] < percentile[1]


def test_the_interval_of_ece_covers_a_real_miscalibration() -> None:
    p, truth, unit = detected(n=20_000, each=11, sure=2.0, seed=1)
    whole = by_name(Calibration(Sums.of(p, truth, unit, 20_000)))["ece"]
    covered = 0
    for start in range(0, 20_000, 200):
        own = (unit >= start) & (unit < start + 60)
        family = Calibration(Sums.of(p[:, own], truth[own], unit[own] - start, 60))
        (values,) = resample([[family]], ["a"] * 60, 250)
        (row, *_) = figure_rows("test", CNN, [family], values, ["a"] * 60, ORIGIN)
        covered += row["low"] <= whole <= row["high"]
    assert 87 <= covered <= 100
