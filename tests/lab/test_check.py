"""Corpora that can be cheated on are told from those that cannot, and why."""

import json
from dataclasses import replace

import pytest

from cis490 import cli
from cis490.errors import StoreError
from cis490.lab.check import NEEDED, check, judge, render
from cis490.lab.checks import infection
from cis490.lab.corpus import Ticks, read_corpus
from cis490.lab.schedule import CONTROL
from tests.conftest import SAMPLE_STORE
from tests.lab.corpora import (
    HOSTS,
    fixed_onset,
    gathered,
    planned,
    starts,
    windows,
    without_benign_onsets,
    write,
)


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    return write(tmp_path_factory.mktemp("good"), planned()).folder


def finding(judgement, name):
    (found,) = [each for each in judgement.findings if each.check == name]
    return found


def faults(judgement):
    return [each.check for each in judgement.findings if each.state == "fault"]


def test_a_corpus_as_planned_is_fit(good):
    judgement = check(good)
    assert judgement.reasons == []
    assert judgement.fit
    assert {each.state for each in judgement.findings} == {"ok"}
    assert judgement.n_usable == 96


def test_a_fixed_onset_is_told_by_the_index_of_a_window(tmp_path):
    judgement = check(write(tmp_path, fixed_onset(planned())).folder)
    assert not judgement.fit
    assert faults(judgement) == ["window index", "time since boot"]
    found = finding(judgement, "window index")
    assert found.figures["macro_f1"] > 0.5
    low, high = found.figures["interval"]
    assert low < found.figures["macro_f1"] < high
    assert judgement.reasons[0].startswith("window index: a window's index alone scores 0.")


def test_words_of_labels_in_commands_are_told_with_the_command(tmp_path):
    store = write(tmp_path, planned(), infected=lambda p: f"sh /tmp/{p.sample_name} 5")
    judgement = check(store.folder)
    assert not judgement.fit
    assert "label words" in faults(judgement)
    assert finding(judgement, "label words").figures["words"]["miner-a"] == "sh /tmp/miner-a 5"


def test_a_corpus_without_benign_onsets_is_told(tmp_path):
    judgement = check(write(tmp_path, without_benign_onsets(planned())).folder)
    assert faults(judgement) == ["benign onsets"]
    assert "within the record of 0 of" in judgement.reasons[0]


def test_controls_without_benign_onsets_are_told_by_themselves():
    plans = without_benign_onsets(planned(), lambda p: p.profile == CONTROL)
    judgement = judge(gathered(plans))
    assert faults(judgement) == ["benign onsets"]
    assert finding(judgement, "benign onsets").figures["infected episodes"]["share"] > 0.8


def test_what_is_gathered_is_what_a_plan_says(good):
    corpus, expected = read_corpus(good), gathered(planned())
    there = {episode.episode_id: episode for episode in corpus.episodes}
    for facts in expected.episodes:
        found = there[facts.episode_id]
        assert found.phases.tolist() == facts.phases.tolist()
        assert found.changes_s == pytest.approx(facts.changes_s)
        assert found.onset_s == pytest.approx(facts.onset_s)
        assert (found.started_ns, found.preroll_s) == (facts.started_ns, facts.preroll_s)
        assert found.ticks["guest"].largest_gap_s == pytest.approx(1.0)
        assert abs(found.ticks["netflow"].offset_s) > 1000


def test_without_jobs_in_meta_a_corpus_is_not_called_fit(tmp_path):
    judgement = check(write(tmp_path, planned(), meta=lambda _: {}).folder)
    assert not judgement.fit
    assert faults(judgement) == []
    assert "benign onsets: cannot be judged" in judgement.reasons[0]
    assert "no `jobs` in meta.json" in judgement.reasons[0]
    assert finding(judgement, "time since boot").state == "unknown"


def test_time_since_boot_that_tells_the_phase_is_told():
    plans = [replace(p, preroll_s=60 - p.phases[0][0]) if p.phases else p for p in planned()]
    judgement = judge(gathered(plans))
    assert faults(judgement) == ["time since boot"]


def test_a_shape_of_commands_seen_only_while_infected_is_told():
    judgement = judge(gathered(planned(), infected=lambda p: f"wget -q http://x/{p.number}"))
    assert faults(judgement) == ["command shapes"]
    (shape,) = finding(judgement, "command shapes").figures["shapes"]
    assert shape["shape"] == "wget -q http://x/#"
    assert judge(gathered(planned(), infected=lambda _: "sleep 0.9")).fit


def test_a_shape_of_a_few_episodes_is_no_proof():
    few = {p.number for p in planned() if p.phases and p.phases[0][0] > 0}
    few = set(sorted(few)[: infection.SHAPE_EPISODES - 1])
    odd = lambda p: "wget http://x" if p.number in few else "sleep 1"  # noqa: E731
    assert judge(gathered(planned(), infected=odd)).fit


def off(tick, **changes):
    return replace(Ticks(64, 1.0, 1.0, 0, 0.0, 0.0), **({} if tick is None else changes))


def test_a_clock_that_drifts_or_rows_elsewhere_are_told_and_one_accident_is_not():
    def drifting(hosts, **changes):
        return lambda facts: {"guest": off(facts.host_id in hosts or None, **changes)}

    judgement = judge(gathered(planned(), ticks=drifting({"elm"}, drift_s=0.06)))
    assert faults(judgement) == ["clocks"]
    assert "wrong in guest" in judgement.reasons[0]
    assert faults(judge(gathered(planned(), ticks=drifting({"elm"}, n_outside=9)))) == ["clocks"]
    corpus = gathered(planned(120), ticks=drifting({}))
    corpus.episodes[0] = replace(corpus.episodes[0], ticks={"guest": off(1, drift_s=3.0)})
    assert judge(corpus).fit


