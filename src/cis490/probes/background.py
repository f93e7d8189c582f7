"""Do alarm scores rise when benign work starts or stops?

When it did stands in an episode's meta.json (`jobs`). Where it does not, `exec` tells, as the guest
says it, which was looked at every few seconds; in clean time every job is benign.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
import polars as pl

from cis490.channels import PHASES
from cis490.episodes.jobs import job_changes
from cis490.evaluation.families import Family, Figure, figure_rows, resample
from cis490.evaluation.tables import Entrant, Provenance
from cis490.files import read_parquet
from cis490.probes.data import NotMeasurable, Windows
from cis490.probes.tables import SCOPE, Means, Name
from cis490.schema import Schema

CLEAN: Final = PHASES.index("clean")
# init: what lost its parent is its child; never the recorder's launcher.
_INIT: Final = 1
_CHANGES: Final = pl.Schema(
    {
        "episode_id": pl.String,
        "event": pl.String,
        "after_s": pl.Float64,
        "at_s": pl.Float64,
        "clean_until_s": pl.Float64,
    }
)


def read_changes(
    episodes: Sequence[Path], labels: Sequence[Path], execs: Sequence[Path]
) -> pl.DataFrame:
    """When benign jobs start and stop in clean time.

    Where no `jobs` are told, a job is a child of the launcher: of a process, not init, that has
    children among those of the first look and is not listed itself. Clean time ends at the first
    other label.

    Args:
        episodes, labels, execs: telemetry/<batch>/ episodes.parquet, labels.parquet and
            exec.parquet, in the same order.

    Returns:
        episode_id; event ("start" or "exit"); after_s and at_s, seconds after the episode's start,
        between which the change lies: the same, or the look before and the look that saw it;
        clean_until_s (inf: to the end).
    """
    found = [pl.DataFrame(schema=_CHANGES)]
    for of_batch in zip(episodes, labels, execs, strict=True):
        found.append(_of_batch(*of_batch))
    return pl.concat(found).sort("episode_id", "at_s", "event")


def _of_batch(episodes_file: Path, labels_file: Path, exec_file: Path) -> pl.DataFrame:
    columns = ["episode_id", "started_wall_ns", "ended_wall_ns", "meta"]
    known = read_parquet(episodes_file, columns=columns).with_row_index("episode")
    labels = read_parquet(labels_file, columns=["episode", "t_wall_ns", "phase"])
    dirty = labels.filter(pl.col("phase") != PHASES[CLEAN])
    ends = dirty.group_by("episode").agg(until=pl.col("t_wall_ns").min())
    known = known.join(ends, on="episode", how="left", maintain_order="left").with_columns(
        clean_until_s=_seconds("until").fill_null(float("inf"))
    )
    told, silent = _told(known)
    found = pl.concat([told, _seen(known.filter(pl.col("episode").is_in(silent)), exec_file)])
    return found.filter(pl.col("at_s") <= pl.col("clean_until_s"))


def _seconds(name: str) -> pl.Expr:
    return (pl.col(name) - pl.col("started_wall_ns")) / 1e9


def _told(known: pl.DataFrame) -> tuple[pl.DataFrame, list[int]]:
    """What episodes tell themselves, and those that tell nothing."""
    rows, silent = [], []
    for row in known.iter_rows(named=True):
        duration_s = (row["ended_wall_ns"] - row["started_wall_ns"]) / 1e9
        told = job_changes(json.loads(row["meta"]), duration_s)
        if told is None:
            silent.append(row["episode"])
        for change in told or []:
            at_s = change.at_s
            rows.append((row["episode_id"], change.event, at_s, at_s, row["clean_until_s"]))
    return pl.DataFrame(rows, schema=_CHANGES, orient="row"), silent


def _seen(known: pl.DataFrame, exec_file: Path) -> pl.DataFrame:
    """What looks at the processes saw."""
    seen = read_parquet(exec_file, columns=["episode", "t_wall_ns", "event", "pid", "ppid"])
    seen = seen.join(known, on="episode", how="semi", maintain_order="left")
    first = seen.filter(event="snapshot")
    listed = first.select("episode", ppid="pid")
    launchers = first.select("episode", "ppid").unique().filter(pl.col("ppid") != _INIT)
    launchers = launchers.join(listed, on=["episode", "ppid"], how="anti")
    looks = seen.select("episode", "t_wall_ns").unique().sort("episode", "t_wall_ns")
    looks = looks.with_columns(before=pl.col("t_wall_ns").shift().over("episode"))
    jobs = (
        seen.filter(pl.col("event").is_in(["start", "exit"]))
        .join(launchers, on=["episode", "ppid"], how="semi")
        .join(looks, on=["episode", "t_wall_ns"])
        .join(known, on="episode")
        .with_columns(after_s=_seconds("before").fill_null(0.0), at_s=_seconds("t_wall_ns"))
    )
    return jobs.select(list(_CHANGES)).cast(_CHANGES)


class _Pairs(NamedTuple):
    """Differences of scores: F figures, (F, R, n) sums and (F, n) how many, by episode."""

    figures: list[Figure]
    total: np.ndarray
    things: np.ndarray


def score_changes(
    windows: Windows,
    score: np.ndarray,
    changes: pl.DataFrame,
    schema: Schema,
    name: Name,
    origin: Provenance,
) -> list[dict[str, Any]]:
    """How alarm scores change as benign work starts or stops, in clean time.

    Of each change the score of the last window before it is taken from the mean of those in which
    it falls (`score_change_within`), and from that of the first one after it
    (`score_change_after`).

    Args:
        windows: of the part shown.
        score: (R, n_windows) 1 - p_clean - p_armed, of a model's R runs.
        changes: of `read_changes`.
        schema: tells a window's place in time.
        name: whose scores they are.

    Raises:
        NotMeasurable: no change has a clean window before it and one in or after it.
    """
    place = windows.frame.select("episode_id", "window", "phase").with_row_index("place")
    place = place.with_columns(unit=windows.unit).filter(phase=CLEAN)
    start = pl.col("window") * schema.stride_s
    end = start + schema.length_s
    near = (
        changes.with_row_index("change")
        .join(place, on="episode_id")
        .filter(end <= pl.col("clean_until_s"))
        .with_columns(
            before=end <= pl.col("after_s"),
            within=(start < pl.col("at_s")) & (end > pl.col("after_s")),
            after=start >= pl.col("at_s"),
        )
        .sort("change", "window")
    )
    of_change = near.group_by("change", "event", "unit", maintain_order=True).agg(
        before=pl.col("place").filter("before").last(),
        within=pl.col("place").filter("within"),
        after=pl.col("place").filter("after").head(1),
    )
    known = of_change.filter(pl.col("before").is_not_null())
    pairs = _pairs(known, score, len(windows.episodes))
    if not pairs.figures:
        raise NotMeasurable(
            f"of {len(changes)} starts and stops of benign work in clean time "
            "none has a clean window before it and one in or after it"
        )
    return _rows(name, pairs, windows.profile, origin)


def _pairs(known: pl.DataFrame, score: np.ndarray, n: int) -> _Pairs:
    figures, totals, counts = [], [], []
    for event, key in (("start", "background_starts"), ("exit", "background_stops")):
        for when in ("within", "after"):
            own = known.filter(pl.col(when).list.len() > 0, event=event)
            if own.is_empty():
                continue
            before = score[:, own["before"].to_numpy()]
            then = [score[:, at].mean(1) for at in own[when].to_list()]
            unit = own["unit"].to_numpy()
            total, count = np.zeros((len(score), n)), np.bincount(unit, minlength=n)
            np.add.at(total.T, unit, (np.stack(then, 1) - before).T)
            n_windows = pl.concat([own["before"], own[when].explode()]).n_unique()
            told = f"|changes={len(own)}"
            metric = f"score_change_{when}"
            figures.append(Figure(SCOPE, key, metric, n_windows, count > 0, told=told))
            totals.append(total)
            counts.append(count)
    return _Pairs(figures, np.array(totals), np.array(counts))


def _rows(
    name: Name, pairs: _Pairs, profile: Sequence[str], origin: Provenance
) -> list[dict[str, Any]]:
    families: list[Family] = [Means(pairs.figures, pairs.total, pairs.things)]
    runs = tuple(range(pairs.total.shape[1]))
    entrant = Entrant(name.model, name.mode, name.seeds, runs, name.checkpoint)
    (values,) = resample([families], profile, origin.replicates)
    rows = figure_rows(name.part, entrant, families, values, profile, origin)
    return [row for row in rows if row["seed"] is None]


class _Gap:
    """The mean score of windows with benign work less that of those without (`Family`)."""

    def __init__(self, figure: Figure, total: np.ndarray, count: np.ndarray) -> None:
        self.figures = [figure]
        self._means = Means([figure] * 2, total, count)

    def estimates(self) -> np.ndarray:
        """(1, R)."""
        return self._difference(self._means.estimates())

    def values(self, drawn: np.ndarray) -> np.ndarray:
        """(1, R, b)."""
        return self._difference(self._means.values(drawn))

    @staticmethod
    def _difference(means: np.ndarray) -> np.ndarray:
        return np.asarray(means[:1] - means[1:])


def score_by_presence(
    windows: Windows,
    score: np.ndarray,
    works: pl.DataFrame,
    name: Name,
    origin: Provenance,
) -> list[dict[str, Any]]:
    """The weaker stand-in: clean windows of episodes with benign work less those without.

    Episodes with and without it are others, so this is not paired.

    Args:
        windows, score, name: as of `score_changes`.
        works: episode_id and background, a list, null where not known.

    Raises:
        NotMeasurable: there are no clean windows of one of the two.
    """
    episodes = windows.episodes.join(works, on="episode_id", how="left", maintain_order="left")
    n_works = episodes["background"].list.len()
    clean, unit, n = windows.y == CLEAN, windows.unit, len(episodes)
    totals, counts = list[np.ndarray](), list[np.ndarray]()
    for some in ((n_works > 0), (n_works == 0)):
        chosen = clean & some.fill_null(value=False).to_numpy()[unit]
        if not chosen.any():
            what = "with" if not totals else "without"
            raise NotMeasurable(f"there are no clean windows of an episode {what} benign work")
        of_runs = [np.bincount(unit[chosen], run[chosen], minlength=n) for run in score]
        totals.append(np.stack(of_runs))
        counts.append(np.bincount(unit[chosen], minlength=n))
    count = np.stack(counts)
    metric = "score_difference"
    there = count.sum(0) > 0
    figure = Figure(SCOPE, "background_present", metric, int(count.sum()), there)
    families: list[Family] = [_Gap(figure, np.stack(totals), count)]
    entrant = Entrant(name.model, name.mode, name.seeds, tuple(range(len(score))), name.checkpoint)
    (values,) = resample([families], windows.profile, origin.replicates)
    rows = figure_rows(name.part, entrant, families, values, windows.profile, origin)
    return [row for row in rows if row["seed"] is None]
