import itertools
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from cis490 import cli
from cis490.channels import PHASES
from cis490.errors import LabError
from cis490.evaluation.baselines import CLOCK, predict_baselines
from cis490.evaluation.metrics import Sums, confusion, macro_f1
from cis490.lab.catalog import Program
from cis490.lab.hosts import Host
from cis490.lab.schedule import (
    CONTROL,
    JOBS_BEFORE_S,
    ONSET_S,
    PREROLL_S,
    expected_hours,
    plan,
    render,
    stagger_s,
)

PROFILES = tuple("beacon churn cpu drip scan walk".split())
HOSTS = [Host(f"h{i}", "q35", "max", 128, 1, "none", profiles=PROFILES) for i in range(8)]
HOSTS[3] = replace(HOSTS[3], profiles=PROFILES[:-2])
SAMPLES = [
    Program(f"{profile}-{letter}", "sample", profile, "", None, Path("x"), network=False)
    for profile in PROFILES
    for letter in "abcd"
]
JOBS = [Program(f"job{i}", "job", None, "", None, Path("x"), network=False) for i in range(10)]


def planned(n, **options):
    return plan(HOSTS, n, **{"samples": SAMPLES, "jobs": JOBS} | options)


@pytest.fixture(scope="module")
def many():
    return planned(4000)


def windows(episode, length=10.0, stride=5.0):
    """The phase of each of an episode's windows, as docs/episodes.md says."""
    held = episode.held_s()
    found = []
    for start in np.arange(0, episode.duration_s - 0.95 * length, stride):
        covered = [
            max(0.0, min(start + length, held[phase][1]) - max(start, held[phase][0]))
            if phase in held
            else 0.0
            for phase in PHASES
        ]
        found.append(len(PHASES) - 1 - int(np.argmax(covered[::-1])))
    return found


def test_a_plan_is_the_same_again_and_another_under_another_seed():
    assert planned(50) == planned(50)
    assert planned(50, seed=1) != planned(50)
    assert not {p.episode_id for p in planned(50, seed=1)} & {p.episode_id for p in planned(50)}


def test_the_first_episodes_do_not_depend_on_how_many_follow():
    assert planned(300)[:37] == planned(37)


def test_the_order_of_the_hosts_in_their_file_does_not_matter():
    assert plan(HOSTS[::-1], 50, samples=SAMPLES, jobs=JOBS) == planned(50)


def test_a_new_job_moves_no_onset():
    more = [*JOBS, Program("new", "job", None, "", None, Path("x"), network=False)]
    assert [p.phases for p in planned(50, jobs=more)] == [p.phases for p in planned(50)]


def test_an_episode_id_stands_for_everything_in_the_plan(many):
    assert len({p.episode_id for p in many}) == len(many)
    assert all(len(p.episode_id) == 20 and int(p.episode_id, 16) >= 0 for p in many)
    slower = [replace(host, guest_hz=2) for host in HOSTS]
    other = plan(slower, 50, samples=SAMPLES, jobs=JOBS)
    assert not {p.episode_id for p in other} & {p.episode_id for p in planned(50)}


def test_onsets_are_uniform_on_every_host(many):
    low, high = ONSET_S
    onsets = [p.phases[0][0] for p in many if p.phases]
    assert stats.kstest(onsets, "uniform", (low, high - low)).pvalue > 0.01
    for host in HOSTS:
        mine = [p.phases[0][0] for p in many if p.phases and p.host is host]
        assert stats.kstest(mine, "uniform", (low, high - low)).pvalue > 0.001


def test_nothing_else_is_drawn_with_the_onset(many):
    infected = [p for p in many if p.phases]
    onset = [p.phases[0][0] for p in infected]
    for what in (
        lambda p: p.preroll_s,
        lambda p: p.wait_s,
        lambda p: p.pace,
        lambda p: len(p.jobs),
        lambda p: p.changes_s[0] if p.changes_s else 0,
        lambda p: p.host.host_id,
        lambda p: p.profile,
    ):
        ranks = stats.rankdata([str(what(p)) for p in infected])
        assert stats.spearmanr(onset, ranks).pvalue > 0.001


def test_the_guest_is_up_before_the_earliest_onset_and_the_earliest_job(many):
    assert PREROLL_S[0] > max(-ONSET_S[0], JOBS_BEFORE_S)
    assert all(-p.preroll_s < min([t for t, _ in p.phases], default=0) for p in many)
    assert all(-p.preroll_s < job.start_s < p.duration_s for p in many for job in p.jobs)
    assert all(0 < j.stop_s < p.duration_s for p in many for j in p.jobs if j.stop_s is not None)
    assert all(j.start_s < j.stop_s for p in many for j in p.jobs if j.stop_s is not None)


def test_phases_come_in_order_and_last_as_long_as_planned(many):
    for p in many:
        times = [t for t, _ in p.phases]
        assert [phase for _, phase in p.phases] == list(PHASES[1 : len(times) + 1])
        assert len(times) in ((0,) if p.profile == CONTROL else (3, 4))
        for (before, after), (least, most) in zip(
            itertools.pairwise(times), [(6, 12), (6, 12), (8, 24)], strict=False
        ):
            assert least - 0.001 <= after - before <= most + 0.001
    dormant = np.mean([len(p.phases) == 4 for p in many if p.phases])
    assert 0.45 < dormant < 0.55


