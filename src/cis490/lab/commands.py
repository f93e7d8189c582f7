"""What commands in `exec.jsonl` give away: words of labels, and shapes seen only while infected."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final, NamedTuple

# Random names of the guest's programs, and numbers: no two are alike, and none says a thing.
_HEX: Final = re.compile(r"\b(?=[a-f]*\d)[0-9a-f]{6,}\b")
_NUMBER: Final = re.compile(r"\d+")
_NO_WORD: Final = re.compile(r"[^a-z0-9-]+")
_OF_A_FAMILY: Final = re.compile(r"(.{4,})-[a-z0-9]{1,2}")
_LONGEST: Final = 100
# More different shapes or words are of a guest whose commands cannot be told apart this way: those
# seen once go first.
_MOST: Final = 200_000
# Labels and process events reach the host on two ways: what comes so shortly before the onset may
# belong to it.
_EARLY_NS: Final = 1_000_000_000


class Event(NamedTuple):
    """A process that was there, began, or began another program."""

    t_wall_ns: int
    cmdline: str


class Shape(NamedTuple):
    """A shape of commands that was seen in no clean time.

    Attributes:
        shape: the command's name, its options and first argument, each number a `#`.
        n_episodes: in how many it was seen.
        profiles: of these episodes.
        p: how likely that is of benign work by chance, at most.
        example: a command of this shape.
    """

    shape: str
    n_episodes: int
    profiles: list[str]
    p: float
    example: str


@dataclass
class _Seen:
    example: str
    n_clean: int = 0
    infected: Counter[str] = field(default_factory=Counter)


@dataclass
class Commands:
    """The commands of a corpus, episode after episode.

    Attributes:
        n_episodes: how many had process events.
    """

    n_episodes: int = 0
    _shapes: dict[str, _Seen] = field(default_factory=dict)
    _words: dict[str, str] = field(default_factory=dict)
    _said_in: Counter[str] = field(default_factory=Counter)

    def add(self, events: Iterable[Event], profile: str, onset_ns: int | None) -> None:
        """Take the events of an episode.

        Args:
            events: all but exits.
            profile: of the episode.
            onset_ns: Unix time of the first label that is not clean; None: there is none.
        """
        self.n_episodes += 1
        clean: set[str] = set()
        infected: set[str] = set()
        said: set[str] = set()
        for t, cmdline in events:
            shape = shape_of(cmdline)
            if shape not in self._shapes:
                self._shapes[shape] = _Seen(cmdline[:_LONGEST])
            for word in _NO_WORD.split(_folded(cmdline.lower().replace("_", "-"))):
                self._words.setdefault(word, cmdline[:_LONGEST])
                said.add(word)
            if onset_ns is None or t < onset_ns - _EARLY_NS:
                clean.add(shape)
            elif t >= onset_ns:
                infected.add(shape)
        for shape in clean:
            self._shapes[shape].n_clean += 1
        for shape in infected:
            self._shapes[shape].infected[profile] += 1
        self._said_in.update(said)
        self._prune()

    def _prune(self) -> None:
        if len(self._shapes) > _MOST:
            often = {k: v for k, v in self._shapes.items() if v.n_clean + v.infected.total() > 1}
            self._shapes = often
        if len(self._words) > _MOST:
            self._said_in = Counter({word: n for word, n in self._said_in.items() if n > 1})
            self._words = {word: self._words[word] for word in self._said_in}

    def label_words(self, labels: Iterable[str]) -> dict[str, str]:
        """Words of labels that stand in a command, by themselves: the word, and such a command.

        Args:
            labels: phases, profiles and samples. Of a sample such as `miner-a` the word `miner`
                says as much. Case does not matter, and `_` is `-`.
        """
        wanted = set()
        for label in labels:
            word = _folded(label.lower().replace("_", "-"))
            wanted |= {word}
            if family := _OF_A_FAMILY.fullmatch(word):
                wanted.add(family[1])
        return {
            label: example
            for label in sorted(wanted)
            for word, example in self._words.items()
            if f"-{label}-" in f"-{word}-"
        }

    def exclusive(
        self, infected_share: Mapping[str, float], *, least: int, p: float
    ) -> list[Shape]:
        """Shapes seen while infected and never in clean time, more often than by chance.

        Benign work is drawn independently of what infects and when. A shape of benign work, seen in
        n episodes, would be seen in all of them in infected time of a given set of profiles with
        probability q^n, q being that time's share of all; there are C(profiles, size of the set)
        such sets, and as many tests as shapes (Bonferroni).

        Args:
            infected_share: profile -> its infected time, of all recorded time of the corpus.
            least: episodes that a shape must have been seen in.
            p: what is less likely by chance is told.

        Returns:
            The least likely first.
        """
        looked_at = {
            shape: seen
            for shape, seen in self._shapes.items()
            if seen.n_clean + seen.infected.total() >= least
        }
        found = []
        for shape, seen in looked_at.items():
            if seen.n_clean:
                continue
            n, profiles = seen.infected.total(), sorted(seen.infected)
            share = sum(infected_share.get(profile, 0.0) for profile in profiles)
            sets = math.comb(len(infected_share), len(profiles))
            chance = min(1.0, sets * share**n * len(looked_at))
            if chance < p:
                found.append(Shape(shape, n, profiles, chance, seen.example))
        return sorted(found, key=lambda shape: (shape.p, shape.shape))


def shape_of(cmdline: str) -> str:
    """A command's name, its options and first argument; numbers and random names folded to `#`."""
    words = cmdline.split()
    if not words:
        return ""
    name = words[0].rsplit("/", 1)[-1] or words[0]
    options = [word for word in words[1:] if word.startswith("-")]
    arguments = [word for word in words[1:] if not word.startswith("-")]
    return _folded(" ".join([name, *options, *arguments[:1]]))[:_LONGEST]


def _folded(text: str) -> str:
    return _NUMBER.sub("#", _HEX.sub("#", text))
