"""Flow records from frames as they pass a tap device."""

from __future__ import annotations

import socket
import struct

from cis490.lab.observers.netflow import Flows

SECOND = 1_000_000_000
GUEST, PEER = "10.77.0.50", "10.77.0.100"
FIN, SYN, RST, PSH, ACK = 1, 2, 4, 8, 16


def ethernet(kind, payload):
    return b"\x52" * 12 + struct.pack(">H", kind) + payload


def ipv4(proto, src, dst, payload, *, options=b"", fragment=0):
    size = 20 + len(options)
    head = struct.pack(
        ">BBHHHBBH4s4s",
        *(0x40 | size // 4, 0, size + len(payload), 0, fragment, 64, proto, 0),
        *(socket.inet_aton(src), socket.inet_aton(dst)),
    )
    return ethernet(0x0800, head + options + payload)


def tcp(src, sport, dst, dport, flags, **more):
    return ipv4(
        6, src, dst, struct.pack(">HHIIBBHHH", sport, dport, 1, 1, 0x50, flags, 9, 0, 0), **more
    )


def udp(src, sport, dst, dport):
    return ipv4(17, src, dst, struct.pack(">HHHH", sport, dport, 8, 0))


def arp(sender, target, operation=1):
    payload = struct.pack(
        ">HHBBH6s4s6s4s",
        *(1, 0x0800, 6, 4, operation),
        *(b"\x52" * 6, socket.inet_aton(sender), bytes(6), socket.inet_aton(target)),
    )
    return ethernet(0x0806, payload)


class Wire:
    """Frames at times, out of the guest unless said otherwise."""

    def __init__(self):
        self.flows, self.t = Flows(), 1_000 * SECOND

    def out(self, frame, length=None):
        self.flows.add(frame, length or len(frame), self.t, to_guest=False)

    def into(self, frame, length=None):
        self.flows.add(frame, length or len(frame), self.t, to_guest=True)

    def flush(self):
        return self.flows.flush(self.t)


def test_both_directions_of_a_conversation_are_one_flow_as_its_first_frame_went():
    wire = Wire()
    wire.out(tcp(GUEST, 40000, PEER, 9001, SYN), 74)
    wire.into(tcp(PEER, 9001, GUEST, 40000, SYN | ACK), 74)
    wire.out(tcp(GUEST, 40000, PEER, 9001, PSH | ACK), 1514)
    wire.t += SECOND // 4
    assert wire.flush() == [
        {
            **{"proto": "tcp", "src": GUEST, "sport": 40000, "dst": PEER, "dport": 9001},
            **{"pkts_out": 2, "bytes_out": 1588, "pkts_in": 1, "bytes_in": 74},
            **{"tcp_flags": SYN | PSH | ACK, "new": 1, "age_ns": SECOND // 4},
        }
    ]


def test_only_flows_that_moved_are_told_and_only_what_moved_since():
    wire = Wire()
    wire.out(udp(GUEST, 5000, PEER, 53))
    wire.out(tcp(GUEST, 40000, PEER, 9001, SYN))
    wire.flush()
    wire.t += SECOND
    assert wire.flush() == []
    wire.into(tcp(PEER, 9001, GUEST, 40000, RST | ACK), 60)
    (record,) = wire.flush()
    assert (record["proto"], record["new"], record["age_ns"]) == ("tcp", 0, SECOND)
    assert (record["pkts_out"], record["pkts_in"], record["bytes_in"]) == (0, 1, 60)
    assert record["tcp_flags"] == RST | ACK


def test_what_a_peer_begins_is_named_as_it_began_and_out_is_still_from_the_guest():
    wire = Wire()
    wire.into(udp(PEER, 53, GUEST, 5000), 100)
    wire.out(udp(GUEST, 5000, PEER, 53), 200)
    (record,) = wire.flush()
    assert (record["src"], record["dst"]) == (PEER, GUEST)
    assert (record["bytes_out"], record["bytes_in"]) == (200, 100)


def test_arp_goes_from_who_asks_to_the_address_asked_for():
    wire = Wire()
    wire.out(arp(GUEST, "10.77.0.110"), 42)
    wire.out(arp(GUEST, PEER), 42)
    wire.into(arp(PEER, GUEST, operation=2), 42)
    told = [(r["proto"], r["src"], r["dst"], r["pkts_out"], r["pkts_in"]) for r in wire.flush()]
    assert told == [
        ("arp", GUEST, "10.77.0.110", 1, 0),
        ("arp", GUEST, PEER, 1, 0),
        ("arp", PEER, GUEST, 0, 1),
    ]


def test_a_port_used_again_after_the_end_is_a_new_flow():
    wire = Wire()
    wire.out(tcp(GUEST, 40000, PEER, 9001, SYN))
    wire.out(tcp(GUEST, 40000, PEER, 9001, FIN | ACK))
    assert [r["new"] for r in wire.flush()] == [1]
    wire.into(tcp(PEER, 9001, GUEST, 40000, ACK))
    assert [r["new"] for r in wire.flush()] == [0], "the last acknowledgement is of the old one"
    wire.out(tcp(GUEST, 40000, PEER, 9001, SYN))
    assert [r["new"] for r in wire.flush()] == [1]


def test_an_opening_that_is_repeated_is_one_flow():
    wire = Wire()
    for _ in range(3):
        wire.out(tcp(GUEST, 40000, "10.77.0.101", 81, SYN))
        wire.t += SECOND
    (record,) = wire.flush()
    assert (record["pkts_out"], record["new"]) == (3, 1)


def test_a_peer_that_opens_from_the_other_end_after_the_end_is_a_new_flow():
    wire = Wire()
    wire.out(tcp(GUEST, 40000, PEER, 9001, SYN))
    wire.into(tcp(PEER, 9001, GUEST, 40000, RST | ACK))
    wire.flush()
    wire.into(tcp(PEER, 9001, GUEST, 40000, SYN))
    (record,) = wire.flush()
    assert (record["src"], record["new"]) == (PEER, 1)


def test_a_flow_that_was_silent_for_a_minute_is_new_again():
    wire = Wire()
    wire.out(arp(GUEST, PEER))
    wire.flush()
    wire.t += 59 * SECOND
    wire.out(arp(GUEST, PEER))
    assert wire.flush()[0]["new"] == 0
    wire.t += 61 * SECOND
    wire.out(arp(GUEST, PEER))
    (record,) = wire.flush()
    assert (record["new"], record["age_ns"]) == (1, 0)


def test_silent_flows_are_forgotten():
    wire = Wire()
    for port in range(5000):
        wire.out(tcp(GUEST, 40000, PEER, port + 1, SYN))
    assert len(wire.flush()) == 5000
    wire.t += 100 * SECOND
    wire.out(arp(GUEST, PEER))
    wire.flush()
    assert len(wire.flows._flows) == 1


def test_ip_options_pieces_and_other_protocols():
    wire = Wire()
    wire.out(tcp(GUEST, 40000, PEER, 9001, SYN, options=b"\1" * 8))
    wire.out(ipv4(17, GUEST, PEER, b"rest of a datagram", fragment=185))
    wire.out(ipv4(1, GUEST, PEER, b"\x08\0\0\0"))
    wire.into(ipv4(1, PEER, GUEST, b"\0\0\0\0"))
    wire.out(ipv4(132, GUEST, PEER, b"sctp"))
    told = [(r["proto"], r["sport"], r["dport"], r["pkts_in"]) for r in wire.flush()]
    assert told == [("tcp", 40000, 9001, 0), ("udp", 0, 0, 0), ("icmp", 0, 0, 1), ("132", 0, 0, 0)]


def test_ipv6_is_told_with_its_addresses():
    wire = Wire()
    addresses = (socket.inet_pton(socket.AF_INET6, text) for text in ("fe80::1", "ff02::2"))
    head = struct.pack(">IHBB16s16s", 6 << 28, 8, 58, 255, *addresses)
    wire.out(ethernet(0x86DD, head + bytes(8)))
    (record,) = wire.flush()
    assert (record["proto"], record["src"], record["dst"]) == ("58", "fe80::1", "ff02::2")


def test_frames_that_are_cut_short_or_neither_arp_nor_ip_are_no_flow():
    wire = Wire()
    whole = tcp(GUEST, 40000, PEER, 9001, SYN)
    for size in range(len(whole) - 6):
        wire.out(whole[:size])
    wire.out(ethernet(0x88CC, bytes(60)))
    assert [r for r in wire.flush() if r["proto"] != "tcp"] == []
