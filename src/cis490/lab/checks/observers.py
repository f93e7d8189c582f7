"""Whether the observers kept time."""

from __future__ import annotations

from typing import Any, Final

from cis490.channels import SAMPLED
from cis490.lab.checks.finding import Finding, names, unknown
from cis490.lab.corpus import Corpus

# Half a step of the 10 Hz grid: more puts a row into the wrong step. A clock that is slewed by the
# kernel's most, 500 ppm, moves by 0.032 s in 64 s.
DRIFT_S: Final = 0.05
# Of episodes with such a clock, or of a source's rows outside their record: a few are an accident.
ACCIDENT_SHARE: Final = 0.01

# A longer gap is missing on the grid (docs/episodes.md).
GAP_INTERVALS: Final = 2.5
# Of a host's episodes with one: more, and what is missing tells the host, or the load.
GAP_SHARE: Final = 0.1


def clocks(corpus: Corpus) -> Finding:
    """How far the clocks of a row move against each other, and rows outside their record."""
    limit = (
        f"at most {ACCIDENT_SHARE:.0%} of episodes drift over {DRIFT_S:g} s, "
        f"{ACCIDENT_SHARE:.0%} of a table's rows lie outside the record"
    )
    tables = sorted({name for episode in corpus.episodes for name in episode.ticks})
    rows, figures, bad = [], {}, []
    for name in tables:
        ticks = [episode.ticks[name] for episode in corpus.episodes if name in episode.ticks]
        drifting = sum(tick.drift_s > DRIFT_S for tick in ticks) / len(ticks)
        outside = sum(tick.n_outside for tick in ticks) / sum(tick.n_rows for tick in ticks)
        foreign = sum(abs(tick.offset_s) > DRIFT_S for tick in ticks)
        largest = max(tick.drift_s for tick in ticks)
        figures[name] = {
            "largest_drift_s": largest,
            "share_drifting": drifting,
            "share_rows_outside": outside,
            "n_not_from_start": foreign,
        }
        rows.append((name, f"{largest:.4f}", f"{drifting:.1%}", f"{outside:.2%}", foreign))
        if max(drifting, outside) > ACCIDENT_SHARE:
            bad.append(name)
    counted = [row[0] for row in rows if row[4]]
    note = f"; t_mono_ns does not count from the start in {', '.join(counted)}" if counted else ""
    worst = max(float(row[1]) for row in rows)
    return Finding(
        "clocks",
        "fault" if bad else "ok",
        (f"wrong in {', '.join(bad)}" if bad else f"at most {worst:.4f} s of drift") + note,
        limit,
        figures,
        ("table", "largest drift s", "drifting", "rows outside", "not from the start"),
        tuple(rows),
    )


def gaps(corpus: Corpus) -> Finding:
    """How often a source was silent for long, by host."""
    limit = f"over {GAP_INTERVALS:g} intervals in at most {GAP_SHARE:.0%} of a host's episodes"
    rows: list[tuple[str, ...]] = []
    figures: list[dict[str, Any]] = []
    bad: list[str] = []
    for host in sorted({episode.host_id for episode in corpus.episodes}):
        mine = [episode for episode in corpus.episodes if episode.host_id == host]
        for source in SAMPLED:
            measured = [
                (tick.largest_gap_s, tick.interval_s)
                for episode in mine
                if (tick := episode.ticks.get(source)) is not None
                and tick.largest_gap_s is not None
                and tick.interval_s is not None
            ]
            if not measured:
                continue
            over = sum(gap > GAP_INTERVALS * interval for gap, interval in measured)
            share, largest = over / len(measured), max(gap for gap, _ in measured)
            nominal = min(interval for _, interval in measured)
            rows.append((host, source, f"{nominal:g}", f"{largest:.2f}", f"{share:.1%}"))
            figures.append(
                {
                    **{"host_id": host, "source": source, "interval_s": nominal},
                    **{"largest_gap_s": largest, "share_over": share},
                }
            )
            if share > GAP_SHARE:
                bad.append(f"{source} of {host} ({share:.0%})")
    worst = max(figures, key=lambda f: f["largest_gap_s"] / f["interval_s"], default=None)
    if worst is None:
        return unknown("sampling gaps", "no source has rows", limit)
    what = (
        f"largest for its rate: {worst['largest_gap_s']:.2f} s in {worst['source']} of "
        f"{worst['host_id']}"
    )
    return Finding(
        "sampling gaps",
        "fault" if bad else "ok",
        f"often too long in {names(bad)}" if bad else what,
        limit,
        {"by_host": figures},
        ("host", "source", "nominal s", "largest gap s", "episodes over"),
        tuple(rows),
    )
