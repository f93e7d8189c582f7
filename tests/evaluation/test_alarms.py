"""Alarms in time, on episodes small enough to reason about and against plain loops."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from cis490.channels import PHASES
from cis490.evaluation.alarms import (
    Alarms,
    Choice,
    Heard,
    Rule,
    Windows,
    alarm_score,
    choose,
    raised,
    rising,
    spaced_ranks,
)
from cis490.evaluation.inputs import read_onsets

CLEAN, ARMED, INFECTING, RUNNING, DORMANT = range(len(PHASES))
NEVER = float("nan")
HALF = Rule(0.8, 0.4)


def windows(
    phases: list[list[int]], onset_s: list[float], *, length_s: float = 10, stride_s: float = 5
) -> Windows:
    """Episodes as lists of their windows' phases."""
    sizes = [len(each) for each in phases]
    return Windows(
        unit=np.repeat(np.arange(len(phases)), sizes),
        index=np.concatenate([np.arange(size) for size in sizes]),
        phase=np.concatenate(phases),
        onset_s=np.array(onset_s),
        length_s=length_s,
        stride_s=stride_s,
    )


def heard(score: list[float], of: Windows, rule: Rule = HALF) -> Heard:
    return Heard.of(np.array(score), of, rule)


def made_up(n: int, seed: int) -> tuple[Windows, np.ndarray]:
    """Random episodes of 1 to 12 windows, some without an onset, with scores that tie often."""
    rng = np.random.default_rng(seed)
    phases, onsets = [], []
    for _ in range(n):
        phase = np.sort(rng.integers(5, size=rng.integers(1, 13))).tolist()
        after = next((i for i, p in enumerate(phase) if p >= INFECTING), None)
        phases.append(phase)
        onsets.append(NEVER if not after else 5 * after + rng.uniform(-3, 9))
    made = windows(phases, onsets)
    return made, rng.integers(0, 30, size=len(made.unit)) / 30


def figures(family: Alarms, run: int = 0) -> dict[tuple[str, str, str], float]:
    values = family.estimates()[:, run]
    return {
        (each.scope, each.key, each.metric): float(value)
        for each, value in zip(family.figures, values, strict=True)
    }


def test_the_alarm_score_is_the_sum_of_the_infected_phases_and_at_most_1() -> None:
    p = np.array([[0.5, 0.1, 0.2, 0.15, 0.05], [0, 0, 0.5, 0.5, 1e-7]], np.float32)
    assert alarm_score(p) == pytest.approx([0.4, 1.0])
    assert alarm_score(p).max() == 1


def test_scores_near_1_are_told_apart_by_what_is_left_for_the_other_phases() -> None:
    left = np.geomspace(1e-14, 1e-3, 200, dtype=np.float32)
    infected = 1 - left.astype(float)
    split = [0.62, 0.27, 0.11]
    p = np.column_stack([0.3 * left, 0.7 * left, *(infected * share for share in split)])
    score = alarm_score(p.astype(np.float32))
    assert 1 - score == pytest.approx(left, rel=1e-2)  # 1e-14 is a hundred steps of a float64 at 1
    assert (np.diff(score) < 0).all()
    assert alarm_score(np.zeros((2, 5), np.float32)).tolist() == [0, 0]


@pytest.mark.parametrize("seed", range(5))
def test_hysteresis_is_that_of_a_plain_loop(seed: int) -> None:
    of, score = made_up(40, seed)
    standing, expected = False, []
    for value, first in zip(score, of.first, strict=True):
        standing = value >= 0.7 or (standing and not first and value >= 0.3)
        expected.append(standing)
    assert raised(score, of.first, Rule(0.7, 0.3)).tolist() == expected


