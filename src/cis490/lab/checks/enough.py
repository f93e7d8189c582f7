"""Whether there is enough of every phase, profile and host."""

from __future__ import annotations

from collections import Counter
from typing import Final

import numpy as np
from numpy.typing import NDArray

from cis490.channels import PHASES
from cis490.evaluation.metrics import K
from cis490.lab.checks.finding import Finding, State, names, unknown
from cis490.lab.corpus import Corpus
from cis490.lab.schedule import CONTROL
from cis490.words import count

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


def phases(corpus: Corpus) -> Finding:
    """The share of the windows that each phase has."""
    limit = f"each phase in at least {PHASE_SHARE:.0%} of all windows"
    counts: dict[str, NDArray[np.int64]] = {}
    for episode in corpus.episodes:
        of_episode = np.bincount(episode.phases, minlength=K)
        counts[episode.host_id] = counts.get(episode.host_id, np.zeros(K, np.int64)) + of_episode
    total = np.sum(list(counts.values()), axis=0)
    if not total.sum():
        return unknown("phases", "no episode is as long as a window", limit)
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
    note = f"; no window of {names(lacking)}" if lacking else ""
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


def profiles(corpus: Corpus) -> Finding:
    """Episodes, hosts and samples of each profile, and controls."""
    limit = (
        f"{HOSTS} hosts, each profile on {PROFILE_HOSTS} with {PROFILE_EPISODES} episodes of "
        f"{PROFILE_SAMPLES} samples, {CONTROL_SHARE:.0%} controls, no profile over "
        f"{OF_ONE_PROFILE:.0%} of a host's infected episodes"
    )
    there = Counter((episode.host_id, episode.profile) for episode in corpus.episodes)
    hosts = sorted({host for host, _ in there})
    profiles = sorted({profile for _, profile in there} - {CONTROL})
    wrong = []
    if len(hosts) < HOSTS:
        wrong.append(f"{count(len(hosts), 'host')}")
    if not profiles:
        wrong.append("no profile but none")
    for profile in profiles:
        mine = [episode for episode in corpus.episodes if episode.profile == profile]
        few = [
            count(n, what)
            for n, least, what in (
                (len(mine), PROFILE_EPISODES, "episode"),
                (len({episode.sample_name for episode in mine}), PROFILE_SAMPLES, "sample"),
                (len({episode.host_id for episode in mine}), PROFILE_HOSTS, "host"),
            )
            if n < least
        ]
        if few:
            wrong.append(f"{profile} ({', '.join(few)})")
    controls = sum(there[host, CONTROL] for host in hosts)
    if controls < CONTROL_SHARE * len(corpus.episodes):
        wrong.append(count(controls, "control"))
    for host in hosts:
        infected = sum(there[host, profile] for profile in profiles)
        for profile in profiles:
            if there[host, profile] > max(OF_ONE_PROFILE * infected, 1):
                wrong.append(f"{host}: {there[host, profile]} of {infected} are {profile}")
    without = [host for host in hosts if not there[host, CONTROL]]
    state: State = "fault" if wrong else "warning" if without else "ok"
    note = f"; no control on {names(without)}" if without else ""
    columns = [*profiles, CONTROL]
    rows = [
        (name, *(sum(there[host, profile] for host in group) for profile in columns))
        for name, group in [*((host, [host]) for host in hosts), ("all", hosts)]
    ]
    return Finding(
        "profiles",
        state,
        (names(wrong) if wrong else f"{len(profiles)} on {count(len(hosts), 'host')}") + note,
        limit,
        {"n_episodes": {host: {p: there[host, p] for p in columns} for host in hosts}},
        ("host", *columns, "all"),
        tuple((*row, sum(n for n in row[1:] if isinstance(n, int))) for row in rows),
    )