@pytest.mark.parametrize("seed", range(6))
def test_the_index_of_a_window_says_little_across_hosts(seed):
    plans = planned(240, seed=seed)
    phase = np.array([windows(p) for p in plans])
    host = np.array([p.host.host_id for p in plans])
    index = np.tile(np.arange(phase.shape[1]), (len(plans), 1))
    predicted = np.empty_like(phase)
    for held_out in set(host):
        there = host == held_out
        given = phase[~there].ravel(), index[~there].ravel(), index[there].ravel()
        predicted[there] = predict_baselines(*given)[CLOCK].reshape(-1, phase.shape[1])
    counts = confusion(phase.ravel(), predicted.ravel(), np.zeros(phase.size, int), 1)[0]
    assert macro_f1(Sums.of(counts), range(len(PHASES))) < 0.30
    assert (np.bincount(phase.ravel(), minlength=len(PHASES)) / phase.size > 0.05).all()


def test_most_episodes_have_a_benign_job_that_starts_or_stops_controls_too(many):
    for group in (
        [p for p in many if p.profile == CONTROL],
        [p for p in many if p.profile != CONTROL],
    ):
        assert np.mean([bool(p.changes_s) for p in group]) > 0.8
    changes = [t for p in many for t in p.changes_s]
    assert stats.kstest(changes, "uniform", (0, 64)).statistic < 0.03


def test_benign_work_is_as_much_early_as_late(many):
    def at(t):
        return np.mean(
            [
                sum(j.start_s <= t < (np.inf if j.stop_s is None else j.stop_s) for j in p.jobs)
                for p in many
            ]
        )

    assert abs(at(1) - at(63)) < 0.1


def test_each_job_is_in_an_episode_once(many):
    assert all(len({job.name for job in p.jobs}) == len(p.jobs) for p in many)
    assert {job.name for p in many for job in p.jobs} == {job.name for job in JOBS}


@pytest.mark.parametrize("n", [30, 240])
def test_hosts_and_their_profiles_are_even_at_any_length(n):
    plans = planned(n)
    per_host = Counter(p.host.host_id for p in plans)
    assert max(per_host.values()) - min(per_host.values()) <= 1
    for host in HOSTS:
        counts = Counter(p.profile for p in plans if p.host is host)
        assert set(counts) <= {*host.profiles, CONTROL}
        of_profiles = [counts[profile] for profile in host.profiles]
        assert max(of_profiles) - min(of_profiles) <= 2
    controls = sum(p.profile == CONTROL for p in plans)
    assert 0.1 < controls / n < 0.3


def test_a_deck_holds_each_sample_once_and_a_fifth_of_controls():
    deck = [p for p in planned(30 * len(HOSTS)) if p.host is HOSTS[0]]
    counts = Counter(p.sample_name for p in deck)
    assert counts.pop(CONTROL) == 6
    assert counts == {program.name: 1 for program in SAMPLES}


def test_all_times_are_in_proportion_to_the_record():
    for short, usual in zip(planned(40, duration_s=16.0), planned(40), strict=True):
        assert short.preroll_s == pytest.approx(usual.preroll_s / 4, abs=0.001)
        assert short.wait_s == pytest.approx(usual.wait_s / 4, abs=0.001)
        assert [t for t, _ in short.phases] == pytest.approx(
            [t / 4 for t, _ in usual.phases], abs=0.001
        )
        assert [j.start_s for j in short.jobs] == pytest.approx(
            [j.start_s / 4 for j in usual.jobs], abs=0.001
        )


def test_slots_begin_apart_and_do_so_again_now_and_then():
    waits = [stagger_s(490, slot, nth) for slot in range(50) for nth in range(40)]
    again = [wait for wait in waits if wait]
    assert len(again) == len(waits) / 4
    assert len(set(again)) == len(again)
    assert stats.kstest(again, "uniform", (0, 1.7 * 64)).pvalue > 0.01


def test_the_time_it_takes_is_shared_by_the_slots():
    plans = planned(60)
    assert expected_hours(plans, 3) == pytest.approx(expected_hours(plans, 1) / 3, rel=0.1)
    assert expected_hours(plans[:1], 3) == expected_hours(plans[:1], 1)


def test_what_cannot_be_planned_is_refused_with_what_to_do():
    with pytest.raises(LabError, match="no host"):
        plan([], 1, samples=SAMPLES, jobs=JOBS)
    with pytest.raises(LabError, match="host h1 is there 2 times"):
        plan([HOSTS[1], HOSTS[1]], 1, samples=SAMPLES, jobs=JOBS)
    with pytest.raises(LabError, match="h0 is to run walk, of which there is no sample"):
        planned(1, samples=[p for p in SAMPLES if p.profile != "walk"])


def test_a_person_sees_each_episode_and_what_they_come_to():
    text = render(planned(40), 3)
    row = next(line for line in text.splitlines() if line.startswith("|      3 "))
    episode = planned(40)[3]
    assert episode.host.host_id in row
    assert f"{episode.preroll_s:.1f}" in row
    assert all(job.name in row for job in episode.jobs)
    assert "of 40 episodes" in text
    assert "with 3 at once" in text


def test_the_command_plans_the_programs_and_hosts_that_ship(capsys):
    cli.main(["lab", "plan", "--episodes", "20"])
    text = capsys.readouterr().out
    assert "alder" in text
    assert "cpu-saturate/miner-" in text
    assert "of 20 episodes" in text
    cli.main(["lab", "plan", "--episodes", "20", "--parallel", "1"])
    assert "with 1 at once" in capsys.readouterr().out
