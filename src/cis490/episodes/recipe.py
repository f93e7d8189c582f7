"""What a simulated store is like; apart from `simulate`, so that asking for help costs nothing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from cis490.errors import ConfigError


@dataclass(frozen=True)
class Recipe:
    """What a simulated store is like; `HELP` says what each field means.

    Raises:
        ConfigError: a share is not between 0 and 1, or there is no host.
    """

    seed: int = 0
    hosts: int = 6
    degraded: float = 0.02
    rejected: float = 0.01
    errored: float = 0.01
    torn: float = 0.001

    HELP: ClassVar[dict[str, str]] = {
        "seed": "of everything random: the same recipe gives the same bytes",
        "hosts": "how many; each is like one of the source's hosts in turn",
        "degraded": "share of episodes that lose netflow",
        "rejected": "share of episodes that say something wrong",
        "errored": "share of episodes that cannot be decoded",
        "torn": "share of index records that run into the next one or are cut short",
    }

    def __post_init__(self) -> None:
        if self.hosts < 1 or self.seed < 0:
            raise ConfigError("simulate: hosts must be at least 1 and seed at least 0")
        for name in ("degraded", "rejected", "errored", "torn"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"simulate: {name} must be a share between 0 and 1")
        if self.degraded + self.rejected + self.errored > 1:
            raise ConfigError("simulate: degraded, rejected and errored are more than all episodes")
