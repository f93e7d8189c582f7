"""The hypervisor's view: the same four queries at each look, in every episode.

A query is seen by what it asks about: one of block statistics costs the VM some 200 system calls.
So the set never changes with what a host can answer.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Final

from cis490.lab.qmp import Qmp, Refused

_TRANSMITS: Final = 1  # virtio-net's second queue
_PARTIAL: Final = re.compile(r"TLB partial flushes\s+(\d+)")
_BALLOON: Final = "/machine/peripheral/balloon0"
QUERIES: Final[dict[str, tuple[str, dict[str, Any] | None]]] = {
    "disk": ("query-blockstats", None),
    "balloon": ("qom-get", {"path": _BALLOON, "property": "guest-stats"}),
    "jit": ("x-query-jit", None),
    "net": (
        "x-query-virtio-queue-status",
        {"path": "/machine/peripheral/net0/virtio-backend", "queue": _TRANSMITS},
    ),
}
_DISK: Final = {
    "rd_bytes": "rd_bytes",
    "wr_bytes": "wr_bytes",
    "rd_ops": "rd_operations",
    "wr_ops": "wr_operations",
    "flush_ops": "flush_operations",
    "rd_time_ns": "rd_total_time_ns",
    "wr_time_ns": "wr_total_time_ns",
}
_GUEST_SAYS: Final = {
    "balloon_free_bytes": "stat-free-memory",
    "balloon_caches_bytes": "stat-disk-caches",
    "balloon_minflt": "stat-minor-faults",
}
_UNKNOWN: Final = 2**64 - 1  # the balloon's word for a value that the guest has not told


def poll_balloon(qmp: Qmp, then: Callable[[Any], None]) -> None:
    """Let the guest's balloon driver tell its statistics each second."""
    arguments = {"path": _BALLOON, "property": "guest-stats-polling-interval", "value": 1}
    qmp.execute("qom-set", then, arguments)


class QmpObserver:
    """Asks, and hands on the twelve channels when all answers are there.

    Args:
        qmp: the monitor.
        then: gets the channels; those that QEMU does not know are left out.
    """

    def __init__(self, qmp: Qmp, then: Callable[[dict[str, int]], None]) -> None:
        self._qmp, self._then = qmp, then
        self._answers: dict[str, Any] = {}
        self.waits = False

    def look(self) -> None:
        """Ask, unless an earlier look still waits for its answers."""
        if self.waits:
            return
        self.waits = True
        self._answers.clear()
        for name, (command, arguments) in QUERIES.items():
            self._qmp.execute(command, self._taking(name), arguments)

    def _taking(self, name: str) -> Callable[[Any], None]:
        def take(answer: Any) -> None:
            self._answers[name] = answer
            if len(self._answers) == len(QUERIES):
                self.waits = False
                self._then(channels(self._answers))

        return take


def channels(answers: dict[str, Any]) -> dict[str, int]:
    """The channels from the answers to `QUERIES`, by their names."""
    found: dict[str, int] = {}
    known = {name: answer for name, answer in answers.items() if not isinstance(answer, Refused)}
    if known.get("disk"):
        of_disk = known["disk"][0]["stats"]
        found.update({ours: of_disk[theirs] for ours, theirs in _DISK.items()})
    if "balloon" in known:
        said = known["balloon"]["stats"]
        for ours, theirs in _GUEST_SAYS.items():
            if said.get(theirs, _UNKNOWN) not in (_UNKNOWN, -1):
                found[ours] = said[theirs]
    if "jit" in known and (flushes := _PARTIAL.search(known["jit"]["human-readable-text"])):
        found["tlb_partial_flushes"] = int(flushes[1])
    if "net" in known:
        found["net_tx_used"] = known["net"]["used-idx"] & 0xFFFF
    return found
