"""Whether a corpus is fit for use: nothing but the channels may tell what phase it is.

Each check has one limit, a named constant here with its reason; docs/lab.md has them for people. A
corpus is fit if none is broken and all could be judged that a corpus can be cheated on without.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from cis490.channels import PHASES, SAMPLED
from cis490.episodes.validate import Entry
from cis490.evaluation.baselines import CLOCK, predict_baselines
from cis490.evaluation.bootstrap import (
    SEED,
    clopper_pearson,
    episode_weights,
    percentile_interval,
)
from cis490.evaluation.metrics import K, Sums, confusion, macro_f1
from cis490.files import StrPath
from cis490.lab.corpus import Corpus, Facts, read_corpus
from cis490.lab.schedule import CONTROL
from cis490.markdown import table

State = Literal["ok", "warning", "fault", "unknown"]
Numbers = NDArray[np.int64]

# Macro F1 of a classifier that knows a window's place alone, on hosts that it did not learn from.
# The first corpus, thrown away, had 0.60 to 0.69; a plan of ours has 0.25 (sd 0.01), and a constant
# answer 0.12.
CLOCK_F1: Final = 0.30
REPLICATES: Final = 2_000

# In most episodes, controls too, a benign job starts or stops (docs/lab.md); a plan has it in 90%.
CHANGING_SHARE: Final = 0.5

# A command's shape is held against infected time from so many episodes on: fewer are one sample's
# on one host. What would come by chance in one of a hundred corpora is a fault.
SHAPE_EPISODES: Final = 5
SHAPE_P: Final = 0.01

# Half a step of the 10 Hz grid: more puts a row into the wrong step. A clock that is slewed by the
# kernel's most, 500 ppm, moves by 0.032 s in 64 s.
DRIFT_S: Final = 0.05
# Of episodes with such a clock, or of a source's rows outside their record: a few are an accident.
ACCIDENT_SHARE: Final = 0.01

# A longer gap is missing on the grid (docs/episodes.md).
GAP_INTERVALS: Final = 2.5
# Of a host's episodes with one: more, and what is missing tells the host, or the load.
GAP_SHARE: Final = 0.1

# Two neighbours begin, or are infected, together if it is within this share of a record.
TOGETHER: Final = 0.1
# By chance TOGETHER of the pairs begin together; where most do, slots are in step.
TOGETHER_SHARE: Final = 0.5
# By how much more pairs than by chance are infected together, and how sure that is: with three
# slots of which two are in step a third of the pairs are.
IN_STEP_MORE: Final = 0.2
IN_STEP_P: Final = 0.01
PERMUTATIONS: Final = 199
FEWEST_PAIRS: Final = 20  # of fewer pairs of neighbours nothing is said
_MOST_PAIRS: Final = 100_000  # that are looked at, the first ones by time

# Of all windows, each phase: a rarer one has too few to learn from or to judge by.
PHASE_SHARE: Final = 0.03
# A profile seen on one host is that host's; below 10 episodes either side of a split has fewer than
# the 5 that a figure of its own needs (docs/statistics.md, breakdowns); one sample is a program.
PROFILE_HOSTS: Final = 2
PROFILE_EPISODES: Final = 10
PROFILE_SAMPLES: Final = 2
# False alarms are told on controls, 1 in 10 episodes at least.
CONTROL_SHARE: Final = 0.1
# Two hosts to learn from that differ, and one to be tested on.
HOSTS: Final = 3
# Of a host's infected episodes: were more of one profile, host and profile would be one thing.
OF_ONE_PROFILE: Final = 0.5

# What must be known of a corpus before anybody can say that it is fit.
NEEDED: Final = ("window index", "benign onsets", "phases", "profiles")
_SHOWN: Final = 5


@dataclass(frozen=True)
class Finding:
    """What one check came to.

    Attributes:
        check: what was looked at.
        state: "ok"; "warning": of no harm by itself; "fault": unfit; "unknown": cannot be judged.
        what: what was found, in a sentence.
        limit: what is asked.
        figures: the numbers, for machines.
        header, rows: a table that a person may want; empty where the sentence says it all.
        align: of its columns, as of `markdown.table`.
    """

    check: str
    state: State
    what: str
    limit: str
    figures: dict[str, Any] = field(default_factory=dict)
    header: tuple[str, ...] = ()
    rows: tuple[tuple[Any, ...], ...] = ()
    align: str = "l"


@dataclass(frozen=True)
class Judgement:
    """Whether a corpus is fit, and why.

    Attributes:
        fit: no fault, and all judged that must be.
        reasons: why not, a sentence each.
        n_usable: episodes that were judged.
        left_out: the others, by status.
        reason_codes: of the others, how many have each.
        findings: one a check.
    """

    fit: bool
    reasons: list[str]
    n_usable: int
    left_out: dict[str, int]
    reason_codes: dict[str, int]
    findings: list[Finding]


def check(
    store: StrPath, progress: Callable[[Sequence[Entry]], Iterator[Entry]] = iter
) -> Judgement:
    """Judge a store.

    Args:
        store: folder of episodes, only read.
        progress: passes its entries on, and may count them.

    Raises:
        StoreError: there is no store, or no usable episode in it.
    """
    return judge(read_corpus(store, progress))


def judge(corpus: Corpus) -> Judgement:
    """Judge what was read."""
    findings = [
        _window_index(corpus),
        _boot_time(corpus),
        _benign_onsets(corpus),
        _label_words(corpus),
        _command_shapes(corpus),
        _clocks(corpus),
        _gaps(corpus),
        _neighbours(corpus),
        _phases(corpus),
        _profiles(corpus),
    ]
    reasons = [
        f"{found.check}: {found.what} ({found.limit})"
        for found in findings
        if found.state == "fault" or (found.state == "unknown" and found.check in NEEDED)
    ]
    return Judgement(
        fit=not reasons,
        reasons=reasons,
        n_usable=len(corpus.episodes),
        left_out=dict(sorted(corpus.left_out.items())),
        reason_codes=dict(sorted(corpus.reasons.items())),
        findings=findings,
    )


def render(judgement: Judgement) -> str:
    """The judgement for people: verdict, a row a check, and tables of what may be asked next."""
    left_out = sum(judgement.left_out.values())
    lines = [f"# {'Fit for use' if judgement.fit else 'Not fit for use'}", ""]
    lines += [f"- {reason}" for reason in judgement.reasons]
    lines += [""] * bool(judgement.reasons)
    lines.append(f"{judgement.n_usable:,} episodes judged, {left_out:,} left out")
    if left_out:
        told = [f"{n} {what}" for what, n in judgement.left_out.items()]
        codes = [f"{code} {n}" for code, n in judgement.reason_codes.items()]
        lines[-1] += f": {', '.join(told)} ({', '.join(codes)})"
    rows = [[each.check, each.state, each.what, each.limit] for each in judgement.findings]
    lines += ["", *table(["check", "state", "found", "limit"], rows, "llll")]
    for each in judgement.findings:
        if each.rows:
            lines += ["", f"## {each.check[0].upper()}{each.check[1:]}", ""]
            lines += table(each.header, each.rows, each.align)
    return "\n".join([*lines, ""])


# --- what a clock alone can tell


def _window_index(corpus: Corpus) -> Finding:
    places = [np.arange(len(episode.phases)) for episode in corpus.episodes]
    return _by_clock("window index", "a window's index alone", corpus.episodes, places)


def _boot_time(corpus: Corpus) -> Finding:
    known = [episode for episode in corpus.episodes if episode.preroll_s is not None]
    if not known:
        return _unknown("time since boot", "no meta.json has preroll_s", _CLOCK_LIMIT)
    stride_s = corpus.schema.stride_s
    begins = [
        np.arange(len(episode.phases)) * stride_s + (episode.preroll_s or 0.0) for episode in known
    ]
    first = min(float(times[0]) for times in begins if len(times))
    longest = max(float(times[-1]) for times in begins if len(times)) - first
    width = max(stride_s, longest / 200)  # a minute's episodes have some 12 such places
    places = [((times - first) // width).astype(np.int64) for times in begins]
    return _by_clock("time since boot", "the time since boot alone", known, places)


_CLOCK_LIMIT: Final = f"macro F1 below {CLOCK_F1:.2f}"


def _by_clock(
    name: str, what: str, episodes: Sequence[Facts], places: Sequence[Numbers]
) -> Finding:
    """Macro F1 of saying of each window what is best to say at its place, on hosts held out."""
    hosts = sorted({episode.host_id for episode in episodes})
    if len(hosts) < 2:
        return _unknown(name, f"only host {hosts[0]}: none to hold out", _CLOCK_LIMIT)
    counts = _held_out(episodes, places, hosts)
    whole = counts.sum(0)
    present = np.flatnonzero(whole.sum(-1)).tolist()
    estimate = float(macro_f1(Sums.of(whole), present))
    flat = counts.reshape(len(episodes), K * K).astype(np.float64)
    strata = [episode.profile for episode in episodes]
    replicates = np.concatenate(
        [
            macro_f1(Sums.of((weights @ flat).reshape(-1, K, K)), present)
            for weights in episode_weights(strata, REPLICATES)
        ]
    )
    interval = percentile_interval(replicates)
    rows = []
    for host in hosts:
        of_host = counts[[i for i, episode in enumerate(episodes) if episode.host_id == host]]
        there = np.flatnonzero(of_host.sum((0, 2))).tolist()
        f1 = float(macro_f1(Sums.of(of_host.sum(0)), there))
        rows.append((host, len(of_host), int(of_host.sum()), f"{f1:.3f}"))
    text = f"{estimate:.3f}" + (f" [{interval[0]:.3f}, {interval[1]:.3f}]" if interval else "")
    return Finding(
        name,
        "ok" if estimate < CLOCK_F1 else "fault",
        f"{what} scores {text} macro F1 on {len(hosts)} hosts, each held out",
        _CLOCK_LIMIT,
        {
            "macro_f1": estimate,
            "interval": interval,
            "by_host": {host: float(f1) for host, _, _, f1 in rows},
            "n_episodes": len(episodes),
            "n_windows": int(whole.sum()),
            "replicates": REPLICATES,
        },
        ("held-out host", "episodes", "windows", "macro F1"),
        tuple(rows),
    )


def _held_out(
    episodes: Sequence[Facts], places: Sequence[Numbers], hosts: Sequence[str]
) -> NDArray[np.int64]:
    """(n, K, K) int64 confusion of each episode, by what was learned from all other hosts."""
    of_host = np.array([hosts.index(episode.host_id) for episode in episodes])
    n_windows = [len(episode.phases) for episode in episodes]
    unit = np.repeat(np.arange(len(episodes)), n_windows)
    truth = np.concatenate([episode.phases for episode in episodes])
    place, host = np.concatenate(places), of_host[unit]
    predicted = np.zeros_like(truth)
    for held_out in range(len(hosts)):
        there = host == held_out
        if there.any() and not there.all():
            given = truth[~there], place[~there], place[there]
            predicted[there] = predict_baselines(*given)[CLOCK]
    return confusion(truth, predicted, unit, len(episodes))


# --- whether change is infection


def _benign_onsets(corpus: Corpus) -> Finding:
    limit = f"in more than {CHANGING_SHARE:.0%} of infected episodes and of controls"
    rows, figures, states = [], {}, set()
    groups = {
        "infected episodes": [e for e in corpus.episodes if e.profile != CONTROL],
        "controls": [e for e in corpus.episodes if e.profile == CONTROL],
    }
    for name, group in groups.items():
        told = [episode.changes_s for episode in group if episode.changes_s is not None]
        if not told or len(told) < len(group):
            n = len(group) - len(told)
            why = f"{n} of {len(group)} {name} have no `jobs` in meta.json" if n else f"no {name}"
            return _unknown("benign onsets", why, limit)
        k = sum(map(bool, told))
        low, high = clopper_pearson(k, len(told))
        rows.append((name, len(told), k, f"{k / len(told):.2f} [{low:.2f}, {high:.2f}]"))
        figures[name] = {"n": len(told), "n_changing": k, "share": k / len(told)}
        states.add(k / len(told) > CHANGING_SHARE)
    said = " and ".join(f"{k} of {n} {name}" for name, n, k, _ in rows)
    return Finding(
        "benign onsets",
        "ok" if states == {True} else "fault",
        f"a benign job starts or stops within the record of {said}",
        limit,
        figures,
        ("episodes", "n", "with a benign start or stop", "share"),
        tuple(rows),
    )


def _label_words(corpus: Corpus) -> Finding:
    limit = "no word of a phase, profile or sample in exec.jsonl"
    if not corpus.commands.n_episodes:
        return Finding("label words", "ok", "no episode has exec.jsonl", limit)
    labels = set(PHASES)
    for episode in corpus.episodes:
        labels |= {episode.profile, episode.sample_name} - {CONTROL}
    found = corpus.commands.label_words(labels)
    return Finding(
        "label words",
        "fault" if found else "ok",
        f"{_names(list(found))} in the commands of exec.jsonl" if found else "none",
        limit,
        {"words": found},
        ("word", "a command with it"),
        tuple(found.items()),
        "ll",
    )


def _command_shapes(corpus: Corpus) -> Finding:
    limit = f"none seen only while infected, but by chance (p {SHAPE_P})"
    if not corpus.commands.n_episodes:
        return Finding("command shapes", "ok", "no episode has exec.jsonl", limit)
    total = sum(len(episode.phases) for episode in corpus.episodes)
    infected: Counter[str] = Counter()
    for episode in corpus.episodes:
        if episode.profile != CONTROL:
            infected[episode.profile] += int(np.count_nonzero(episode.phases))
    share = {profile: n / max(total, 1) for profile, n in infected.items()}
    found = corpus.commands.exclusive(share, least=SHAPE_EPISODES, p=SHAPE_P)
    what = f"{_names([shape.shape for shape in found])} only while infected" if found else "none"
    return Finding(
        "command shapes",
        "fault" if found else "ok",
        what,
        limit,
        {"shapes": [shape._asdict() for shape in found]},
        ("shape", "episodes", "profiles", "p at most", "such as"),
        tuple(
            (s.shape, s.n_episodes, ", ".join(s.profiles), f"{s.p:.1g}", s.example) for s in found
        ),
        "lrlrl",
    )


# --- whether the observers kept time


def _clocks(corpus: Corpus) -> Finding:
    limit = (
        f"at most {ACCIDENT_SHARE:.0%} of episodes drift over {DRIFT_S:g} s, "
        f"{ACCIDENT_SHARE:.0%} of a table's rows lie outside the record"
    )
    tables = sorted({name for episode in corpus.episodes for name in episode.ticks})
    rows, figures, bad = [], {}, []
    for name in tables:
        ticks = [episode.ticks[name] for episode in corpus.episodes if name in episode.ticks]
        drifting = sum(tick.drift_s > DRIFT_S for tick in ticks) / len(ticks)
        outside = sum(tick.n_outside for tick in ticks) / sum(tick.n_rows for tick in ticks)
        foreign = sum(abs(tick.offset_s) > DRIFT_S for tick in ticks)
        largest = max(tick.drift_s for tick in ticks)
        figures[name] = {
            "largest_drift_s": largest,
            "share_drifting": drifting,
            "share_rows_outside": outside,
            "n_not_from_start": foreign,
        }
        rows.append((name, f"{largest:.4f}", f"{drifting:.1%}", f"{outside:.2%}", foreign))
        if max(drifting, outside) > ACCIDENT_SHARE:
            bad.append(name)
    counted = [row[0] for row in rows if row[4]]
    note = f"; t_mono_ns does not count from the start in {', '.join(counted)}" if counted else ""
    worst = max(float(row[1]) for row in rows)
    return Finding(
        "clocks",
        "fault" if bad else "ok",
        (f"wrong in {', '.join(bad)}" if bad else f"at most {worst:.4f} s of drift") + note,
        limit,
        figures,
        ("table", "largest drift s", "drifting", "rows outside", "not from the start"),
        tuple(rows),
    )


def _gaps(corpus: Corpus) -> Finding:
    limit = f"over {GAP_INTERVALS:g} intervals in at most {GAP_SHARE:.0%} of a host's episodes"
    rows: list[tuple[str, ...]] = []
    figures: list[dict[str, Any]] = []
    bad: list[str] = []
    for host in sorted({episode.host_id for episode in corpus.episodes}):
        mine = [episode for episode in corpus.episodes if episode.host_id == host]
        for source in SAMPLED:
            measured = [
                (tick.largest_gap_s, tick.interval_s)
                for episode in mine
                if (tick := episode.ticks.get(source)) is not None
                and tick.largest_gap_s is not None
                and tick.interval_s is not None
            ]
            if not measured:
                continue
            over = sum(gap > GAP_INTERVALS * interval for gap, interval in measured)
            share, largest = over / len(measured), max(gap for gap, _ in measured)
            nominal = min(interval for _, interval in measured)
            rows.append((host, source, f"{nominal:g}", f"{largest:.2f}", f"{share:.1%}"))
            figures.append(
                {
                    **{"host_id": host, "source": source, "interval_s": nominal},
                    **{"largest_gap_s": largest, "share_over": share},
                }
            )
            if share > GAP_SHARE:
                bad.append(f"{source} of {host} ({share:.0%})")
    worst = max(figures, key=lambda f: f["largest_gap_s"] / f["interval_s"], default=None)
    if worst is None:
        return _unknown("sampling gaps", "no source has rows", limit)
    what = (
        f"largest for its rate: {worst['largest_gap_s']:.2f} s in {worst['source']} of "
        f"{worst['host_id']}"
    )
    return Finding(
        "sampling gaps",
        "fault" if bad else "ok",
        f"often too long in {_names(bad)}" if bad else what,
        limit,
        {"by_host": figures},
        ("host", "source", "nominal s", "largest gap s", "episodes over"),
        tuple(rows),
    )


# --- whether neighbours tell


def _neighbours(corpus: Corpus) -> Finding:
    """Whether episodes that overlap begin together, or are infected together.

    Starts: the share of overlapping pairs that begin within `TOGETHER` of a record of each other.
    If slots go their own ways the distance is uniform up to a record, and the share is `TOGETHER`.

    Onsets: the same share, of those pairs that both have an onset within their record, by the wall
    clock; held against the same with the onsets (after each record's start) shuffled over episodes,
    a permutation test (P. Good, Permutation, Parametric and Bootstrap Tests of Hypotheses, 2005).
    Onsets that are drawn by themselves can be exchanged, whatever the starts are.
    """
    limit = (
        f"at most {TOGETHER_SHARE:.0%} begin together, and at most {IN_STEP_MORE:.0%} more "
        "than by chance are infected together"
    )
    episodes = sorted(corpus.episodes, key=lambda e: (e.started_ns, e.episode_id))
    pairs = _overlapping(episodes)
    if len(pairs) < FEWEST_PAIRS:
        what = f"{_n(len(pairs), 'pair')} of episodes overlap: too few to be in step"
        return Finding("neighbours", "ok", what, limit, {"n_pairs": len(pairs)})
    first = episodes[0].started_ns
    start_s = np.array([(episode.started_ns - first) / 1e9 for episode in episodes])
    near_s = TOGETHER * float(np.median([episode.duration_s for episode in episodes]))
    one, other = np.array(pairs).T
    share = float((np.abs(start_s[one] - start_s[other]) < near_s).mean())
    figures: dict[str, Any] = {"n_pairs": len(pairs), "share_beginning_together": share}
    bad = ["starts"] if share > TOGETHER_SHARE else []
    what = f"{share:.0%} of {_n(len(pairs), 'pair')} begin together, {TOGETHER:.0%} by chance"
    onset_s = np.array([np.nan if e.onset_s is None else e.onset_s for e in episodes])
    both = ~np.isnan(onset_s[one]) & ~np.isnan(onset_s[other])
    if both.sum() >= FEWEST_PAIRS:
        infected, chance, p = _in_step(start_s, onset_s, one[both], other[both], near_s)
        figures |= {
            **{"n_pairs_with_onsets": int(both.sum()), "share_infected_together": infected},
            **{"share_by_chance": chance, "p": p},
        }
        if infected - chance > IN_STEP_MORE and p <= IN_STEP_P:
            bad.append("onsets")
        what += (
            f"; {infected:.0%} of {_n(int(both.sum()), 'pair')} are infected together, "
            f"{chance:.0%} by chance (p {p:.2f})"
        )
    what = (f"{' and '.join(bad)} in step: " if bad else "") + what
    return Finding("neighbours", "fault" if bad else "ok", what, limit, figures)


def _overlapping(episodes: Sequence[Facts]) -> list[tuple[int, int]]:
    """Pairs of positions of episodes, in the order of their starts, that overlap in time."""
    pairs: list[tuple[int, int]] = []
    active: list[int] = []
    for j, episode in enumerate(episodes):
        active = [i for i in active if episodes[i].ended_ns > episode.started_ns]
        pairs += [(i, j) for i in active]
        active.append(j)
        if len(pairs) > _MOST_PAIRS:
            break
    return pairs


def _in_step(
    start_s: NDArray[np.float64],
    onset_s: NDArray[np.float64],
    one: Numbers,
    other: Numbers,
    near_s: float,
) -> tuple[float, float, float]:
    """Share of pairs infected together, its mean under permutation, and one-sided p.

    Args:
        start_s: (n,) of the episodes.
        onset_s: (n,) after their start, NaN where there is none.
        one, other: (m,) positions of the episodes of each pair.
        near_s: how near together is.
    """

    def share(onsets: NDArray[np.float64]) -> float:
        at = start_s + onsets
        return float((np.abs(at[one] - at[other]) < near_s).mean())

    rng = np.random.default_rng(SEED)
    there = np.flatnonzero(~np.isnan(onset_s))
    by_chance = np.empty(PERMUTATIONS)
    for r in range(PERMUTATIONS):
        moved = onset_s.copy()
        moved[there] = onset_s[rng.permutation(there)]
        by_chance[r] = share(moved)
    found = share(onset_s)
    p = (1 + int((by_chance >= found).sum())) / (1 + PERMUTATIONS)
    return found, float(by_chance.mean()), p


# --- whether there is enough of everything


def _phases(corpus: Corpus) -> Finding:
    limit = f"each phase in at least {PHASE_SHARE:.0%} of all windows"
    counts: dict[str, Numbers] = {}
    for episode in corpus.episodes:
        of_episode = np.bincount(episode.phases, minlength=K)
        counts[episode.host_id] = counts.get(episode.host_id, np.zeros(K, np.int64)) + of_episode
    total = np.sum(list(counts.values()), axis=0)
    if not total.sum():
        return _unknown("phases", "no episode is as long as a window", limit)
    shares = total / total.sum()
    rare = [name for name, share in zip(PHASES, shares, strict=True) if share < PHASE_SHARE]
    lacking = [
        f"{PHASES[k]} on {host}"
        for host, mine in sorted(counts.items())
        for k in np.flatnonzero(mine == 0)
        if PHASES[k] not in rare
    ]
    state: State = "fault" if rare else "warning" if lacking else "ok"
    listed = ", ".join(f"{name} {share:.0%}" for name, share in zip(PHASES, shares, strict=True))
    note = f"; no window of {_names(lacking)}" if lacking else ""
    rows = [
        (host, *(f"{share:.0%}" for share in mine / max(mine.sum(), 1)), int(mine.sum()))
        for host, mine in [*sorted(counts.items()), ("all", total)]
    ]
    return Finding(
        "phases",
        state,
        listed + note,
        limit,
        {
            "share": dict(zip(PHASES, shares.tolist(), strict=True)),
            "n_windows": {host: mine.tolist() for host, mine in sorted(counts.items())},
        },
        ("host", *PHASES, "windows"),
        tuple(rows),
    )


def _profiles(corpus: Corpus) -> Finding:
    limit = (
        f"{HOSTS} hosts, each profile on {PROFILE_HOSTS} with {PROFILE_EPISODES} episodes of "
        f"{PROFILE_SAMPLES} samples, {CONTROL_SHARE:.0%} controls, no profile over "
        f"{OF_ONE_PROFILE:.0%} of a host's infected episodes"
    )
    count = Counter((episode.host_id, episode.profile) for episode in corpus.episodes)
    hosts = sorted({host for host, _ in count})
    profiles = sorted({profile for _, profile in count} - {CONTROL})
    wrong = []
    if len(hosts) < HOSTS:
        wrong.append(f"{_n(len(hosts), 'host')}")
    if not profiles:
        wrong.append("no profile but none")
    for profile in profiles:
        mine = [episode for episode in corpus.episodes if episode.profile == profile]
        for n, least, what in (
            (len({episode.host_id for episode in mine}), PROFILE_HOSTS, "host"),
            (len(mine), PROFILE_EPISODES, "episode"),
            (len({episode.sample_name for episode in mine}), PROFILE_SAMPLES, "sample"),
        ):
            if n < least:
                wrong.append(f"{profile}: {_n(n, what)}")
    controls = sum(count[host, CONTROL] for host in hosts)
    if controls < CONTROL_SHARE * len(corpus.episodes):
        wrong.append(_n(controls, "control"))
    for host in hosts:
        infected = sum(count[host, profile] for profile in profiles)
        for profile in profiles:
            if count[host, profile] > max(OF_ONE_PROFILE * infected, 1):
                wrong.append(f"{host}: {count[host, profile]} of {infected} are {profile}")
    without = [host for host in hosts if not count[host, CONTROL]]
    state: State = "fault" if wrong else "warning" if without else "ok"
    note = f"; no control on {_names(without)}" if without else ""
    columns = [*profiles, CONTROL]
    rows = [
        (name, *(sum(count[host, profile] for host in group) for profile in columns))
        for name, group in [*((host, [host]) for host in hosts), ("all", hosts)]
    ]
    return Finding(
        "profiles",
        state,
        (_names(wrong) if wrong else f"{len(profiles)} on {_n(len(hosts), 'host')}") + note,
        limit,
        {"n_episodes": {host: {p: count[host, p] for p in columns} for host in hosts}},
        ("host", *columns, "all"),
        tuple((*row, sum(n for n in row[1:] if isinstance(n, int))) for row in rows),
    )


def _unknown(name: str, why: str, limit: str) -> Finding:
    return Finding(name, "unknown", f"cannot be judged: {why}", limit)


def _names(names: Sequence[str]) -> str:
    """The first few of them, and how many more."""
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more


def _n(n: int, what: str) -> str:
    return f"{n:,} {what}{'' if n == 1 else 's'}"
