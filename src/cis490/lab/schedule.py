"""The plan of a corpus that cannot be cheated on: what each episode holds, and when.

A classifier that sees nothing but the time must not do well, so the plan follows docs/lab.md:
onsets are uniform from long before the record to near its end, benign jobs start and stop as often
as samples do, in controls too, and nothing that a clock could tell depends on what is infected. A
plan is a pure function of its hosts, its seed and the programs there are; more episodes only add
to it.
"""

from __future__ import annotations

import hashlib
import itertools
import random
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final

from cis490.channels import PHASES
from cis490.errors import LabError
from cis490.files import to_compact_json
from cis490.lab import catalog
from cis490.lab.catalog import Program
from cis490.lab.hosts import Host
from cis490.markdown import table
from cis490.words import about

SEED: Final = 490
CONTROL: Final = "none"  # profile and sample of an episode that is benign throughout

# All times are in proportion to the record's length; these are for one of USUAL_S.
USUAL_S: Final = 64.0
# When armed begins. Window index alone then scores 0.25 macro F1 (sd 0.01) across the hosts of 240
# episodes, and no phase has less than 8% of the windows. From -20 s on it would score 0.26, and a
# tenth would be dormant rather than an eighth; from -44 s on 0.24, with fewer onsets to be seen.
ONSET_S: Final = (-32.0, 54.0)
ARMED_S: Final = (6.0, 12.0)
INFECTING_S: Final = (6.0, 12.0)
RUNNING_S: Final = (8.0, 24.0)  # where dormant follows
DORMANT_SHARE: Final = 0.5
# From the guest being ready to the record: longer than the earliest onset, and drawn by itself, so
# that time since boot says no more than time.
PREROLL_S: Final = (33.0, 41.0)
WAIT_S: Final = (0.0, 8.0)  # of a slot before an episode, so that neighbours fall out of step
PACE: Final = (0.6, 1.6)

CONTROL_SHARE: Final = 0.2
# In this share of episodes a benign job starts or stops within the record, passing ones aside.
CHANGE_SHARE: Final = 0.9
PASSING_SHARE: Final = 0.4
# And this share has one throughout. With one in each episode two or three jobs ran at a time, and a
# booster knew no infection from them: 0.38 macro F1, learning from all other hosts of 61 episodes.
STEADY_SHARE: Final = 0.2
JOBS_BEFORE_S: Final = 30.0  # jobs that run when the record begins began within so long
PASSING_S: Final = (8.0, 40.0)

# Of a slot beside what the plan says: a guest's boot with two others beside it (docs/lab.md), its
# end, and packing.
OVERHEAD_S: Final = 8.0
# Of USUAL_S lengths, what an episode of a slot takes from one start to the next.
_CYCLE: Final = 1.7
APART_EVERY: Final = 4  # episodes of a slot: it begins anew at a random time, out of step


@dataclass(frozen=True)
class Job:
    """A benign job around an episode.

    Attributes:
        name: of its program.
        start_s: seconds after the record's start, negative before it.
        stop_s: likewise; None: it runs on beyond the record.
        pace: how fast it goes, 1 as written.
    """

    name: str
    start_s: float
    stop_s: float | None
    pace: float


@dataclass(frozen=True)
class EpisodePlan:
    """What one episode is to be. Times are seconds after the record's start, negative before it.

    Attributes:
        number: its place in the plan, from 0.
        episode_id: 20 hexadecimal digits that stand for all of this.
        seed: of the guest's programs, below 2**31.
        host: the configuration that it runs on.
        profile, sample_name: what infects it; both "none" in a control.
        pace: how fast the sample goes, 1 as written.
        duration_s: of the record.
        preroll_s: from the guest being ready to the record's start.
        wait_s: what its slot waits before it.
        phases: when armed, infecting, infected_running and perhaps dormant begin; clean before and,
            in a control, throughout.
        jobs: the benign work around it.
        salt: hexadecimal; names in the guest are drawn from it.
    """

    number: int
    episode_id: str
    seed: int
    host: Host
    profile: str
    sample_name: str
    pace: float
    duration_s: float
    preroll_s: float
    wait_s: float
    phases: tuple[tuple[float, str], ...]
    jobs: tuple[Job, ...]
    salt: str

    @property
    def changes_s(self) -> list[float]:
        """When benign jobs start or stop within the record."""
        times = [t for job in self.jobs for t in (job.start_s, job.stop_s) if t is not None]
        return sorted(t for t in times if 0 < t < self.duration_s)

    def held_s(self) -> dict[str, tuple[float, float]]:
        """From when to when each phase holds within the record, where it does."""
        begins = [(0.0, PHASES[0]), *self.phases]
        ends = [*(begin for begin, _ in self.phases), self.duration_s]
        held = {}
        for (begin, phase), end in zip(begins, ends, strict=True):
            begin, end = max(begin, 0.0), min(end, self.duration_s)
            if begin < end:
                held[phase] = begin, end
        return held


