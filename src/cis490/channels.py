"""What is measured: the 46 channels of docs/episodes.md, the phases, and the two modes.

Everything downstream (columns, tensors, model inputs) takes its names and order from `CHANNELS`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

Kind = Literal["counter", "gauge", "sum", "distinct"]
Trust = Literal["host", "guest"]

PHASES: Final = ("clean", "armed", "infecting", "infected_running", "dormant")
SAMPLED: Final = ("proc", "qmp", "guest")  # report rows of numbers at a rate, traffic or none
SOURCES: Final = (*SAMPLED, "netflow")

# Nominal seconds between two rows, where meta.sources does not say (docs/episodes.md, members).
NOMINAL_INTERVAL_S: Final = {"proc": 0.1, "qmp": 0.5, "guest": 1.0, "netflow": 0.5}


@dataclass(frozen=True)
class Channel:
    """One measured quantity.

    Attributes:
        source: the observer that reports it, one of `SOURCES`.
        name: key in the source's rows; the unit is part of it.
        kind: "counter" becomes a rate per second, "gauge" is held; netflow's "sum" is spread evenly
            over its record's interval (per second), its "distinct" count is held over it.
        trust: "guest" if malware in the guest could forge the value.
        log: whether a model's input passes log1p (rates and byte gauges span many decades).
        modulus: what a counter wraps at, None if it does not wrap.
    """

    source: str
    name: str
    kind: Kind
    trust: Trust
    log: bool
    modulus: int | None = None

    @property
    def key(self) -> str:
        """Unique name, `<source>.<channel>`."""
        return f"{self.source}.{self.name}"


def _rates(source: str, trust: Trust, names: str) -> list[Channel]:
    return [Channel(source, name, "counter", trust, log=True) for name in names.split()]


def _gauge(source: str, trust: Trust, name: str, *, log: bool) -> Channel:
    return Channel(source, name, "gauge", trust, log=log)


CHANNELS: Final[tuple[Channel, ...]] = (
    *_rates("proc", "host", "utime_ticks stime_ticks minflt"),
    _gauge("proc", "host", "threads", log=False),
    _gauge("proc", "host", "rss_bytes", log=True),
    *_rates("proc", "host", "rchar wchar write_bytes run_ns wait_ns vol_ctxt nonvol_ctxt"),
    *_rates("qmp", "host", "rd_bytes wr_bytes rd_ops wr_ops flush_ops rd_time_ns wr_time_ns"),
    *_rates("qmp", "host", "tlb_partial_flushes"),
    Channel("qmp", "net_tx_used", "counter", "host", log=True, modulus=65536),
    # The balloon's figures come through QMP but are spoken by the guest's driver.
    _gauge("qmp", "guest", "balloon_free_bytes", log=True),
    _gauge("qmp", "guest", "balloon_caches_bytes", log=True),
    *_rates("qmp", "guest", "balloon_minflt"),
    *_rates("guest", "guest", "cpu_user cpu_sys cpu_iowait ctxt intr forks"),
    _gauge("guest", "guest", "procs_running", log=False),
    _gauge("guest", "guest", "mem_available_kb", log=True),
    _gauge("guest", "guest", "mem_dirty_kb", log=True),
    *_rates("guest", "guest", "pgfault net_tx_bytes tcp_active_opens"),
    *(
        Channel("netflow", name, "sum", "host", log=True)
        for name in "pkts_out bytes_out pkts_in bytes_in syn rst arp new_flows".split()
    ),
    Channel("netflow", "active_flows", "distinct", "host", log=False),
    Channel("netflow", "active_dsts", "distinct", "host", log=False),
)

MODES: Final[dict[str, frozenset[Trust]]] = {
    "realistic": frozenset({"host"}),  # what a sensor outside the guest can believe
    "oracle": frozenset({"host", "guest"}),  # an upper bound: trusts what the guest says
}


def of_source(source: str) -> list[Channel]:
    """The channels of one source, in their order in `CHANNELS`."""
    return [channel for channel in CHANNELS if channel.source == source]


def channel_index(mode: str) -> list[int]:
    """Positions in `CHANNELS` of the channels that a mode may see.

    Raises:
        KeyError: `mode` is not one of `MODES`.
    """
    trusted = MODES[mode]
    return [i for i, channel in enumerate(CHANNELS) if channel.trust in trusted]
