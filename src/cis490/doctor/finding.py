"""What one check of the doctor found."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Finding:
    """One line of the doctor.

    Attributes:
        state: "ok"; "warning", where a run works but something is not as it might be; "fault",
            where a run fails or is wrong.
        check: what was looked at, in a word.
        what: what was found.
        mend: what to do about it; empty where nothing is to be done.
    """

    state: Literal["ok", "warning", "fault"]
    check: str
    what: str
    mend: str = ""


Findings = Iterator[Finding]