def test_an_alarm_begins_at_the_threshold_and_ends_below_the_release() -> None:
    first = np.array([True] + [False] * 7)
    score = np.array([0.79, 0.8, 0.5, 0.4, 0.39, 0.5, 0.9, 0.9])
    alarm = raised(score, first, HALF)
    assert alarm.tolist() == [False, True, True, True, False, False, True, True]
    assert np.flatnonzero(rising(alarm, first)).tolist() == [1, 6]


def test_no_alarm_outlasts_its_episode_and_one_that_stands_at_its_start_begins_there() -> None:
    first = np.array([True, False, True, False, True])
    score = np.array([0.0, 0.9, 0.5, 0.5, 0.9])
    alarm = raised(score, first, HALF)
    assert alarm.tolist() == [False, True, False, False, True]
    assert np.flatnonzero(rising(alarm, first)).tolist() == [1, 4]
    both = np.array([0.0, 0.9, 0.9, 0.5, 0.0])
    assert np.flatnonzero(rising(raised(both, first, HALF), first)).tolist() == [1, 2]


def test_the_delay_is_from_the_onset_to_the_end_of_the_first_window_with_an_alarm() -> None:
    of = windows([[CLEAN, CLEAN, ARMED, INFECTING, RUNNING]], [17.5])
    found = heard([0, 0, 0, 0.9, 0.9], of)
    assert found.first_alarm_s.tolist() == [25]
    assert found.n_false.tolist() == [0]
    result = figures(Alarms([found], of, np.array([False])))
    assert result["alarm", "all", "delay_median_s"] == 7.5
    assert result["alarm", "all", "caught"] == 1
    assert result["alarm", "all", "false_alarms_per_hour"] == 0


def test_a_false_alarm_is_no_hit_even_if_it_lasts_and_a_new_one_is() -> None:
    of = windows([[CLEAN, CLEAN, INFECTING, RUNNING, RUNNING]], [14])
    lasting = heard([0, 0.9, 0.9, 0.9], windows([[CLEAN, CLEAN, INFECTING, RUNNING]], [16]))
    assert lasting.n_false.tolist() == [1]
    assert np.isnan(lasting.first_alarm_s).all()
    assert not lasting.hit.any()
    result = figures(Alarms([lasting], windows([[0, 0, 2, 3]], [16]), np.array([False])))
    assert result["alarm", "all", "missed"] == result["alarm", "all", "masked"] == 1
    anew = heard([0.9, 0.1, 0.1, 0.9, 0.9], of)
    assert anew.n_false.tolist() == [1]
    assert anew.first_alarm_s.tolist() == [25]


def test_an_alarm_in_armed_is_neither_hit_nor_false_and_counts_once_the_infection_begins() -> None:
    of = windows([[CLEAN, ARMED, ARMED, INFECTING], [CLEAN, ARMED, ARMED, ARMED]], [21, NEVER])
    found = heard([0, 0.9, 0.9, 0.9, 0, 0.9, 0.9, 0.9], of)
    assert found.n_false.tolist() == [0, 0]
    assert found.first_alarm_s[0] == 25
    assert np.isnan(found.first_alarm_s[1])


def test_a_window_that_is_mostly_clean_but_ends_after_the_onset_is_no_clean_time() -> None:
    of = windows([[CLEAN, CLEAN, INFECTING]], [12])
    found = heard([0, 0.9, 0.9], of)
    assert of.clean.tolist() == [True, False, False]
    assert found.n_false.tolist() == [0]
    assert found.first_alarm_s.tolist() == [15]


def test_an_infection_that_no_window_sees_is_none_that_could_be_missed() -> None:
    of = windows([[CLEAN, CLEAN], [CLEAN, INFECTING]], [16, 12])
    family = Alarms([heard([0, 0, 0, 0], of)], of, np.array([False, False]))
    result = figures(family)
    assert result["alarm", "all", "missed"] == 1
    assert next(each for each in family.figures if each.metric == "missed").episodes.sum() == 1


