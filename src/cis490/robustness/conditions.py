"""What is done to the telemetry of the part shown, each condition by name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

from cis490.channels import SOURCES

Kind = Literal["unperturbed", "without", "loss", "skew", "half_rate", "lying_guest"]

UNPERTURBED: Final = "unperturbed"
LYING_GUEST: Final = "lying_guest"


@dataclass(frozen=True)
class Condition:
    """One thing that is done to the telemetry (`perturb.perturb`).

    Attributes:
        name: key in robustness.parquet, and stem of the files of its windows.
        kind: what is done.
        level: of "loss" the share of rows, of "skew" the most seconds; else None.
        source: which one is dropped, of "without"; else None.
    """

    name: str
    kind: Kind
    level: float | None = None
    source: str | None = None


def conditions(settings: Mapping[str, Any]) -> list[Condition]:
    """All conditions, the unperturbed one first.

    Args:
        settings: `robustness` of the config: `loss`, shares, and `skew_s`, seconds.
    """
    return [
        Condition(UNPERTURBED, "unperturbed"),
        *(Condition(f"without_{source}", "without", source=source) for source in SOURCES),
        *(Condition(f"loss_{x:g}", "loss", float(x)) for x in sorted(settings["loss"])),
        *(Condition(f"skew_{x:g}", "skew", float(x)) for x in sorted(settings["skew_s"])),
        Condition("half_rate", "half_rate"),
        Condition(LYING_GUEST, "lying_guest"),
    ]
