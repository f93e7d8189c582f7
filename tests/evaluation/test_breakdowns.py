"""Figures under resampling, on episodes small enough to reason about."""

from __future__ import annotations

import numpy as np
import pytest

from cis490.evaluation.bootstrap import clopper_pearson, percentile_interval
from cis490.evaluation.breakdowns import ALL, CLEAR, Replicated, Row, Scored, cells, replicate
from cis490.evaluation.tables import Entrant, Provenance, metric_rows, pairwise_rows

ORIGIN = Provenance("host", "f" * 64, 400)


def scored(
    truth: list[list[int]],
    *predicted: list[list[int]],
    profile: list[str] | None = None,
    host: list[str] | None = None,
    share: list[float] | None = None,
) -> Scored:
    """Episodes as lists of windows."""
    unit = np.repeat(np.arange(len(truth)), [len(windows) for windows in truth])
    return Scored(
        profile=profile or ["io-walk"] * len(truth),
        host=host or ["birch"] * len(truth),
        unit=unit,
        truth=np.concatenate(truth),
        phase_share=np.array(share or [1.0] * len(unit)),
        predicted=np.stack([np.concatenate(run) for run in predicted]),
    )


def find(scores: Replicated, scope: str, key: str, metric: str) -> int:
    names = [(row.scope, row.key, row.metric) for row, _ in scores.rows]
    return names.index((scope, key, metric))


def figure(rows: list[dict], scope: str, key: str, metric: str) -> dict:
    wanted = {"scope": scope, "key": key, "metric": metric, "seed": None}
    return next(row for row in rows if wanted.items() <= row.items())


def one(run: int = 0, name: str = "gbt") -> Entrant:
    return Entrant(name, "oracle", (42,), (run,))


def test_a_phase_missing_in_a_replicate_is_skipped_and_counted() -> None:
    # Phase 4 lives in one of three episodes: absent with probability (2/3)^3 = 0.296.
    truth = [[0, 0], [0, 0], [0, 4]]
    scores = replicate(scored(truth, [[0, 0], [0, 0], [0, 0]]), 4000)
    overall, dormant = find(scores, *ALL, "macro_f1"), find(scores, "phase", "dormant", "f1")
    absent = np.isnan(scores.replicates[dormant, 0])
    assert absent.mean() == pytest.approx(8 / 27, abs=0.03)
    assert scores.n_valid[dormant] == scores.n_valid[overall] == (~absent).sum()
    # There only clean is left, and it is right throughout; elsewhere dormant's 0 counts.
    assert (scores.replicates[overall, 0, absent] == 1).all()
    assert (scores.replicates[overall, 0, ~absent] < 0.5).all()
    assert scores.n_valid[find(scores, *ALL, "accuracy")] == 4000


def test_a_replicate_scores_the_drawn_windows() -> None:
    rng = np.random.default_rng(3)
    truth = rng.integers(5, size=(6, 11)).tolist()
    said = rng.integers(5, size=(6, 11)).tolist()
    data = scored(truth, said)
    for cell in cells(data)[:1]:
        drawn = [2, 2, 5, 0, 0, 0]
        weights = np.bincount(drawn, minlength=6)[None].astype(float)
        again = scored([truth[i] for i in drawn], [said[i] for i in drawn])
        expected = cells(again)[0].values(np.ones((1, 6)))[0]
        np.testing.assert_allclose(cell.values(weights)[0], expected, atol=1e-12)


def test_breakdowns_take_the_windows_of_their_scope() -> None:
    truth = [[0, 1], [0, 1], [0, 0]]
    data = scored(
        truth,
        [[0, 1], [0, 0], [3, 0]],
        profile=["io-walk", "fork-churn", "none"],
        host=["birch", "elm", "elm"],
        share=[1, 0.8, 0.79, 1, 1, 1],
    )
    scores = replicate(data, 50)
    rows = {row[:3]: (row, scores.estimates[i, 0]) for i, (row, _) in enumerate(scores.rows)}
    assert rows["profile", "io-walk", "macro_f1"][1] == 1
    assert rows["profile", "fork-churn", "macro_f1"][1] == pytest.approx((2 / 3 + 0) / 2)
    assert rows["profile", "none", "false_alarm_rate"][1] == 0.5
    assert ("profile", "none", "macro_f1") not in rows
    assert rows["host", "elm", "macro_f1"][0].n_windows == 4
    assert rows[*CLEAR, "macro_f1"][0].n_windows == 5
    assert rows["phase", "armed", "f1"][0] == Row("phase", "armed", "f1", 2, 2)


def test_identical_models_differ_by_exactly_nothing() -> None:
    rng = np.random.default_rng(0)
    truth = rng.integers(5, size=(8, 11)).tolist()
    said = rng.integers(5, size=(8, 11)).tolist()
    scores = replicate(scored(truth, said, said), 400)
    overall = find(scores, *ALL, "macro_f1")
    a, b = one(0, "cnn"), one(1, "gru")
    difference = a.mean_over_seeds(scores.replicates[overall])
    difference = difference - b.mean_over_seeds(scores.replicates[overall])
    assert (difference == 0).all()
    (pair,) = pairwise_rows(scores, [a, b], ORIGIN)
    assert (pair["diff"], pair["low"], pair["high"]) == (0, 0, 0)
    assert (pair["p"], pair["p_holm"]) == (1, 1)
    assert not pair["significant_95"]
    assert not pair["significant_holm"]


