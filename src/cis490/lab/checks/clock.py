"""What a clock alone can tell of the phase."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from cis490.evaluation.baselines import CLOCK, predict_baselines
from cis490.evaluation.bootstrap import episode_weights, percentile_interval
from cis490.evaluation.metrics import K, Sums, confusion, macro_f1
from cis490.lab.checks.finding import Finding, unknown
from cis490.lab.corpus import Corpus, Facts

# Macro F1 of a classifier that knows a window's place alone, on hosts that it did not learn from.
# The first corpus, thrown away, had 0.60 to 0.69; a plan of ours has 0.25 (sd 0.01), and a constant
# answer 0.12.
CLOCK_F1: Final = 0.30
REPLICATES: Final = 2_000


def window_index(corpus: Corpus) -> Finding:
    """How well a window's place in its episode tells the phase, on hosts held out."""
    places = [np.arange(len(episode.phases)) for episode in corpus.episodes]
    return _by_clock("window index", "a window's index alone", corpus.episodes, places)


def boot_time(corpus: Corpus) -> Finding:
    """The same of the time since the guest was ready."""
    known = [episode for episode in corpus.episodes if episode.preroll_s is not None]
    if not known:
        return unknown("time since boot", "no meta.json has preroll_s", _CLOCK_LIMIT)
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
    name: str, what: str, episodes: Sequence[Facts], places: Sequence[NDArray[np.int64]]
) -> Finding:
    """Macro F1 of saying of each window what is best to say at its place, on hosts held out."""
    hosts = sorted({episode.host_id for episode in episodes})
    if len(hosts) < 2:
        return unknown(name, f"only host {hosts[0]}: none to hold out", _CLOCK_LIMIT)
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
    episodes: Sequence[Facts], places: Sequence[NDArray[np.int64]], hosts: Sequence[str]
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