def plan(
    hosts: Sequence[Host],
    episodes: int,
    seed: int = SEED,
    duration_s: float = USUAL_S,
    *,
    samples: Sequence[Program] | None = None,
    jobs: Sequence[Program] | None = None,
) -> list[EpisodePlan]:
    """Plan a corpus.

    Args:
        hosts: they take turns, in an order drawn anew each round.
        episodes: how many; a longer plan begins with the shorter one.
        seed: another one gives another plan.
        duration_s: of each record; all other times are in proportion to it.
        samples, jobs: the programs there are; None: those that ship.

    Raises:
        LabError: there is no host, two have one name, or one runs a profile that has no sample.
    """
    of_profile: dict[str, list[str]] = {}
    for program in catalog.samples() if samples is None else samples:
        of_profile.setdefault(program.profile or "", []).append(program.name)
    names = [program.name for program in (catalog.jobs() if jobs is None else jobs)]
    _check(hosts, of_profile)
    decks = {host.host_id: _deal(host, of_profile, seed) for host in hosts}
    return [
        _episode(number, host, *next(decks[host.host_id]), names, seed, duration_s)
        for number, host in enumerate(itertools.islice(_turns(hosts, seed), episodes))
    ]


def stagger_s(seed: int, slot: int, nth: int, duration_s: float = USUAL_S) -> float:
    """What a slot waits before its `nth` episode (from 0), beside what the plan says.

    Slots that go on by themselves fall into step, wherever they began: a guest boots sooner while
    its neighbours are still idle, so who is behind catches up. Four slots spread over a minute were
    within 5 s of each other after ten episodes. So each begins anew at a random time now and then.

    Args:
        seed: any number.
        slot: its number.
        nth: how many episodes it has begun.
        duration_s: of a record.
    """
    if nth % APART_EVERY:
        return 0.0
    return random.Random(f"{seed}/slot/{slot}/{nth}").uniform(0, _CYCLE * duration_s)