def test_seeds_are_crossed_with_episodes_and_widen_the_interval() -> None:
    rng = np.random.default_rng(1)
    truth = rng.integers(5, size=(30, 11)).tolist()
    good, bad = truth, rng.integers(5, size=(30, 11)).tolist()
    scores = replicate(scored(truth, good, bad), 2000)
    both = Entrant("gbt", "oracle", (1, 2), (0, 1))
    drawn = scores.replicates[find(scores, *ALL, "accuracy")]
    mixed = both.mean_over_seeds(drawn)
    # Each replicate takes its seeds for all episodes at once: two bad, one of each, two good.
    expected = [drawn[1], drawn.mean(0), drawn[0]]
    nearest = np.argmin([np.abs(mixed - value) for value in expected], axis=0)
    np.testing.assert_allclose(mixed, np.choose(nearest, expected), atol=1e-12)
    shares = np.bincount(nearest, minlength=3) / len(mixed)
    assert shares == pytest.approx([0.25, 0.5, 0.25], abs=0.05)
    rows = metric_rows("test", scores, [both], ORIGIN)
    over_all = figure(rows, *ALL, "accuracy")
    alone = [row for row in rows if row["metric"] == "accuracy" and row["seed"] == 2]
    assert over_all["estimate"] == pytest.approx(scores.estimates[:, :].mean(1)[2])
    assert over_all["high"] - over_all["low"] > alone[0]["high"] - alone[0]["low"]


def test_a_figure_of_zero_or_one_gets_an_exact_interval_with_episodes_as_trials() -> None:
    truth = [[0, 4]] * 10
    scores = replicate(scored(truth, [[0, 0]] * 10), 100)
    rows = metric_rows("test", scores, [one()], ORIGIN)
    _, high = clopper_pearson(0, 10)
    recall = figure(rows, "phase", "dormant", "recall")
    assert (recall["estimate"], recall["low"], recall["high"]) == (0, 0, pytest.approx(high))
    f1 = figure(rows, "phase", "dormant", "f1")
    assert f1["high"] == pytest.approx(2 * high / (1 + high))
    assert "interval=exact" in f1["signature"]
    never = figure(rows, "phase", "dormant", "precision")
    assert (never["low"], never["high"]) == (0, 1)  # never predicted: nothing is known
    assert figure(rows, "phase", "clean", "recall")["low"] == pytest.approx(1 - high)


def test_a_perfect_model_is_not_said_to_be_certain() -> None:
    truth = [[0, 4], [0, 0], [0, 4]]
    rows = metric_rows("test", replicate(scored(truth, truth), 100), [one()], ORIGIN)
    macro = figure(rows, *ALL, "macro_f1")
    assert macro["estimate"] == macro["high"] == 1
    clean, dormant = clopper_pearson(3, 3)[0], clopper_pearson(2, 2)[0]
    as_f1 = [2 * low / (1 + low) for low in (clean, dormant)]
    assert macro["low"] == pytest.approx(np.mean(as_f1))


@pytest.mark.parametrize(
    ("truth", "profile"),
    [([[0, 4, 4]], ["io-walk"]), ([[0, 4, 4]] * 2, ["io-walk", "fork-churn"])],
    ids=["one episode", "one episode in each stratum"],
)
def test_nothing_to_resample_gives_no_interval_and_no_p(
    truth: list[list[int]], profile: list[str]
) -> None:
    said = [[0, 4, 0]] * len(truth)
    scores = replicate(scored(truth, said, truth, profile=profile), 100)
    entrants = [one(0, "cnn"), one(1, "gru")]
    macro = figure(metric_rows("test", scores, entrants[:1], ORIGIN), *ALL, "macro_f1")
    assert 0 < macro["estimate"] < 1
    assert (macro["low"], macro["high"]) == (None, None)
    (pair,) = pairwise_rows(scores, entrants, ORIGIN)
    assert pair["diff"] < 0
    unknown = ["low", "high", "p", "p_holm", "significant_95", "significant_holm"]
    assert {pair[key] for key in unknown} == {None}


def test_episodes_that_are_all_alike_give_no_interval_rather_than_one_without_width() -> None:
    scores = replicate(scored([[0, 4, 4]] * 9, [[0, 4, 0]] * 9), 100)
    rows = metric_rows("test", scores, [one()], ORIGIN)
    assert figure(rows, *ALL, "accuracy")["low"] is None


def test_intervals_cover_clustered_data_as_often_as_they_say() -> None:
    # An episode is right with a probability of its own, so its windows agree with each other.
    rng = np.random.default_rng(11)
    covered, trials, n = 0, 150, 60
    for _ in range(trials):
        skill = rng.beta(2, 1, size=n)
        right = rng.random((n, 10)) < skill[:, None]
        data = scored([[0] * 10] * n, np.where(right, 0, 1).tolist())
        scores = replicate(data, 250)
        interval = percentile_interval(scores.replicates[find(scores, *ALL, "accuracy"), 0])
        assert interval is not None
        covered += interval[0] <= 2 / 3 <= interval[1]
    assert 0.89 <= covered / trials <= 0.99