def test_false_alarms_are_by_the_hour_of_clean_time_and_controls_stand_apart() -> None:
    # Twelve clean windows of 5 s are a minute; an alarm that an infection began with is not false.
    of = windows([[CLEAN] * 6, [CLEAN] * 6, [RUNNING] * 3], [NEVER] * 3)
    found = heard([0.9, 0, 0.9, 0.9, 0, 0, *[0] * 5, 0.9, 0.9, 0.9, 0.9], of)
    family = Alarms([found], of, np.array([True, False, False]))
    result = figures(family)
    assert result["alarm", "all", "false_alarms_per_hour"] == pytest.approx(3 * 60)
    assert result["alarm", "controls", "false_alarms_per_hour"] == pytest.approx(2 * 120)
    assert ("alarm", "all", "caught") not in result
    told = {each.key: each.hours for each in family.figures if "hour" in each.metric}
    assert told == pytest.approx({"all": 1 / 60, "controls": 1 / 120})


def test_recall_is_told_by_strides_since_the_onset() -> None:
    of = windows([[ARMED, INFECTING, RUNNING, RUNNING], [ARMED, ARMED, RUNNING]], [11.0, 18.0])
    found = heard([0, 0.9, 0.9, 0, 0, 0, 0.9], of)
    family = Alarms([found], of, np.zeros(2, bool))
    since = [each for each in family.figures if each.scope == "since_infection"]
    assert [(each.key, each.n_windows) for each in since] == [("0", 2), ("5", 1), ("10", 1)]
    result = figures(family)
    assert [result["since_infection", key, "recall"] for key in ("0", "5", "10")] == [1, 1, 0]


def test_a_delay_among_the_missed_is_infinite_and_those_caught_stand_apart() -> None:
    of = windows([[ARMED, INFECTING, RUNNING]] * 3, [12.0, 13.0, 14.0])
    found = heard([0, 0.9, 0.9, 0, 0, 0.9, 0, 0, 0], of)
    result = figures(Alarms([found], of, np.zeros(3, bool)))
    assert result["alarm", "all", "missed"] == pytest.approx(1 / 3)
    assert result["alarm", "all", "delay_median_s"] == 7
    assert result["alarm", "all", "delay_p90_s"] == np.inf
    assert result["alarm", "all", "caught_delay_median_s"] == 3
    assert result["alarm", "all", "caught_delay_p90_s"] == 7


@pytest.mark.parametrize("seed", range(4))
def test_delays_are_quantiles_of_the_drawn_infections(seed: int) -> None:
    of, score = made_up(60, seed)
    found = Heard.of(score, of, HALF)
    family = Alarms([found], of, np.zeros(60, bool))
    drawn = np.random.default_rng(seed).multinomial(60, np.full(60, 1 / 60), size=8)
    names = [each.metric for each in family.figures]
    values = family.values(drawn.T.astype(float))[:, 0]
    exists = of.count(of.after_onset) > 0
    delay = np.where(np.isnan(found.first_alarm_s), 1e9, found.first_alarm_s - of.onset_s)
    for b, weights in enumerate(drawn):
        for q, name in ((0.5, "delay_median_s"), (0.9, "delay_p90_s")):
            each = np.repeat(delay[exists], weights[exists])
            expected = np.quantile(each, q, method="inverted_cdf")
            got = values[names.index(name), b]
            assert got == np.inf if expected == 1e9 else got == pytest.approx(expected, abs=0.051)


