"""Flow records of all that passes the guest's tap device.

The kernel writes each frame's beginning, its length and direction into memory shared with us, so a
frame costs no system call and wakes nobody; it is folded into its flow at the next flush.
"""

from __future__ import annotations

import mmap
import socket
import struct
from dataclasses import dataclass
from typing import Final

_SOL_PACKET: Final = 263
_PACKET_RX_RING, _PACKET_STATISTICS, _PACKET_VERSION = 5, 6, 10
_TPACKET_V2: Final = 1
_ETH_P_ALL: Final = 3
_FRAME: Final = (
    256  # bytes: the kernel's header and at least 160 of a frame, more than is looked at
)
_BLOCK: Final = 1 << 16
_BLOCKS: Final = 32  # 8192 frames: 16,000 a second at a flush each 0.5 s
# status, length, snapped length, offset, [network], seconds, nanoseconds
_HEADER: Final = struct.Struct("=IIIHHII")
_DIRECTION: Final = 32 + 10  # sll_pkttype, in the address behind the header
_TO_GUEST: Final = 4  # PACKET_OUTGOING: the host sends it into the tap

_FIN, _SYN, _RST, _ACK = 1, 2, 4, 16
_IDLE_NS: Final = 60 * 1_000_000_000
_ARP, _IPV4, _IPV6 = 0x0806, 0x0800, 0x86DD
_NAMES: Final = {1: "icmp", 6: "tcp", 17: "udp"}

Key = tuple[str, str, int, str, int]


class Ring:
    """The frames that passed an interface of this network namespace.

    Args:
        interface: its name.
    """

    def __init__(self, interface: str) -> None:
        self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_CLOEXEC, 0)
        self._socket.setsockopt(_SOL_PACKET, _PACKET_VERSION, _TPACKET_V2)
        self._n = _BLOCK * _BLOCKS // _FRAME
        size = struct.pack("IIII", _BLOCK, _BLOCKS, _FRAME, self._n)
        self._socket.setsockopt(_SOL_PACKET, _PACKET_RX_RING, size)
        self._memory = mmap.mmap(self._socket.fileno(), _BLOCK * _BLOCKS)
        self._next = 0
        self.lost = 0
        self._socket.bind((interface, _ETH_P_ALL))

    def drain(self, flows: Flows) -> None:
        """Fold all frames that are there into flows."""
        memory = self._memory
        while True:
            place = self._next * _FRAME
            status, length, snapped, offset, _, seconds, ns = _HEADER.unpack_from(memory, place)
            if not status & 1:  # still the kernel's
                break
            start = place + offset
            frame = memory[start : start + snapped]
            to_guest = memory[place + _DIRECTION] == _TO_GUEST
            flows.add(frame, length, seconds * 1_000_000_000 + ns, to_guest=to_guest)
            memory[place : place + 4] = b"\0\0\0\0"
            self._next = (self._next + 1) % self._n
        told = self._socket.getsockopt(_SOL_PACKET, _PACKET_STATISTICS, 8)
        self.lost += int(struct.unpack("II", told)[1])

    def close(self) -> None:
        """Give the memory back."""
        self._memory.close()
        self._socket.close()


@dataclass
class _Flow:
    first_ns: int
    last_ns: int
    pkts_out: int = 0
    bytes_out: int = 0
    pkts_in: int = 0
    bytes_in: int = 0
    flags: int = 0
    new: bool = True
    closed: bool = False


class Flows:
    """Folds frames into flows: both directions of a conversation, named as its first frame went.

    An ARP message is a flow from who sends it to the address it asks for or answers to. Silent for
    60 s, or opened again after its end, a flow is a new one.
    """

    def __init__(self) -> None:
        self._flows: dict[Key, _Flow] = {}
        self._moved: dict[Key, _Flow] = {}

    def add(self, frame: bytes, length: int, t_ns: int, *, to_guest: bool) -> None:
        """Take a frame.

        Args:
            frame: its beginning, from the Ethernet header on.
            length: of the whole frame, in bytes.
            t_ns: when it passed, Unix time.
            to_guest: its direction.
        """
        try:
            known = _conversation(frame)
        except (struct.error, IndexError, OSError):  # cut short
            return
        if known is None:
            return
        key, flags = known
        flow = self._flows.get(key)
        opens = flags & (_SYN | _ACK) == _SYN
        if flow is None and key[0] != "arp":
            proto, src, sport, dst, dport = key
            back = (proto, dst, dport, src, sport)
            if back in self._flows:
                flow = self._flows[back]
                if not (opens and flow.closed):
                    key = back
        if flow is None or (opens and flow.closed) or t_ns - flow.last_ns > _IDLE_NS:
            flow = self._flows[key] = _Flow(t_ns, t_ns)
        flow.last_ns = t_ns
        flow.flags |= flags
        flow.closed |= bool(flags & (_FIN | _RST))
        if to_guest:
            flow.pkts_in += 1
            flow.bytes_in += length
        else:
            flow.pkts_out += 1
            flow.bytes_out += length
        self._moved[key] = flow

    def flush(self, now_ns: int) -> list[dict[str, int | str]]:
        """A record for each flow that moved since the last flush, in the order in which they did.

        Args:
            now_ns: Unix time.
        """
        records: list[dict[str, int | str]] = []
        for (proto, src, sport, dst, dport), flow in self._moved.items():
            records.append(
                {
                    **{"proto": proto, "src": src, "sport": sport, "dst": dst, "dport": dport},
                    "pkts_out": flow.pkts_out,
                    "bytes_out": flow.bytes_out,
                    "pkts_in": flow.pkts_in,
                    "bytes_in": flow.bytes_in,
                    "tcp_flags": flow.flags,
                    "new": int(flow.new),
                    "age_ns": max(now_ns - flow.first_ns, 0),
                }
            )
            flow.pkts_out = flow.bytes_out = flow.pkts_in = flow.bytes_in = flow.flags = 0
            flow.new = False
        self._moved.clear()
        if len(self._flows) > 4096:
            self._flows = {k: f for k, f in self._flows.items() if now_ns - f.last_ns <= _IDLE_NS}
        return records


def _conversation(frame: bytes) -> tuple[Key, int] | None:
    """Who speaks to whom in a frame, and its TCP flags; None for what is neither ARP nor IP."""
    kind = frame[12] << 8 | frame[13]
    if kind == _IPV4:
        size = (frame[14] & 15) * 4
        src, dst = socket.inet_ntoa(frame[26:30]), socket.inet_ntoa(frame[30:34])
        later_piece = (frame[20] & 0x1F) << 8 | frame[21]
        return _of_ip(frame, frame[23], src, dst, 14 + size, whole=not later_piece)
    if kind == _ARP:
        src, dst = socket.inet_ntoa(frame[28:32]), socket.inet_ntoa(frame[38:42])
        return ("arp", src, 0, dst, 0), 0
    if kind == _IPV6:
        src = socket.inet_ntop(socket.AF_INET6, frame[22:38])
        dst = socket.inet_ntop(socket.AF_INET6, frame[38:54])
        return _of_ip(frame, frame[20], src, dst, 54, whole=True)
    return None


def _of_ip(
    frame: bytes, number: int, src: str, dst: str, start: int, *, whole: bool
) -> tuple[Key, int]:
    proto = _NAMES.get(number, str(number))
    if number not in (6, 17) or not whole:
        return (proto, src, 0, dst, 0), 0
    sport, dport = struct.unpack_from(">HH", frame, start)
    return (proto, src, sport, dst, dport), frame[start + 13] if number == 6 else 0