def expected_hours(plans: Sequence[EpisodePlan], parallel: int) -> float:
    """How long the recording takes with so many guests at once."""
    slots = max(1, min(parallel, len(plans)))
    busy = sum(p.wait_s + p.preroll_s + p.duration_s + OVERHEAD_S for p in plans)
    times = -(-len(plans) // slots)
    apart = [
        stagger_s(0, slot, nth, plans[0].duration_s)
        for slot in range(slots)
        for nth in range(times)
    ]
    return (busy + sum(apart)) / slots / 3600


def _check(hosts: Sequence[Host], of_profile: dict[str, list[str]]) -> None:
    if not hosts:
        raise LabError("no host to record; name one in the hosts' file")
    for host_id, n in Counter(host.host_id for host in hosts).items():
        if n > 1:
            raise LabError(f"host {host_id} is there {n} times; give each its own name")
    for host in hosts:
        for profile in host.profiles:
            if profile not in of_profile:
                raise LabError(
                    f"host {host.host_id} is to run {profile}, of which there is no sample; there "
                    f"are {', '.join(sorted(of_profile))}"
                )


def _turns(hosts: Sequence[Host], seed: int) -> Iterator[Host]:
    """The hosts for ever, each once a round."""
    for round_ in itertools.count():
        order = sorted(hosts, key=lambda host: host.host_id)
        random.Random(f"{seed}/round/{round_}").shuffle(order)
        yield from order


def _deal(host: Host, of_profile: dict[str, list[str]], seed: int) -> Iterator[tuple[str, str]]:
    """What a host runs, for ever: profile and sample.

    A deck holds every sample of its profiles once, and controls. It is dealt in hands of about one
    sample a profile, so that a host's counts are even before a deck is through, too.
    """
    for deck in itertools.count():
        rng = random.Random(f"{seed}/deck/{host.host_id}/{deck}")
        mine = {profile: sorted(of_profile[profile]) for profile in host.profiles}
        hands: list[list[tuple[str, str]]] = [[] for _ in range(max(map(len, mine.values())))]
        n_samples = sum(map(len, mine.values()))
        n_controls = max(1, round(n_samples * CONTROL_SHARE / (1 - CONTROL_SHARE)))
        for profile, names in [*mine.items(), (CONTROL, [CONTROL] * n_controls)]:
            rng.shuffle(names)
            order = rng.sample(range(len(hands)), len(hands))
            for i, name in enumerate(names):
                hands[order[i % len(hands)]].append((profile, name))
        for hand in hands:
            rng.shuffle(hand)
            yield from hand


def _episode(
    number: int,
    host: Host,
    profile: str,
    sample_name: str,
    jobs: Sequence[str],
    seed: int,
    duration_s: float,
) -> EpisodePlan:
    scale = duration_s / USUAL_S

    def stream(what: str) -> random.Random:
        """Each thing has a stream of its own: a new job moves no onset."""
        return random.Random(f"{seed}/{what}/{number}")

    def scaled(rng: random.Random, bounds: tuple[float, float]) -> float:
        return round(rng.uniform(*bounds) * scale, 3)

    guest = stream("guest")
    planned = EpisodePlan(
        number=number,
        episode_id="",
        seed=guest.getrandbits(31),
        host=host,
        profile=profile,
        sample_name=sample_name,
        pace=round(guest.uniform(*PACE), 2),
        duration_s=duration_s,
        preroll_s=scaled(stream("preroll"), PREROLL_S),
        wait_s=scaled(stream("wait"), WAIT_S),
        phases=() if profile == CONTROL else _phases(stream("phases"), scale),
        jobs=_jobs(stream("jobs"), jobs, duration_s),
        salt=f"{guest.getrandbits(64):016x}",
    )
    whole = to_compact_json([seed, planned])
    return replace(planned, episode_id=hashlib.sha256(whole.encode()).hexdigest()[:20])


def _phases(rng: random.Random, scale: float) -> tuple[tuple[float, str], ...]:
    begins = [rng.uniform(*ONSET_S)]
    begins += [begins[0] + (armed := rng.uniform(*ARMED_S))]
    begins += [begins[0] + armed + rng.uniform(*INFECTING_S)]
    if rng.random() < DORMANT_SHARE:
        begins += [begins[-1] + rng.uniform(*RUNNING_S)]
    return tuple(
        (round(begin * scale, 3), phase) for begin, phase in zip(begins, PHASES[1:], strict=False)
    )


def _jobs(rng: random.Random, names: Sequence[str], duration_s: float) -> tuple[Job, ...]:
    """Mostly a job that starts or stops in the record, sometimes a passing one or one throughout.

    Starts and stops are as frequent as each other and uniform in time, so that how much benign work
    there is says nothing of how late it is.
    """
    scale = duration_s / USUAL_S
    chosen = iter(rng.sample(sorted(names), min(3, len(names))))

    def before() -> float:
        return rng.uniform(-JOBS_BEFORE_S * scale, 0)

    times: list[tuple[float, float | None]] = []
    if rng.random() < STEADY_SHARE:
        times.append((before(), None))
    if rng.random() < CHANGE_SHARE:
        change = rng.uniform(0, duration_s)
        times.append((change, None) if rng.random() < 0.5 else (before(), change))
    if rng.random() < PASSING_SHARE:
        length = rng.uniform(*PASSING_S) * scale
        start = rng.uniform(-length, duration_s)
        begun = max(start, -JOBS_BEFORE_S * scale)
        times.append((begun, start + length if start + length < duration_s else None))
    return tuple(
        Job(
            name,
            round(start, 3),
            None if stop is None else round(stop, 3),
            round(rng.uniform(*PACE), 2),
        )
        for name, (start, stop) in zip(chosen, times, strict=False)
    )


def render(plans: Sequence[EpisodePlan], parallel: int) -> str:
    """A plan for people: a row an episode, then what it comes to.

    Args:
        plans: of `plan`, at least one.
        parallel: guests at once, for the time that it takes.
    """
    rows = [
        [
            p.number,
            p.host.host_id,
            p.profile if p.profile == CONTROL else f"{p.profile}/{p.sample_name}",
            f"{p.phases[0][0]:+.1f}" if p.phases else "-",
            ", ".join(f"{phase} {a:.0f}-{b:.0f}" for phase, (a, b) in p.held_s().items()),
            ", ".join(map(_said, p.jobs)),
            f"{p.preroll_s:.1f}",
        ]
        for p in plans
    ]
    header = ["number", "host", "profile/sample", "onset s", "phases s", "jobs s", "preroll s"]
    return "\n".join([*table(header, rows, "rllrll"), "", *_summary(plans, parallel), ""])


def _said(job: Job) -> str:
    stop = "" if job.stop_s is None else f"{job.stop_s:+.0f}"
    return f"{job.name} {job.start_s:+.0f}..{stop}"


def _summary(plans: Sequence[EpisodePlan], parallel: int) -> list[str]:
    profiles = [*sorted({p.profile for p in plans} - {CONTROL}), CONTROL]
    count = Counter((p.host.host_id, p.profile) for p in plans)
    rows: list[list[str | int]] = []
    for host_id in [*sorted({p.host.host_id for p in plans}), "all"]:
        hosts = {p.host.host_id for p in plans} if host_id == "all" else {host_id}
        counts = [sum(count[host, profile] for host in hosts) for profile in profiles]
        rows.append([host_id, *counts, sum(counts)])
    seconds = dict.fromkeys(PHASES, 0.0)
    for p in plans:
        for phase, (begin, end) in p.held_s().items():
            seconds[phase] += end - begin
    total = sum(seconds.values())
    shares = ", ".join(f"{phase} {seconds[phase] / total:.0%}" for phase in PHASES)
    changing = [p for p in plans if p.changes_s]
    controls = [p for p in plans if p.profile == CONTROL]
    in_controls = sum(1 for p in controls if p.changes_s)
    hours = expected_hours(plans, parallel)
    return [
        *table(["host", *profiles, "all"], rows),
        "",
        f"phases: {shares} of the recorded time",
        f"benign jobs start or stop within the record of {len(changing)} of {len(plans)} episodes, "
        f"{in_controls} of {len(controls)} controls",
        f"{about(3600 * hours)} or so with {parallel} at once, {len(plans) / hours:.0f} an hour",
    ]