@pytest.mark.parametrize("seed", range(3))
def test_a_replicate_is_what_the_drawn_episodes_give(seed: int) -> None:
    of, score = made_up(30, seed)
    control = np.arange(30) % 3 == 0
    drawn = np.random.default_rng(seed).integers(30, size=30)
    own = [np.flatnonzero(of.unit == i) for i in drawn]
    place = np.concatenate(own)
    again = Windows(
        np.repeat(np.arange(30), list(map(len, own))),
        of.index[place],
        of.phase[place],
        of.onset_s[drawn],
        of.length_s,
        of.stride_s,
    )
    expected = figures(Alarms([Heard.of(score[place], again, HALF)], again, control[drawn]))
    family = Alarms([Heard.of(score, of, HALF)], of, control)
    weights = np.bincount(drawn, minlength=30).astype(np.float32)[:, None]
    for each, value in zip(family.figures, family.values(weights)[:, 0, 0], strict=True):
        name = each.scope, each.key, each.metric
        assert value == pytest.approx(expected.get(name, NEVER), nan_ok=True), name


def plain_choice(score: np.ndarray, of: Windows, allowed: float, hysteresis: float) -> float | None:
    """Every threshold at which anything can change, from the highest down, by plain loops."""
    changes = {*score, *(score / hysteresis)}
    candidates = {0.0, *changes, *np.nextafter(list(changes), 2)}
    best = None
    for threshold in sorted(candidates, reverse=True):
        standing, n_false = False, 0
        for i, s in enumerate(score):
            before = standing and not of.first[i]
            standing = s >= threshold or (before and s >= hysteresis * threshold)
            n_false += standing and not before and of.clean[i]
        if n_false > allowed:
            break
        best = threshold
    return best if best is not None and best <= 1 else None


@pytest.mark.parametrize("per_hour", [0, 20, 100, 1e6])
@pytest.mark.parametrize("seed", range(4))
def test_the_threshold_is_the_lowest_from_which_on_all_keep_to_the_limit(
    per_hour: float, seed: int
) -> None:
    of, score = made_up(80, seed)
    found = choose(score, of, per_hour=per_hour, hysteresis=0.5)
    expected = plain_choice(score, of, per_hour * found.hours, 0.5)
    assert found.rule == (None if expected is None else Rule(expected, expected / 2))
    assert found.hours == pytest.approx(of.clean.sum() * 5 / 3600)


