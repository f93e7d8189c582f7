"""Small corpora as the lab would record them: from a plan, with what a test wants wrong in them."""

import random
from dataclasses import replace
from pathlib import Path

import numpy as np

from cis490.channels import PHASES
from cis490.config import resolve
from cis490.lab.catalog import Program
from cis490.lab.commands import Event
from cis490.lab.corpus import Corpus, Facts, Ticks
from cis490.lab.hosts import Host
from cis490.lab.schedule import plan, stagger_s
from cis490.schema import Schema
from tests.builders import START, Store, lines

PROFILES = ("cpu-saturate", "io-walk", "fork-churn")
HOSTS = [
    Host(name, "q35", "max", 128, 1, "none", proc_hz=1, profiles=PROFILES)
    for name in ("alder", "birch", "dogwood", "elm")
]
SAMPLES = [
    Program(f"{stem}-{letter}", "sample", profile, "", None, Path("x"), network=False)
    for profile, stem in zip(PROFILES, ("miner", "walker", "churn"), strict=True)
    for letter in "abcd"
]
JOBS = [
    Program(name, "job", None, "", None, Path("x"), network=False)
    for name in ("backup", "build", "install", "office", "video")
]
N_SLOTS = 3
COMMANDS = ("sh /run/j/3fa9c1b2", "sleep 2", "sleep 0.25", "dd if=/dev/vda bs=4k", "nc 10.77.0.1")


def planned(n=96, **options):
    return plan(HOSTS, n, samples=SAMPLES, jobs=JOBS, **options)


def fixed_onset(plans):
    """As the first corpus: armed 14 to 22 s in."""
    rng = random.Random(0)

    def moved(p):
        shift = rng.uniform(14, 22) - p.phases[0][0]
        return replace(p, phases=tuple((t + shift, phase) for t, phase in p.phases))

    return [moved(p) if p.phases else p for p in plans]


def without_benign_onsets(plans, which=lambda _: True):
    """Benign jobs run throughout, so that each change is infection."""

    def still(p):
        return tuple(replace(job, start_s=-20.0, stop_s=None) for job in p.jobs)

    return [replace(p, jobs=still(p)) if which(p) else p for p in plans]


def starts(plans):
    """When each record begins, ns: slots that go their own ways."""
    free, nth, begins = [0.0] * N_SLOTS, [0] * N_SLOTS, []
    for p in plans:
        slot = int(np.argmin(free))
        begin = free[slot] + stagger_s(490, slot, nth[slot]) + p.wait_s + 6 + p.preroll_s
        free[slot] = begin + p.duration_s
        nth[slot] += 1
        begins.append(START + round(begin * 1e9))
    return begins


def labels(p):
    """What labels.jsonl says."""
    first = [phase for t, phase in p.phases if t <= 0]
    later = [(t, phase) for t, phase in p.phases if 0 < t < p.duration_s]
    return [(0.0, first[-1] if first else "clean"), *later]


def commands(p, start, infected=None):
    """Benign commands all the time, and one more while infected: (t_wall_ns, cmdline)."""
    rng = random.Random(p.number)
    events = [(t, rng.choice(COMMANDS)) for t in np.arange(0.5, p.duration_s, 4)]
    if infected and p.phases:
        begin = max(p.phases[0][0], 0)
        events += [(t, infected(p)) for t in np.arange(begin + 0.1, p.duration_s, 6)]
    return [(start + round(t * 1e9), cmdline) for t, cmdline in sorted(events)]


def write(folder, plans, infected=None, meta=None):
    """A store of such episodes."""
    store = Store(folder)
    for p, start in zip(plans, starts(plans), strict=True):

        def with_exec(members, p=p, start=start):
            members["exec.jsonl"] = lines(
                [
                    {
                        **{"t_wall_ns": t, "t_mono_ns": t - start, "event": "start"},
                        **{"pid": i, "ppid": 1, "cmdline": cmdline},
                    }
                    for i, (t, cmdline) in enumerate(commands(p, start, infected))
                ]
            )

        told = {
            "jobs": [
                {"name": j.name, "start_s": j.start_s, "stop_s": j.stop_s, "pace": j.pace}
                for j in p.jobs
            ],
            "preroll_s": p.preroll_s,
        }
        store.add(
            p.host.host_id,
            p.episode_id,
            mutate=with_exec,
            profile=p.profile,
            sample_name=p.sample_name,
            phases=labels(p),
            duration_s=p.duration_s,
            start=start,
            hz=p.host.proc_hz,
            meta=told if meta is None else meta(told),
        )
    return store


def gathered(plans, infected=None, begins=None, **changes):
    """The same as `read_corpus` would gather it, without the files."""
    corpus = Corpus(Schema.from_config(resolve({})))
    for p, start in zip(plans, begins or starts(plans), strict=True):
        onset = next((t for t, _ in p.phases), None)
        facts = Facts(
            episode_id=p.episode_id,
            host_id=p.host.host_id,
            profile=p.profile,
            sample_name=p.sample_name,
            started_ns=start,
            ended_ns=start + round(p.duration_s * 1e9),
            phases=windows(p),
            onset_s=onset if onset is not None and 0 < onset < p.duration_s else None,
            changes_s=p.changes_s,
            preroll_s=p.preroll_s,
            ticks={
                source: Ticks(round(64 / interval), interval, 1.2 * interval, 0, 0.0, 0.0)
                for source, interval in (("proc", 0.1), ("qmp", 0.5), ("guest", 1.0))
            },
        )
        corpus.episodes.append(replace(facts, **{k: v(facts) for k, v in changes.items()}))
        onset_ns = None if onset is None else start + round(max(onset, 0) * 1e9)
        events = [Event(t, cmdline) for t, cmdline in commands(p, start, infected)]
        corpus.commands.add(events, p.profile, onset_ns)
    return corpus


def windows(p, length=10.0, stride=5.0):
    """The phase of each window, as docs/episodes.md says."""
    held, found = p.held_s(), []
    for begin in np.arange(0, p.duration_s - 0.95 * length, stride):
        covered = [
            max(0.0, min(begin + length, held[phase][1]) - max(begin, held[phase][0]))
            if phase in held
            else 0.0
            for phase in PHASES
        ]
        found.append(len(PHASES) - 1 - int(np.argmax(covered[::-1])))
    return np.array(found)
