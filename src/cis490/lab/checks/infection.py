"""Whether change is infection, or a command is."""

from __future__ import annotations

from collections import Counter
from typing import Final

import numpy as np

from cis490.channels import PHASES
from cis490.evaluation.bootstrap import clopper_pearson
from cis490.lab.checks.finding import Finding, names, unknown
from cis490.lab.corpus import Corpus
from cis490.lab.schedule import CONTROL

# In most episodes, controls too, a benign job starts or stops (docs/lab.md); a plan has it in 90%.
CHANGING_SHARE: Final = 0.5

# A command's shape is held against infected time from so many episodes on: fewer are one sample's
# on one host. What would come by chance in one of a hundred corpora is a fault.
SHAPE_EPISODES: Final = 5
SHAPE_P: Final = 0.01


def benign_onsets(corpus: Corpus) -> Finding:
    """In how many episodes a benign job starts or stops, of infected ones and of controls."""
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
            return unknown("benign onsets", why, limit)
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


def label_words(corpus: Corpus) -> Finding:
    """Words of phases, profiles and samples in commands."""
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
        f"{names(list(found))} in the commands of exec.jsonl" if found else "none",
        limit,
        {"words": found},
        ("word", "a command with it"),
        tuple(found.items()),
        "ll",
    )


def command_shapes(corpus: Corpus) -> Finding:
    """Commands that are seen only while a guest is infected, more often than by chance."""
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
    what = f"{names([shape.shape for shape in found])} only while infected" if found else "none"
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
