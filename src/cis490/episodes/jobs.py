"""When benign work starts and stops, where an episode's meta.json tells it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

_KEYS: Final = {"start_s": "start", "stop_s": "exit"}


class Change(NamedTuple):
    """A benign job that starts or stops.

    Attributes:
        at_s: seconds after the episode's start.
        event: "start" or "exit", as in `exec.jsonl`.
    """

    at_s: float
    event: str


def job_changes(meta: Mapping[str, Any], duration_s: float) -> list[Change] | None:
    """What `jobs` says of starts and stops within a record, in the order of time.

    Args:
        meta: meta.json; `jobs` is a list of {name, start_s, stop_s}, null for what did not happen.
        duration_s: of the record, in seconds.

    Returns:
        None where there is no such list: it may hold anything (docs/episodes.md).
    """
    jobs = meta.get("jobs")
    if not isinstance(jobs, list) or not all(isinstance(job, dict) for job in jobs):
        return None
    found = [(job.get(key), event) for job in jobs for key, event in _KEYS.items()]
    return sorted(Change(at, event) for at, event in found if _is_time(at) and 0 < at < duration_s)


def _is_time(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
