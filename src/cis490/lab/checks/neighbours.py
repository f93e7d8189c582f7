"""Whether guests beside each other are in step."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from cis490.evaluation.bootstrap import SEED
from cis490.lab.checks.finding import Finding
from cis490.lab.corpus import Corpus, Facts
from cis490.words import count

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


def neighbours(corpus: Corpus) -> Finding:
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
        what = f"{count(len(pairs), 'pair')} of episodes overlap: too few to be in step"
        return Finding("neighbours", "ok", what, limit, {"n_pairs": len(pairs)})
    first = episodes[0].started_ns
    start_s = np.array([(episode.started_ns - first) / 1e9 for episode in episodes])
    near_s = TOGETHER * float(np.median([episode.duration_s for episode in episodes]))
    one, other = np.array(pairs).T
    share = float((np.abs(start_s[one] - start_s[other]) < near_s).mean())
    figures: dict[str, Any] = {"n_pairs": len(pairs), "share_beginning_together": share}
    bad = ["starts"] if share > TOGETHER_SHARE else []
    what = f"{share:.0%} of {count(len(pairs), 'pair')} begin together, {TOGETHER:.0%} by chance"
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
            f"; {infected:.0%} of {count(int(both.sum()), 'pair')} are infected together, "
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
    one: NDArray[np.int64],
    other: NDArray[np.int64],
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
