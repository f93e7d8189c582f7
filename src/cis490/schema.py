"""What a column means: channels, grid, windows and statistics under one sha256.

Features, tensors and models carry the hash; a model refuses data made under another one.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cis490.channels import CHANNELS, MODES, PHASES, channel_index
from cis490.errors import SchemaMismatch
from cis490.files import to_compact_json

# Raised by hand when the meaning of a column changes without any of the settings below changing.
VERSION = 2

# The summary of one channel over one window, in column order (computed in windows/features.py).
STATISTICS = ("mean", "std", "min", "max", "trend", "missing")


@dataclass(frozen=True)
class Schema:
    """The settings that decide what features and tensors mean.

    Attributes:
        hz: grid steps per second.
        max_gap_s: longest gap in seconds bridged between samples; None is 2.5 nominal intervals.
        length_s: window length in seconds.
        stride_s: seconds from one window's start to the next.
    """

    hz: int
    max_gap_s: float | None
    length_s: float
    stride_s: float

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Schema:
        """Build from a resolved config (`cis490.config.resolve`)."""
        gap = config["grid"]["max_gap_s"]
        return cls(
            hz=int(config["grid"]["hz"]),
            max_gap_s=None if gap is None else float(gap),
            length_s=float(config["window"]["length_s"]),
            stride_s=float(config["window"]["stride_s"]),
        )

    @property
    def length(self) -> int:
        """Grid steps in a window."""
        return round(self.length_s * self.hz)

    @property
    def stride(self) -> int:
        """Grid steps from one window's start to the next."""
        return round(self.stride_s * self.hz)

    def meaning(self) -> dict[str, Any]:
        """All that decides what a column means; the hash covers exactly this."""
        return {
            "version": VERSION,
            "channels": [vars(channel) | {"key": channel.key} for channel in CHANNELS],
            "modes": {mode: [CHANNELS[i].key for i in channel_index(mode)] for mode in MODES},
            "phases": PHASES,
            "grid": {"hz": self.hz, "max_gap_s": self.max_gap_s},
            "window": {"length_s": self.length_s, "stride_s": self.stride_s},
            "statistics": STATISTICS,
        }

    @property
    def sha256(self) -> str:
        """Hash of `meaning()` as canonical JSON."""
        return hashlib.sha256(to_compact_json(self.meaning()).encode()).hexdigest()

    def to_dict(self) -> dict[str, Any]:
        """The content of results/schema.json."""
        return self.meaning() | {"sha256": self.sha256}

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Schema:
        """Rebuild from the content of results/schema.json.

        Raises:
            SchemaMismatch: this version of cis490 gives those settings another meaning.
        """
        schema = cls(**content["grid"], **content["window"])
        schema.require(content["sha256"], "schema.json")
        return schema

    def require(self, sha256: str, what: str) -> None:
        """Check that `what` was made under this schema.

        Raises:
            SchemaMismatch: with both hashes and what to do.
        """
        if sha256 != self.sha256:
            raise SchemaMismatch(
                f"{what} was made under schema {sha256}, but the schema here is {self.sha256}: "
                "run the workflow again with this config, or use the config it was made with"
            )


def feature_names(mode: str) -> list[str]:
    """Columns `<source>.<channel>.<statistic>` that a mode may see, in file order."""
    return [f"{CHANNELS[i].key}.{stat}" for i in channel_index(mode) for stat in STATISTICS]


def feature_log(mode: str) -> list[bool]:
    """For each of `feature_names(mode)`: whether a network's input passes the signed log1p."""
    return [
        CHANNELS[i].log and stat != "missing" for i in channel_index(mode) for stat in STATISTICS
    ]
