"""The grid, the windows and their statistics once more: slow, exact, from docs/episodes.md alone.

Plain Python over json.loads, in fractions where the page gives a rule and in loops where the
library has arrays. It shares no code with what it checks, not even the list of channels.
"""

from __future__ import annotations

import itertools
import json
import math
import struct
from bisect import bisect_left
from fractions import Fraction
from typing import Any

SECOND = 10**9
PHASES = ("clean", "armed", "infecting", "infected_running", "dormant")
NOMINAL = {"proc": Fraction(1, 10), "qmp": Fraction(1, 2), "guest": Fraction(1)}
# C counter, W counter of 16 bits, G gauge
SAMPLED = {
    "proc": "utime_ticks C stime_ticks C minflt C threads G rss_bytes G rchar C wchar C "
    "write_bytes C run_ns C wait_ns C vol_ctxt C nonvol_ctxt C",
    "qmp": "rd_bytes C wr_bytes C rd_ops C wr_ops C flush_ops C rd_time_ns C wr_time_ns C "
    "tlb_partial_flushes C net_tx_used W balloon_free_bytes G balloon_caches_bytes G "
    "balloon_minflt C",
    "guest": "cpu_user C cpu_sys C cpu_iowait C ctxt C intr C forks C procs_running G "
    "mem_available_kb G mem_dirty_kb G pgfault C net_tx_bytes C tcp_active_opens C",
}
FLOWS = "pkts_out bytes_out pkts_in bytes_in syn rst arp new_flows active_flows active_dsts".split()

Row = dict[str, Any]
Steps = list[Fraction | None]


def rows_of(member: bytes) -> list[Row]:
    return [json.loads(line) for line in member.split(b"\n") if line]


def interval_s(meta: Row, source: str, nominal: Fraction) -> Fraction:
    rate = meta["sources"].get(source, {})
    if rate.get("hz") is not None:
        return 1 / Fraction(str(rate["hz"]))
    if rate.get("interval_s") is not None:
        return Fraction(str(rate["interval_s"]))
    return nominal


def overlap(a: Fraction, b: Fraction, c: Fraction, d: Fraction) -> Fraction:
    return max(Fraction(0), min(b, d) - max(a, c))


def samples(rows: list[Row], name: str, start: int) -> list[tuple[int, Any]]:
    """Valid samples as (ns after the start, value); of those at one time the last."""
    found: dict[int, Any] = {}
    for row in rows:
        if row.get(name) is not None:
            found[row["t_wall_ns"] - start] = row[name]
    return sorted(found.items())


def edge(j: int, hz: int) -> Fraction:
    return Fraction(j * SECOND, hz)


def counter(valid: list[tuple[int, Any]], n: int, hz: int, gap: Fraction, *, wraps: bool) -> Steps:
    out: Steps = []
    pairs = list(itertools.pairwise(valid))
    ends = [t1 for _, (t1, _) in pairs]
    for j in range(n):
        a, b = edge(j, hz), edge(j + 1, hz)
        if len(valid) < 2 or a < valid[0][0] or b > valid[-1][0]:
            out.append(None)
            continue
        total: Fraction | None = Fraction(0)
        for (t0, v0), (t1, v1) in pairs[bisect_left(ends, a) :]:
            if t0 >= b:
                break
            part = overlap(a, b, Fraction(t0), Fraction(t1))
            if part == 0 or total is None:
                continue
            increment = Fraction(v1) - Fraction(v0)
            if increment < 0 and wraps:
                increment += 65536
            usable = increment >= 0 and Fraction(t1 - t0, SECOND) <= gap
            total = total + increment * part / (t1 - t0) if usable else None
        out.append(None if total is None else total * hz)
    return out


def gauge(valid: list[tuple[int, Any]], n: int, hz: int, gap: Fraction) -> Steps:
    out: Steps = []
    times = [t for t, _ in valid]
    for j in range(n):
        end = edge(j + 1, hz)
        before = bisect_left(times, end)
        recent = before > 0 and (end - times[before - 1]) / SECOND <= gap
        out.append(Fraction(valid[before - 1][1]) if recent else None)
    return out


def amount(flow: Row, name: str) -> Any:
    if name == "new_flows":
        return flow.get("new")
    if name == "arp":
        return None if flow.get("proto") is None else int(flow["proto"] == "arp")
    if name in ("syn", "rst"):
        if flow.get("tcp_flags") is not None:
            return int(bool(flow["tcp_flags"] & (2 if name == "syn" else 4)))
        return None if flow.get("proto") in (None, "tcp") else 0
    return flow.get(name)


def flow_key(flow: Row) -> tuple[Any, ...]:
    proto = flow.get("proto")
    ends = (flow.get("src"), flow.get("sport"), flow.get("dst"), flow.get("dport"))
    return (None if proto is None else str(proto), *ends)


