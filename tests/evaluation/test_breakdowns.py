"""Figures under resampling, on episodes small enough to reason about."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from cis490.evaluation import breakdowns
from cis490.evaluation.bootstrap import clopper_pearson, effect_size, percentile_interval
from cis490.evaluation.breakdowns import (
    ALL,
    CLEAR,
    COMPARED,
    Replicated,
    Row,
    Scored,
    cells,
    in_groups,
    replicate,
)
from cis490.evaluation.metrics import Sums, confusion, macro_f1
from cis490.evaluation.tables import BCA, Entrant, Provenance, metric_rows, pairwise_rows

ORIGIN = Provenance("host", "f" * 64, 400)


def scored(
    truth: list[list[int]],
    *predicted: list[list[int]],
    profile: list[str] | None = None,
    host: list[str] | None = None,
    share: list[float] | None = None,
    **known: Any,
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
        **known,
    )


def drawn(n: int, runs: int, seed: int = 0, **known: Any) -> Scored:
    """n episodes of 11 random windows, two profiles, two hosts."""
    rng = np.random.default_rng(seed)
    truth = rng.integers(5, size=(n, 11))
    said = np.where(rng.random((runs, n, 11)) < 0.6, truth, rng.integers(5, size=(runs, n, 11)))
    names = [["io-walk", "none"][i % 3 == 0] for i in range(n)]
    hosts = [["birch", "elm"][i % 4 == 0] for i in range(n)]
    return scored(truth.tolist(), *said.tolist(), profile=names, host=hosts, **known)


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


def keys(data: Scored, scope: str) -> dict[tuple[str, str], tuple[int, ...]]:
    """By key and metric, the episodes of each cell of a scope."""
    return {
        (cell.key, cell.metrics[0]): tuple(cell.index.tolist())
        for cell in cells(data)
        if cell.scope == scope
    }


def test_samples_are_broken_down_within_their_profile() -> None:
    data = scored(
        *([[[0, 1]] * 5] * 2),
        profile=["io-walk", "io-walk", "fork-churn", "none", "io-walk"],
        sample=["a", "b", "a", "none", "a"],
    )
    assert keys(data, "sample") == {
        ("fork-churn/a", "macro_f1"): (2,),
        ("io-walk/a", "macro_f1"): (0, 4),
        ("io-walk/b", "macro_f1"): (1,),
        ("none/none", "false_alarm_rate"): (3,),
    }


def test_an_episode_is_in_the_cell_of_each_of_its_works_and_an_unknown_one_in_none() -> None:
    works = [["build", "sync"], ["sync", "sync"], None, [], ["build"]]
    data = scored(
        *([[[0, 1]] * 5] * 2),
        profile=["io-walk", "none", "io-walk", "io-walk", "none"],
        background=works,
    )
    assert keys(data, "background") == {
        ("build", "macro_f1"): (0, 4),
        ("build", "false_alarm_rate"): (4,),
        ("none", "macro_f1"): (3,),
        ("sync", "macro_f1"): (0, 1),
        ("sync", "false_alarm_rate"): (1,),
    }


def test_degraded_episodes_stand_apart() -> None:
    data = scored(*([[[0, 1]] * 3] * 2), status=["accepted", "degraded", "accepted"])
    assert keys(data, "status") == {
        ("accepted", "macro_f1"): (0, 2),
        ("degraded", "macro_f1"): (1,),
    }


def test_of_too_many_names_those_with_the_most_episodes_are_kept(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(breakdowns, "MOST_KEYS", 2)
    names = ["rare", "x", "y", "x", "y", "also-rare"]
    data = scored(*([[[0, 1]] * 6] * 2), sample=names)
    with caplog.at_level("WARNING", "cis490"):
        assert {key for key, _ in keys(data, "sample")} == {"io-walk/x", "io-walk/y"}
    assert "by sample: 2 of 4" in caplog.text


def test_a_cell_of_one_episode_is_kept_with_its_n_and_without_an_interval() -> None:
    data = scored([[0, 1], [0, 1], [0, 4]], [[0, 0], [0, 1], [0, 0]], sample=["a", "a", "b"])
    row = figure(metric_rows("test", replicate(data, 50), [one()], ORIGIN), *SAMPLE_B)
    assert (row["n_windows"], row["n_episodes"], row["low"]) == (2, 1, None)
    assert row["estimate"] == pytest.approx(1 / 3)


SAMPLE_B = ("sample", "io-walk/b", "macro_f1")


def assert_same(ours: Replicated, theirs: Replicated) -> None:
    """The same figures to the bit, in whatever order."""
    assert sorted(row for row, _ in ours.rows) == sorted(row for row, _ in theirs.rows)
    for f, (row, _) in enumerate(ours.rows):
        at = theirs.find(*row[:3])
        assert ours.n_valid[f] == theirs.n_valid[at]
        assert ours.resampled[f] == theirs.resampled[at]
        np.testing.assert_array_equal(ours.estimates[f], theirs.estimates[at])
        np.testing.assert_array_equal(ours.replicates[f], theirs.replicates[at])


KNOWN = {"sample": list("aabbabbab"), "background": [["x"], ["x", "y"], []] * 3}


def test_groups_of_cells_give_the_figures_of_all_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    data = drawn(9, 2, **KNOWN)
    whole = replicate(data, 300)
    monkeypatch.setattr(breakdowns, "HELD", 1)
    groups = list(in_groups(cells(data), 300))
    assert len(groups) == len(cells(data)) > 5
    parts = [replicate(data, 300, group) for group in groups]
    joined = {
        name: np.concatenate([getattr(part, name) for part in parts])
        for name in ("estimates", "replicates", "n_valid", "resampled")
    }
    rows = [row for part in parts for row in part.rows]
    assert_same(replace(whole, rows=rows, **joined), whole)


def test_cells_added_from_pieces_are_the_same_bits_as_each_by_itself(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    data = drawn(9, 2, **KNOWN)
    alone = replicate(data, 300)
    assert breakdowns._together(cells(data))[0].order is None
    monkeypatch.setattr(breakdowns, "_OF_A_PIECE", 0)
    assert breakdowns._together(cells(data))[0].order is not None
    assert_same(replicate(data, 300), alone)


def test_counts_in_single_precision_give_the_same_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    data = drawn(40, 3)
    double = replicate(data, 300)
    monkeypatch.setattr(breakdowns, "_MANY", 0)
    single = replicate(data, 300)
    assert single.rows[0][1].counts.table.dtype == np.float32
    np.testing.assert_array_equal(single.replicates, double.replicates)


def test_counts_that_single_precision_cannot_hold_stay_double(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(breakdowns, "_MANY", 0)
    monkeypatch.setattr(breakdowns, "_EXACT", 40 * 11)
    assert drawn(40, 1).counts().table.dtype == np.float64
    assert drawn(39, 1).counts().table.dtype == np.float32


@pytest.mark.parametrize("scope", [ALL, ("host", "elm")], ids=["all", "a host"])
def test_the_influence_of_an_episode_is_that_of_leaving_it_out(scope: tuple[str, str]) -> None:
    data = drawn(13, 2)
    (cell,) = (cell for cell in cells(data) if (cell.scope, cell.key) == scope)
    n = len(data.profile)
    left_out = np.empty((2, n))
    for i in range(n):
        alike = np.array([name == data.profile[i] for name in data.profile])
        weights = np.where(alike, alike.sum() / (alike.sum() - 1), 1.0)
        weights[i] = 0
        of_cell = np.isin(np.arange(n), cell.index)
        for run in range(2):
            counts = confusion(data.truth, data.predicted[run], data.unit, n)
            matrix = (counts * (weights * of_cell)[:, None, None]).sum(0)
            left_out[run, i] = macro_f1(Sums.of(matrix), cell.phases)
    expected = np.empty_like(left_out)
    for name in set(data.profile):
        member = [i for i in range(n) if data.profile[i] == name]
        mean = left_out[:, member].mean(1, keepdims=True)
        expected[:, member] = (mean - left_out[:, member]) * (len(member) - 1) / len(member)
    np.testing.assert_allclose(cell.influence(COMPARED, data.profile), expected, atol=1e-12)


def test_macro_f1_of_all_and_of_each_host_has_a_bca_interval_beside_the_other() -> None:
    data = drawn(24, 2)
    scores = replicate(data, 400)
    rows = metric_rows("test", scores, [Entrant("gbt", "oracle", (1, 2), (0, 1))], ORIGIN)
    own = [row for row in rows if row["metric"] == BCA]
    assert {(row["scope"], row["key"], row["seed"]) for row in own} == {
        (*ALL, None),
        ("host", "birch", None),
        ("host", "elm", None),
    }
    for row in own:
        plain = figure(rows, row["scope"], row["key"], COMPARED)
        assert "interval=bca|" in row["signature"]
        assert row["signature"].startswith("macro_f1_bca|")
        assert "interval=percentile|" in plain["signature"]
        assert row["low"] < row["estimate"] == plain["estimate"] < row["high"]
        assert (row["low"], row["high"]) != (plain["low"], plain["high"])
        assert row["high"] - row["low"] == pytest.approx(plain["high"] - plain["low"], rel=0.2)


def test_seeds_that_differ_count_among_what_moves_a_figure() -> None:
    of_runs = np.array([[0.1, -0.1], [0.3, -0.3]])
    found = Entrant("gbt", "oracle", (1, 2), (0, 1)).influence(of_runs, np.array([0.5, 0.9]))
    np.testing.assert_allclose(found, [0.2, -0.2, -0.1, 0.1])


def test_a_figure_with_an_exact_interval_has_no_other() -> None:
    truth = [[0, 4], [0, 0], [0, 4]]
    rows = metric_rows("test", replicate(scored(truth, truth), 100), [one()], ORIGIN)
    bca, plain = figure(rows, *ALL, BCA), figure(rows, *ALL, COMPARED)
    assert (bca["low"], bca["high"]) == (plain["low"], plain["high"])
    assert "interval=exact|" in bca["signature"]


def test_a_pair_has_the_effect_of_its_episodes() -> None:
    data = drawn(24, 3)
    scores = replicate(data, 400)
    both, other = Entrant("cnn", "oracle", (1, 2), (0, 1)), one(2)
    (pair,) = pairwise_rows(scores, [both, other], ORIGIN)
    influence = scores.rows[0][1].influence(COMPARED, data.profile)
    between = influence[:2].mean(0) - influence[2]
    assert pair["effect"] == effect_size(pair["diff"], between, data.profile)
    # d sqrt(n) is the difference in standard errors, here those of the replicates.
    alone = scores.replicates[0, :2].mean(0) - scores.replicates[0, 2]
    assert pair["effect"] * np.sqrt(24) == pytest.approx(pair["diff"] / alone.std(), rel=0.15)


def test_other_classes_than_the_phases_are_counted_alike() -> None:
    truth, said = [[0, 6, 6], [5, 0, 6]] * 3, [[0, 6, 5], [5, 5, 6]] * 3
    data = replace(scored(truth, said), labels=list("abcdefg"))
    scores = replicate(data, 50)
    assert {row.key for row, _ in scores.rows if row.scope == "phase"} == {"a", "f", "g"}
    at = find(scores, "phase", "g", "recall")
    assert scores.estimates[at, 0] == pytest.approx(2 / 3)


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


def test_a_run_and_three_seeds_that_say_the_same_differ_by_nothing_at_all() -> None:
    rng = np.random.default_rng(7)
    truth = rng.integers(5, size=(9, 11)).tolist()
    said = rng.integers(5, size=(9, 11)).tolist()
    scores = replicate(scored(truth, *[said] * 4), 400)
    three = Entrant("gru", "oracle", (1, 2, 3), (1, 2, 3))
    (pair,) = pairwise_rows(scores, [one(0, "cnn"), three], ORIGIN)
    assert (pair["diff"], pair["low"], pair["high"], pair["p"]) == (0, 0, 0, 1)
    assert pair["effect"] is None


def test_a_difference_that_resampling_cannot_move_is_no_certainty() -> None:
    truth = [[k, k] for k in range(5)] * 4
    wrong = [[(k + 1) % 5] * 2 for k in range(5)] * 4
    scores = replicate(scored(truth, truth, wrong, truth), 400)
    entrants = [one(0, "cnn"), one(1, "gru"), one(2, "gbt")]
    pairs = {
        (row["model_a"], row["model_b"]): row for row in pairwise_rows(scores, entrants, ORIGIN)
    }
    pair = pairs["cnn", "gru"]
    assert pair["diff"] == 1
    for name in ("low", "high", "effect", "p", "p_holm", "significant_95", "significant_holm"):
        assert pair[name] is None
    assert pairs["cnn", "gbt"]["p_holm"] == 1  # of one test, not of three


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
    unknown = ["low", "high", "effect", "p", "p_holm", "significant_95", "significant_holm"]
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
