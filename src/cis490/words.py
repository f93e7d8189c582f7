"""Times, counts and sizes as people read them."""

from __future__ import annotations

_MIB = 2**20


def duration(seconds: float) -> str:
    """As "0.4 s", "48 s", "3 min 20 s" or "2 h 05 min"."""
    if seconds < 9.95:
        return f"{max(seconds, 0):.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60:02d} min"


def about(seconds: float) -> str:
    """As `duration`, no finer than an estimate is: "under a minute", "4 min", "2 h 10 min"."""
    minutes = round(seconds / 60)
    if seconds < 50:
        return "under a minute"
    if minutes < 60:
        return f"{max(minutes, 1)} min"
    tens = round(minutes / 10) * 10 if minutes >= 120 else minutes
    return f"{tens // 60} h {tens % 60:02d} min"


def memory(n_bytes: float) -> str:
    """As "412 MiB" or "1.6 GiB"."""
    mib = n_bytes / _MIB
    return f"{mib:.0f} MiB" if mib < 1000 else f"{mib / 1024:.1f} GiB"


def count(n: int, what: str) -> str:
    """As "1 job" or "1,200 jobs"."""
    return f"{n:,} {what}{'s' * (n != 1)}"