def netflow(
    flows: list[Row], n: int, hz: int, interval: Fraction, duration: int, start: int
) -> dict[str, Steps]:
    reach = interval * SECOND
    times = [flow["t_wall_ns"] - start for flow in flows]
    out: dict[str, Steps] = {name: [] for name in FLOWS}
    for j in range(n):
        a, b = edge(j, hz), edge(j + 1, hz)
        if b > duration:
            for name in FLOWS:
                out[name].append(None)
            continue
        here = [
            (t, flow, overlap(a, b, t - reach, Fraction(t)))
            for t, flow in zip(times, flows, strict=True)
        ]
        here = [(t, flow, part) for t, flow, part in here if part > 0]
        for name in FLOWS[:8]:
            parts = [(amount(flow, name), part) for _, flow, part in here]
            lacking = any(value is None for value, _ in parts)
            total = sum(
                (Fraction(value) * part for value, part in parts if value is not None), Fraction(0)
            )
            out[name].append(None if lacking else total / reach * hz)
        last = max((t for t, _, _ in here), default=None)
        flush = [flow for t, flow, _ in here if t == last]
        out["active_flows"].append(Fraction(len({flow_key(flow) for flow in flush})))
        out["active_dsts"].append(Fraction(len({flow.get("dst") for flow in flush})))
    return out


def float32(value: Fraction) -> float:
    largest = struct.unpack("f", b"\xff\xff\x7f\x7f")[0]
    clipped = max(-largest, min(largest, float(value)))
    return float(struct.unpack("f", struct.pack("f", clipped))[0])


def statistics(values: list[float | None], hz: int) -> list[float]:
    """mean, sample standard deviation, min, max, trend per second, share missing."""
    at = [(Fraction(j, hz), Fraction(v)) for j, v in enumerate(values) if v is not None]
    n = len(at)
    missing = 1 - n / len(values)
    if n == 0:
        return [math.nan] * 5 + [missing]
    mean = sum(v for _, v in at) / n
    spread = math.sqrt(sum((v - mean) ** 2 for _, v in at) / (n - 1)) if n > 1 else math.nan
    trend = math.nan
    if n > 2:
        middle = sum(t for t, _ in at) / n
        trend = float(
            sum((t - middle) * (v - mean) for t, v in at) / sum((t - middle) ** 2 for t, _ in at)
        )
    low, high = min(v for _, v in at), max(v for _, v in at)
    return [float(mean), spread, float(low), float(high), trend, missing]


def windows(
    meta: Row, labels: list[Row], hz: int, length: int, stride: int
) -> list[tuple[str, float]]:
    """Phase and phase_share of each window."""
    start = meta["started_wall_ns"]
    before = (meta["ended_wall_ns"] - start) * hz // SECOND
    times = [Fraction(label["t_wall_ns"] - start) for label in labels]
    times[0] = Fraction(-(10**30))
    found = []
    while Fraction(max(0, min(length, before - len(found) * stride)), length) >= Fraction(95, 100):
        a, b = edge(len(found) * stride, hz), edge(len(found) * stride + length, hz)
        held = dict.fromkeys(PHASES, Fraction(0))
        for i, label in enumerate(labels):
            end = times[i + 1] if i + 1 < len(times) else Fraction(10**30)
            held[label["phase"]] += overlap(a, b, times[i], end)
        most = max(held.values())
        found.append(([p for p in PHASES if held[p] == most][-1], float(most / (b - a))))
    return found


def episode(
    members: dict[str, bytes], *, hz: int, length: int, stride: int, max_gap_s: float | None = None
) -> tuple[dict[str, Steps], list[tuple[str, float]]]:
    """The grid of each channel, None where missing, and phase and share of each window."""
    meta = json.loads(members["meta.json"])
    start, duration = meta["started_wall_ns"], meta["ended_wall_ns"] - meta["started_wall_ns"]
    found = windows(meta, rows_of(members["labels.jsonl"]), hz, length, stride)
    n = max(duration * hz // SECOND, (len(found) - 1) * stride + length if found else 0)
    grid: dict[str, Steps] = {}
    for source, channels in SAMPLED.items():
        rows = rows_of(members[f"{source}.jsonl"])
        gap = Fraction(5, 2) * interval_s(meta, source, NOMINAL[source])
        gap = gap if max_gap_s is None else Fraction(str(max_gap_s))
        names = channels.split()
        for name, kind in zip(names[::2], names[1::2], strict=True):
            valid = samples(rows, name, start)
            grid[f"{source}.{name}"] = (
                gauge(valid, n, hz, gap)
                if kind == "G"
                else counter(valid, n, hz, gap, wraps=kind == "W")
            )
    flows = members.get("netflow.jsonl")
    interval = interval_s(meta, "netflow", Fraction(1, 2))
    of_flows = (
        {name: [None] * n for name in FLOWS}
        if flows is None
        else netflow(rows_of(flows), n, hz, interval, duration, start)
    )
    return grid | {f"netflow.{name}": steps for name, steps in of_flows.items()}, found