def test_a_monotonic_clock_that_counts_from_boot_is_told_and_no_fault(good):
    found = finding(check(good), "clocks")
    assert found.state == "ok"
    assert "t_mono_ns does not count from the start in netflow" in found.what


def test_a_host_with_frequent_gaps_is_named():
    def ticks(facts):
        long = facts.host_id == "birch" and facts.started_ns % 3 == 0
        return {"guest": off(long or None, largest_gap_s=2.6)}

    judgement = judge(gathered(planned(), ticks=ticks))
    assert faults(judgement) == ["sampling gaps"]
    assert "guest of birch" in judgement.reasons[0]


def test_neighbours_that_begin_together_are_told():
    begins = starts(planned())
    in_step = [begins[i - i % 3] for i in range(len(begins))]
    judgement = judge(gathered(planned(), begins=in_step))
    assert faults(judgement) == ["neighbours"]
    assert "starts in step" in judgement.reasons[0]


def test_neighbours_that_are_infected_together_are_told_though_they_begin_apart():
    plans, begins = planned(), starts(planned())
    outbreak = 0.0
    moved = {}
    for begin, p in sorted(zip(begins, plans, strict=True), key=lambda pair: pair[0]):
        if p.phases:
            at = outbreak - begin / 1e9
            at = at if 0 < at < 54 else p.phases[0][0]
            outbreak = begin / 1e9 + at
            p = replace(p, phases=tuple((t + at - p.phases[0][0], x) for t, x in p.phases))
        moved[p.number] = p
    judgement = judge(gathered([moved[p.number] for p in plans], begins=begins))
    assert "neighbours" in faults(judgement)
    found = finding(judgement, "neighbours")
    assert found.what.startswith("onsets in step: ")
    assert found.figures["share_beginning_together"] < 0.3


def test_a_rare_phase_is_told():
    plans = [replace(p, phases=tuple(x for x in p.phases if x[1] != "dormant")) for p in planned()]
    judgement = judge(gathered(plans))
    assert faults(judgement) == ["phases"]
    assert "dormant 0%" in judgement.reasons[0]


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda p: p.host.host_id in ("alder", "elm"), "2 hosts"),
        (lambda p: p.profile != CONTROL, "0 controls"),
        (lambda p: p.profile != "io-walk" or p.host is HOSTS[0], "io-walk (1 host)"),
        (
            lambda p: p.profile != "io-walk" or p.number < 20,
            "io-walk (4 episodes)",
        ),
        (lambda p: p.profile != "io-walk" or p.sample_name == "walker-a", "io-walk (1 sample)"),
        (
            lambda p: p.host is not HOSTS[0] or p.profile == "io-walk",
            "alder: ",
        ),
    ],
)
def test_what_there_is_too_little_of_is_told(change, told):
    plans = [p for p in planned(160) if change(p)]
    judgement = judge(gathered(plans))
    assert "profiles" in faults(judgement) + [
        name for name in ("benign onsets",) if told == "0 controls"
    ]
    assert told in next(reason for reason in judgement.reasons if reason.startswith("profiles"))


def test_few_episodes_are_judged_and_not_fit():
    judgement = judge(gathered(planned(4)))
    assert not judgement.fit
    assert finding(judgement, "neighbours").state == "ok"


def test_one_host_cannot_be_held_out():
    judgement = judge(gathered([p for p in planned() if p.host is HOSTS[0]]))
    assert finding(judgement, "window index").state == "unknown"
    assert any("none to hold out" in reason for reason in judgement.reasons)


def test_the_sample_store_is_fit_for_use():
    judgement = check(SAMPLE_STORE)
    assert judgement.fit, judgement.reasons
    assert {found.state for found in judgement.findings} == {"ok"}
    assert "243 episodes judged, 3 left out: 2 errored, 1 rejected" in render(judgement)


def test_a_store_without_a_usable_episode_is_refused_with_what_to_do(store):
    store.add(mutate=lambda members: members.pop("proc.jsonl"))
    with pytest.raises(StoreError, match="not one usable episode to judge; `cis490 validate"):
        check(store.folder)


def test_the_command_says_fit_or_not_by_its_exit_code(good, tmp_path, capsys):
    cli.main(["lab", "check", str(good)])
    assert capsys.readouterr().out.startswith("# Fit for use\n")
    bad = write(tmp_path, without_benign_onsets(planned(40))).folder
    with pytest.raises(SystemExit) as done:
        cli.main(["lab", "check", str(bad)])
    assert done.value.code == 1
    assert "# Not fit for use\n\n- benign onsets: " in capsys.readouterr().out
    with pytest.raises(SystemExit):
        cli.main(["lab", "check", str(bad), "--json"])
    content = json.loads(capsys.readouterr().out)
    assert content["fit"] is False
    assert content["n_usable"] == 40
    assert {each["check"] for each in content["findings"]} >= set(NEEDED)


def test_windows_of_the_corpora_here_are_as_long_as_the_schema_says(good):
    assert all(len(e.phases) == len(windows(planned(1)[0])) for e in read_corpus(good).episodes)
