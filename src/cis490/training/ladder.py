"""What is done about a training that collapsed, and what is told of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from enum import StrEnum
from typing import Any

from cis490.training.collapse import Collapse


class Action(StrEnum):
    """What to do after a collapse."""

    RESTORE = "restore"
    HALVE = "halve"
    RESEED = "reseed"
    FAIL = "fail"


# One restore, for a collapse may be bad luck; three halvings, for a rate that was found is wrong by
# less than 8; what is wrong with the data comes back at each rung, so that each costs little.
RUNGS = (Action.RESTORE, Action.HALVE, Action.HALVE, Action.HALVE)
RESEED_OFFSET = 1_000_000  # a second seed that nobody lists in the config beside the first


class Ladder:
    """What is done about the collapses of one seed, in turn.

    Back to the best weights (the first ones if no epoch was good yet); back and half the rate,
    three times; another seed at the full rate, with the same rungs; then the seed has failed.

    Args:
        seed: as in the config.
    """

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self.events: list[dict[str, Any]] = []

    @property
    def seed(self) -> int:
        """The seed to train with."""
        return self._seed + RESEED_OFFSET * (Action.RESEED in self._taken())

    @property
    def rate_factor(self) -> float:
        """What the learning rate is multiplied with."""
        return 0.5 ** self._since_reseed().count(Action.HALVE)

    @property
    def outcome(self) -> str:
        """healthy, recovered, reseeded or failed."""
        taken = self._taken()
        if not taken:
            return "healthy"
        if Action.FAIL in taken:
            return "failed"
        return "reseeded" if Action.RESEED in taken else "recovered"

    def act(self, collapse: Collapse) -> Action:
        """Take note of a collapse and say what to do; `seed` and `rate_factor` follow."""
        rung = len(self._since_reseed())
        if rung < len(RUNGS):
            action = RUNGS[rung]
        else:
            action = Action.FAIL if Action.RESEED in self._taken() else Action.RESEED
        plain = {"kind": collapse.kind.value, "seed": self.seed, "action": action.value}
        self.events.append(asdict(collapse) | plain)
        return action

    def state(self) -> dict[str, Any]:
        """JSON-able; see `restore`."""
        return {"events": self.events}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take what `state` gave of a ladder of the same seed."""
        self.events = [dict(event) for event in state["events"]]

    def _taken(self) -> list[Action]:
        return [Action(event["action"]) for event in self.events]

    def _since_reseed(self) -> list[Action]:
        taken = self._taken()
        return taken[taken.index(Action.RESEED) + 1 :] if Action.RESEED in taken else taken


def report(seeds: Mapping[int, tuple[Ladder, str | None]]) -> dict[str, Any]:
    """Content of collapse_report.json, by seed.

    Args:
        seeds: the ladder of each seed, and why it failed; None if it did not.
    """
    return {
        str(seed): {
            "outcome": ladder.outcome if reason is None else "failed",
            "reason": reason,
            "trained_with": {"seed": ladder.seed, "rate_factor": ladder.rate_factor},
            "events": ladder.events,
        }
        for seed, (ladder, reason) in seeds.items()
    }