@pytest.mark.parametrize("n_highest", [240, 241, 242, 243, 700])
def test_many_equal_scores_do_not_raise_the_threshold(n_highest: int) -> None:
    """Beyond the 200 highest ranks are skipped, and the next in line may be as high as the last."""
    of = windows([[CLEAN] * 600] * 12, [NEVER] * 12)  # ten hours
    score = np.zeros(7200)
    score[1000::20] = 0.6
    score[:n_highest] = 1
    found = choose(score, of, per_hour=1, hysteresis=0.5)
    assert found.rule is not None
    assert 0.6 < found.rule.threshold <= 1
    assert found.n_false == -(-n_highest // 600)


@pytest.mark.parametrize("seed", range(6))
def test_a_threshold_between_few_distinct_scores_is_the_lowest_too(seed: int) -> None:
    rng = np.random.default_rng(seed)
    of = windows([[CLEAN] * 30] * 80, [NEVER] * 80)
    score = np.floor(rng.random(2400) ** rng.uniform(0.3, 3) * 12) / 12
    per_hour = float(rng.integers(1, 200))
    found = choose(score, of, per_hour=per_hour, hysteresis=0.5)
    best = None
    for level in sorted({*score}, reverse=True):
        above = raised(score, of.first, Rule(level, level / 2))
        if (rising(above, of.first) & of.clean).sum() > per_hour * found.hours + 1e-9:
            break
        best = level
    if best is None:
        assert found.rule is None or found.rule.threshold > max(score)
    else:
        assert found.rule is not None
        assert found.rule.threshold <= best


def test_alarms_that_run_into_each_other_do_not_make_a_low_threshold_good() -> None:
    # An hour of clean windows: always on is one alarm, yet at 0.5 there are hundreds.
    of = windows([[CLEAN] * 720], [NEVER])
    score = np.tile([0.5, 0.1], 360)
    found = choose(score, of, per_hour=1, hysteresis=0.5)
    assert found.rule is not None
    assert 0.5 < found.rule.threshold < 0.51
    assert found.n_false == 0


def test_as_many_false_alarms_as_the_limit_allows_are_allowed() -> None:
    of = windows([[CLEAN] * 12] * 60, [NEVER] * 60)  # an hour in 60 episodes
    score = np.zeros(720)
    score[[0, 12, 24]] = 0.9, 0.8, 0.7
    for per_hour, above in ((0, 0.9), (1, 0.8), (2, 0.7), (3, 0.0)):
        found = choose(score, of, per_hour=per_hour, hysteresis=0.5)
        assert found.rule is not None
        assert found.rule.threshold == pytest.approx(above, abs=1e-12)
        assert found.n_false == per_hour


@pytest.mark.parametrize(
    ("phases", "score", "says"),
    [
        ([], [], "no predictions out of fold"),
        ([[RUNNING, RUNNING]], [0.5, 0.9], "no clean time"),
        ([[CLEAN, CLEAN]], [1.0, 0.2], "no threshold has at most 1 false alarms an hour"),
    ],
)
def test_why_there_is_no_threshold_is_told(
    phases: list[list[int]], score: list[float], says: str
) -> None:
    of = windows(phases, [NEVER] * len(phases)) if phases else empty()
    found = choose(np.array(score), of, per_hour=1, hysteresis=0.5)
    assert found.rule is None
    assert says in str(found.reason)


def empty() -> Windows:
    none = np.array([], np.int64)
    return Windows(none, none, none, np.array([]), 10, 5)


def test_a_choice_says_what_it_rests_on() -> None:
    of = windows([[CLEAN] * 4, [CLEAN, CLEAN, RUNNING]], [NEVER, NEVER])
    score = np.array([0.1, 0.2, 0.9, 0.3, 0.1, 0.2, 0.95])
    found = choose(score, of, per_hour=1, hysteresis=0.25)
    threshold = float(np.nextafter(0.9, 1))
    rule = Rule(threshold, threshold / 4)
    assert found == Choice(rule, None, 0, pytest.approx(6 * 5 / 3600), 6, 2)


def test_spaced_ranks_are_every_one_at_first_and_a_hundredth_apart_later() -> None:
    ranks = spaced_ranks(100_000)
    assert ranks[:200] == list(range(200))
    assert ranks[-1] == 99_999
    assert max(b / a for a, b in pairwise(ranks[200:])) <= 1.01
    assert len(ranks) < 1000
    assert spaced_ranks(0) == []
    assert spaced_ranks(1) == [0]


def test_an_onset_is_the_first_infected_label_that_another_came_before(tmp_path: Path) -> None:
    second = 10**9
    episodes = pl.DataFrame(
        {"episode_id": list("abcde"), "started_wall_ns": [100 * second * i for i in range(5)]}
    )
    told = [
        (0, 0.01, "clean"),
        (0, 20, "armed"),
        (0, 30.5, "infecting"),
        (0, 40, "dormant"),
        (1, 0.2, "infecting"),  # was infected before it was recorded
        (1, 5, "infected_running"),
        (2, 0.0, "armed"),
        (2, 0.3, "infected_running"),  # skips infecting
        (3, 0.0, "clean"),
        (4, 0.0, "infected_running"),
    ]
    labels = pl.DataFrame(
        {
            "episode": [i for i, _, _ in told],
            "t_wall_ns": [100 * second * i + int(t * second) for i, t, _ in told],
            "phase": [phase for _, _, phase in told],
        },
        schema_overrides={"episode": pl.UInt32},
    )
    paths = tmp_path / "episodes.parquet", tmp_path / "labels.parquet"
    episodes.write_parquet(paths[0])
    labels.write_parquet(paths[1])
    found = read_onsets([paths[0]], [paths[1]])
    assert dict(found.rows()) == pytest.approx({"a": 30.5, "c": 0.3})
    assert read_onsets([], []).is_empty()
