"""The hypervisor's channels from QEMU's answers."""

from __future__ import annotations

from cis490.channels import of_source
from cis490.lab.observers.qmp import QUERIES, QmpObserver, channels
from cis490.lab.qmp import Refused

STATS = {
    **{"rd_bytes": 1, "wr_bytes": 2, "rd_operations": 3, "wr_operations": 4},
    **{"flush_operations": 5, "rd_total_time_ns": 6, "wr_total_time_ns": 7, "unmap_bytes": 8},
}
SAID = {"stat-free-memory": 10, "stat-disk-caches": 11, "stat-minor-faults": 12, "stat-swap-in": 0}
ANSWERS = {
    "disk": [{"device": "disk0", "stats": STATS}],
    "balloon": {"stats": SAID, "last-update": 9},
    "jit": {"human-readable-text": "TLB full flushes    1\nTLB partial flushes 345\nelided 2\n"},
    "net": {"used-idx": 65535, "name": "virtio-net"},
}
NAMES = [channel.name for channel in of_source("qmp")]


class FakeQmp:
    def __init__(self):
        self.asked = []

    def execute(self, command, then, arguments=None):
        self.asked.append((command, then, arguments))


def test_all_channels_are_found():
    found = channels(ANSWERS)
    assert sorted(found) == sorted(NAMES)
    assert found["rd_ops"] == 3
    assert found["wr_time_ns"] == 7
    assert found["balloon_minflt"] == 12
    assert found["tlb_partial_flushes"] == 345
    assert found["net_tx_used"] == 65535


def test_what_qemu_does_not_know_is_left_out_and_not_zero():
    found = channels({**ANSWERS, "jit": Refused("only with TCG"), "net": Refused("no device")})
    assert set(NAMES) - set(found) == {"tlb_partial_flushes", "net_tx_used"}


def test_what_the_guest_has_not_told_is_left_out():
    for unknown in (2**64 - 1, -1):
        said = {"stats": {**SAID, "stat-free-memory": unknown}}
        assert "balloon_free_bytes" not in channels({**ANSWERS, "balloon": said})
    assert "balloon_minflt" not in channels({**ANSWERS, "balloon": {"stats": {}}})


def test_the_transmit_counter_has_sixteen_bits():
    assert channels({"net": {"used-idx": 65536 + 5}}) == {"net_tx_used": 5}


def test_each_look_asks_the_same_and_gives_one_row_when_all_is_answered():
    qmp, rows = FakeQmp(), []
    observer = QmpObserver(qmp, rows.append)
    for _ in range(2):
        observer.look()
        commands = [command for command, _, _ in qmp.asked]
        assert commands == [command for command, _ in QUERIES.values()]
        for name, (_, then, _) in zip(QUERIES, list(qmp.asked), strict=True):
            then(ANSWERS[name])
        qmp.asked.clear()
    assert rows == [channels(ANSWERS)] * 2


def test_a_look_that_is_not_answered_yet_is_not_asked_again():
    qmp, rows = FakeQmp(), []
    observer = QmpObserver(qmp, rows.append)
    observer.look()
    observer.look()
    assert len(qmp.asked) == len(QUERIES)
    assert rows == []
