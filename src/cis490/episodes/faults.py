"""Everything that can be wrong with an episode: its code, what it makes of the episode, and why."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, Literal

Status = Literal["accepted", "degraded", "rejected", "errored"]
USABLE: Final = ("accepted", "degraded")  # of these statuses are the episodes that take part

ERRORED: Final[dict[str, str]] = {
    "bad_index_record": "the index record cannot be followed: an id or path is missing or unsafe",
    "file_missing": "the file that the index names is not there, or is not a regular file",
    "not_zstd": "the file is not one zstd frame",
    "not_tar": "the unzipped content is not a POSIX tar",
    "cut_short": "the file ends before its content does",
    "over_limit": "the episode is larger than the settings under limits allow",
}

REJECTED: Final[dict[str, str]] = {
    "sha256_mismatch": "the file is not the one that the index describes",
    "size_mismatch": "the file has another size than the index says",
    "no_meta": "meta.json is missing",
    "no_labels": "labels.jsonl is missing",
    "no_proc": "proc.jsonl is missing",
    "no_qmp": "qmp.jsonl is missing",
    "no_guest": "guest.jsonl is missing",
    "duplicate_member": "a member is in the tarball twice",
    "not_regular": "a member is a link, a folder or a device",
    "not_utf8": "a text is not UTF-8",
    "not_json": "a line is not JSON",
    "missing_field": "a required field is absent",
    "wrong_type": "a value has the wrong type",
    "bad_value": "a number is outside int64 or beyond 1e300, or a time or rate is impossible",
    "schema_version": "schema_version is not 1",
    "index_disagrees": "meta.json names another episode or host than the index",
    "unknown_phase": "a label names a phase that docs/episodes.md does not list",
    "labels_empty": "there is no label",
    "labels_out_of_order": "labels are not in the order of time",
    "labels_go_back": "the phases go back",
    "first_label_far": "the first label is more than 1 s from the start",
    "control_not_clean": "an episode of profile none is not clean throughout",
    "rows_out_of_order": "the rows of a source are not in the order of time",
    "too_few_rows": "a source has under half of the rows that its rate promises",
}

DEGRADED: Final[dict[str, str]] = {
    "no_netflow": "netflow.jsonl is absent",
}

MEANING: Final = ERRORED | REJECTED | DEGRADED


@dataclass(frozen=True)
class Fault:
    """One thing that is wrong with an episode.

    Attributes:
        code: a key of `MEANING`.
        text: for a person: where (member, line) and what.
    """

    code: str
    text: str


class Undecodable(Exception):
    """The episode's file could not be decoded; carries the `Fault` that says why."""

    def __init__(self, code: str, text: str) -> None:
        super().__init__(text)
        self.fault = Fault(code, text)


def status_of(faults: Iterable[Fault]) -> Status:
    """The verdict that all faults together give: errored wins over rejected over degraded."""
    codes = {fault.code for fault in faults}
    if codes & ERRORED.keys():
        return "errored"
    if codes & REJECTED.keys():
        return "rejected"
    return "degraded" if codes else "accepted"
