"""From window scores to alarms, and what they are worth in time.

An alarm begins when the score rises to a threshold and ends when it falls below a lower one, the
release (hysteresis). Its time is its window's end. R runs of one model on n episodes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Final, NamedTuple

import numpy as np
import polars as pl
from scipy.sparse import csc_array

from cis490.channels import PHASES
from cis490.evaluation.families import Figure, share
from cis490.evaluation.metrics import ALARM_PHASES

# Delays are looked at to a tenth of a second; labels are as exact as that.
_TENTHS: Final = 10
# Recall is told for so many strides after the onset at most: five minutes of the default one.
_MOST_STRIDES: Final = 60
# Ranks of neighbours that are looked at are no further apart than this share of them.
_STEP: Final = 0.01
_QUANTILES: Final = {"median": 0.5, "p90": 0.9}


def alarm_score(probabilities: np.ndarray) -> np.ndarray:
    """p_infecting + p_infected_running + p_dormant: (..., K) to (...) float64 in 0 .. 1.

    It is taken as their share of all, for rows add up to 1 but for rounding. Thresholds lie where
    scores are nearly 1, and there a plain sum of float32 is rounding alone from 1 - 1e-7 on, while
    what is left for the other phases is known to seven digits.
    """
    infected = np.isin(PHASES, ALARM_PHASES)
    told = probabilities[..., infected].sum(-1, dtype=np.float64)
    left = probabilities[..., ~infected].sum(-1, dtype=np.float64)
    total = told + left
    return np.asarray(np.divide(told, total, out=np.zeros(total.shape), where=total > 0))


def spaced_ranks(n: int) -> list[int]:
    """Ranks among n: the first 200 or so one by one, then 1% apart, and the last."""
    ranks = [0] if n else []
    while ranks and ranks[-1] < n - 1:
        ranks.append(min(n - 1, max(ranks[-1] + 1, int(ranks[-1] * (1 + _STEP)))))
    return ranks


@dataclass(frozen=True)
class Windows:
    """Windows sorted by episode and time.

    Attributes:
        unit: (n_windows,) the episode of each window, in [0, n), neighbours together.
        index: (n_windows,) a window's index in its episode.
        phase: (n_windows,) index into PHASES.
        onset_s: (n,) seconds after the start of each episode when its infection began; NaN: it
            did not, or before it was recorded.
        length_s, stride_s: of windows.
    """

    unit: np.ndarray
    index: np.ndarray
    phase: np.ndarray
    onset_s: np.ndarray
    length_s: float
    stride_s: float

    @classmethod
    def of(
        cls, frame: pl.DataFrame, onsets: pl.DataFrame, *, length_s: float, stride_s: float
    ) -> Windows:
        """From columns episode_id, window and phase, sorted by the first two, and known onsets."""
        unit = frame["episode_id"].rle_id().to_numpy().astype(np.int64)
        episodes = frame.select(pl.col("episode_id").unique(maintain_order=True))
        onset = episodes.join(onsets, on="episode_id", how="left", maintain_order="left")
        onset_s = onset["onset_s"].fill_null(float("nan")).to_numpy()
        index, phase = (frame[name].to_numpy().astype(np.int64) for name in ("window", "phase"))
        return cls(unit, index, phase, onset_s, length_s, stride_s)

    @property
    def n_episodes(self) -> int:
        """Number of episodes, n."""
        return len(self.onset_s)

    @cached_property
    def first(self) -> np.ndarray:
        """(n_windows,) bool: the first window of its episode."""
        return np.append(True, self.unit[1:] != self.unit[:-1])[: len(self.unit)]

    @cached_property
    def end_s(self) -> np.ndarray:
        """(n_windows,) float64 seconds after its episode's start at which a window ends."""
        return self.index * self.stride_s + self.length_s

    @cached_property
    def since_s(self) -> np.ndarray:
        """(n_windows,) seconds from the onset to a window's end; NaN without an onset."""
        return np.asarray(self.end_s - self.onset_s[self.unit])

    @cached_property
    def after_onset(self) -> np.ndarray:
        """(n_windows,) bool: ends at or after the onset."""
        return np.asarray(self.since_s >= 0)

    @cached_property
    def positive(self) -> np.ndarray:
        """(n_windows,) bool: its phase is one of ALARM_PHASES."""
        return np.isin(self.phase, [PHASES.index(phase) for phase in ALARM_PHASES])

    @cached_property
    def negative(self) -> np.ndarray:
        """(n_windows,) bool: its phase is clean."""
        return np.asarray(self.phase == PHASES.index("clean"))

    @cached_property
    def clean(self) -> np.ndarray:
        """(n_windows,) bool: clean time, in which an alarm is false: clean, and no onset yet."""
        return np.asarray(self.negative & ~self.after_onset)

    def count(self, chosen: np.ndarray) -> np.ndarray:
        """How many of the (n_windows,) or (r, n_windows) chosen windows each episode has: (n,) or
        (r, n) int64."""
        n = self.n_episodes
        if chosen.ndim == 1:
            return np.bincount(self.unit[chosen], minlength=n)
        return np.stack([self.count(row) for row in chosen])

    def with_any(self, chosen: np.ndarray) -> np.ndarray:
        """(n,) bool: the episodes of the (n_windows,) chosen windows."""
        return self.count(chosen) > 0

    def hours(self, n_windows: int) -> float:
        """Each window stands for the time to the next one, a stride."""
        return n_windows * self.stride_s / 3600


@dataclass(frozen=True)
class Rule:
    """When an alarm begins and ends: at `threshold` and above, and below `release`."""

    threshold: float
    release: float


def raised(score: np.ndarray, first: np.ndarray, rule: Rule) -> np.ndarray:
    """(n_windows,) bool: the windows at whose end an alarm stands; none outlasts its episode.

    Args:
        score: (n_windows,) alarm scores, sorted by episode and time.
        first: (n_windows,) bool, the first window of each episode.
        rule: begins and ends an alarm.
    """
    place = np.arange(len(score))
    begun = np.maximum.accumulate(np.where(score >= rule.threshold, place, -1))
    ended = np.where(score < rule.release, place, np.where(first, place - 1, -2))
    return np.asarray(begun > np.maximum.accumulate(ended))


def rising(alarm: np.ndarray, first: np.ndarray) -> np.ndarray:
    """(n_windows,) bool: where an alarm begins."""
    before = np.append(False, alarm[:-1])[: len(alarm)]
    return np.asarray(alarm & (first | ~before))


@dataclass(frozen=True)
class Heard:
    """The alarms of one run.

    Attributes:
        raised: (n_windows,) bool, an alarm stands.
        hit: (n_windows,) bool, at or after an onset an alarm stands that did not begin in clean
            time.
        n_false: (n,) alarms that began in clean time.
        first_alarm_s: (n,) seconds after the episode's start of its first hit; NaN: none.
    """

    raised: np.ndarray
    hit: np.ndarray
    n_false: np.ndarray
    first_alarm_s: np.ndarray

    @classmethod
    def of(cls, score: np.ndarray, windows: Windows, rule: Rule) -> Heard:
        """From the (n_windows,) alarm scores of one run."""
        alarm = raised(score, windows.first, rule)
        begins = rising(alarm, windows.first)
        began = np.maximum.accumulate(np.where(begins, np.arange(len(alarm)), 0))
        hit = alarm & windows.after_onset & ~windows.clean[began]
        first_alarm_s = np.full(windows.n_episodes, np.inf)
        np.minimum.at(first_alarm_s, windows.unit[hit], windows.end_s[hit])
        first_alarm_s[np.isinf(first_alarm_s)] = np.nan
        return cls(alarm, hit, windows.count(begins & windows.clean), first_alarm_s)


@dataclass(frozen=True)
class Choice:
    """A threshold chosen on out-of-fold predictions, or why there is none.

    Attributes:
        rule: None if none could be chosen; with `reason`.
        n_false: alarms in clean time that it gives there.
        hours, n_windows, n_episodes: the clean time that it was chosen on.
    """

    rule: Rule | None
    reason: str | None
    n_false: int | None
    hours: float
    n_windows: int
    n_episodes: int


def choose(score: np.ndarray, windows: Windows, *, per_hour: float, hysteresis: float) -> Choice:
    """The lowest threshold from which on all have at most `per_hour` false alarms an hour.

    A lower threshold may have fewer again, for alarms run into each other: one that never ends is a
    single one. So clean scores are tried as thresholds from the highest down, none of the 200
    highest skipped and further down none by more than 1% of its rank, and the threshold is put just
    above the first that fails. Between two clean scores a higher threshold never has fewer false
    alarms: the same windows can begin one, and they end sooner.

    Args:
        score: (n_windows,) alarm scores of windows that the model did not train on.
        windows: what they are of.
        per_hour: false alarms an hour of clean time, at most.
        hysteresis: release / threshold.
    """
    clean = windows.clean
    n = int(clean.sum())
    hours = windows.hours(n)
    on = hours, n, int(windows.with_any(clean).sum())
    if n == 0:
        what = "clean time in the predictions" if len(score) else "predictions"
        return Choice(None, f"no {what} out of fold", None, *on)
    ranked = np.sort(score[clean])[::-1]
    count = _FalseAlarms(score, windows)
    threshold, kept = 0.0, -1
    for rank in spaced_ranks(n):
        if count(Rule(ranked[rank], hysteresis * ranked[rank])) > per_hour * hours + 1e-9:
            # The next lower score: after skipped ranks those next in line may be as high.
            below = 0 if kept < 0 else int(np.searchsorted(-ranked, -ranked[kept], side="right"))
            threshold = float(np.nextafter(ranked[below], 2))
            break
        kept = rank
    if threshold > 1:
        reason = (
            f"no threshold has at most {per_hour:g} false alarms an hour: of {hours:.2f} h clean "
            f"out of fold the score of {(ranked == 1).sum()} windows is 1"
        )
        return Choice(None, reason, None, *on)
    rule = Rule(threshold, hysteresis * threshold)
    return Choice(rule, None, count(rule), *on)


class _FalseAlarms:
    """Counts false alarms under one rule after another, looking only at episodes that can have one.

    Episodes stand in the order of their highest clean score.
    """

    def __init__(self, score: np.ndarray, windows: Windows) -> None:
        highest = np.full(windows.n_episodes, -np.inf)
        np.maximum.at(highest, windows.unit[windows.clean], score[windows.clean])
        of_window = highest[windows.unit]
        order = np.lexsort((np.arange(len(score)), windows.unit, -of_window))
        self._fallen = -of_window[order]
        self._score, self._clean = score[order], windows.clean[order]
        self._first = windows.first[order]

    def __call__(self, rule: Rule) -> int:
        some = slice(int(np.searchsorted(self._fallen, -rule.threshold, side="right")))
        first = self._first[some]
        begins = rising(raised(self._score[some], first, rule), first)
        return int((begins & self._clean[some]).sum())


class Allowed:
    """What is caught, and false alarms an hour, for several limits (`families.Family`).

    A threshold for few false alarms rests on the few highest clean scores, so one alone does not
    say what a detector is worth. Figures have scope `allowed` and as their key the limit.

    Args:
        heard: of each of R runs, by the false alarms an hour that were allowed out of fold.
        windows: what they are of.
        told: what the signatures say of each limit's threshold.
    """

    def __init__(
        self,
        heard: Mapping[str, Sequence[Heard]],
        windows: Windows,
        told: Mapping[str, str],
    ) -> None:
        none = np.zeros(windows.n_episodes, bool)  # controls apart are a figure of `Alarms`
        ratios = [
            ratio._replace(figure=ratio.figure._replace(scope="allowed", key=limit))
            for limit, runs in heard.items()
            for ratio in (
                *_caught(runs, windows, told[limit]),
                *_false(runs, windows, none, told[limit]),
            )
            if ratio.figure.metric in ("caught", "false_alarms_per_hour")
        ]
        self.figures = [ratio.figure for ratio in ratios]
        self._ratios = _Ratios(ratios, windows.n_episodes)

    def estimates(self) -> np.ndarray:
        """(F, R) float64."""
        return self.values(np.ones((self._ratios.n, 1)))[..., 0]

    def values(self, drawn: np.ndarray) -> np.ndarray:
        """(F, R, b) under (n, b) weights of the episodes."""
        return self._ratios.values(drawn)


class Alarms:
    """Figures of alarms in time (`families.Family`); what no window can tell has no figure.

    Infections are the episodes whose onset is known and before the end of their last window.

    Args:
        heard: of each of R runs.
        windows: what they are of.
        control: (n,) bool, the benign controls.
        told: where the threshold comes from, for the signatures.
    """

    def __init__(
        self, heard: Sequence[Heard], windows: Windows, control: np.ndarray, told: str = ""
    ) -> None:
        ratios = [
            *_caught(heard, windows, told),
            *_false(heard, windows, control, told),
            *_recall(heard, windows, told),
        ]
        self.figures = [ratio.figure for ratio in ratios]
        self._ratios = _Ratios(ratios, windows.n_episodes)
        self._delays: list[_Delays] = []
        infected = windows.with_any(windows.after_onset)
        if infected.any():
            self._delays = [
                _Delays.of(run.first_alarm_s - windows.onset_s, infected) for run in heard
            ]
            self.figures += _delay_figures(heard, windows, told)

    def estimates(self) -> np.ndarray:
        """(F, R) float64; a delay is infinite where it lies among the infections missed."""
        return self.values(np.ones((self._ratios.n, 1)))[..., 0]

    def values(self, drawn: np.ndarray) -> np.ndarray:
        """(F, R, b) under (n, b) weights of the episodes."""
        ratios = self._ratios.values(drawn)
        if not self._delays:
            return ratios
        return np.concatenate([ratios, np.stack([run.values(drawn) for run in self._delays], 1)])


class _Ratio(NamedTuple):
    """What a figure is the ratio of, both summed over episodes: (R, n) by (n,)."""

    figure: Figure
    counted: np.ndarray
    total: np.ndarray


class _Ratios:
    """The values of some ratios; n episodes."""

    def __init__(self, ratios: Sequence[_Ratio], n: int) -> None:
        self.n = n
        self._counted = np.array([ratio.counted for ratio in ratios], np.float32).reshape(-1, n)
        self._total = np.array([ratio.total for ratio in ratios], np.float32).reshape(-1, n)

    def values(self, drawn: np.ndarray) -> np.ndarray:
        """(F, R, b) under (n, b) weights of the episodes."""
        counted, total = (self._counted @ drawn).astype(float), (self._total @ drawn).astype(float)
        return share(counted.reshape(len(total), -1, drawn.shape[1]), total[:, None])


def _caught(heard: Sequence[Heard], windows: Windows, told: str) -> Iterator[_Ratio]:
    """The infections in which an alarm was raised, the others, and of them those that a false one
    covers: none could be told from it."""
    infected, n = windows.with_any(windows.after_onset), int(windows.after_onset.sum())
    caught = infected & np.stack([~np.isnan(run.first_alarm_s) for run in heard])
    stands = windows.count(np.stack([run.raised & windows.after_onset for run in heard])) > 0
    shares = {"caught": caught, "missed": infected & ~caught, "masked": stands & ~caught}
    for metric, counted in shares.items():
        if n:
            trials = int(infected.sum())
            figure = Figure("alarm", "all", metric, n, infected, "share", trials, told=told)
            yield _Ratio(figure, counted, infected)


def _false(
    heard: Sequence[Heard], windows: Windows, control: np.ndarray, told: str
) -> Iterator[_Ratio]:
    """False alarms an hour of clean time: in all episodes, and in the controls alone."""
    n_false = np.stack([run.n_false for run in heard])
    clean = windows.count(windows.clean)
    for key, chosen in (("all", clean > 0), ("controls", (clean > 0) & control)):
        if n := int(clean[chosen].sum()):
            name, hours = ("alarm", key, "false_alarms_per_hour"), windows.hours(n)
            of = f"|hours={hours:.4g}{told}"
            figure = Figure(*name, n, chosen, "rate", hours=hours, told=of)
            yield _Ratio(figure, n_false * chosen, clean * chosen * windows.hours(1))


def _recall(heard: Sequence[Heard], windows: Windows, told: str) -> Iterator[_Ratio]:
    """The windows at whose end an alarm stands, by strides since the onset."""
    since_s = np.where(windows.after_onset, windows.since_s, np.inf)
    strides = np.floor(since_s / windows.stride_s + 1e-9)
    for i in range(_MOST_STRIDES):
        total = windows.count(strides == i)
        if n := int(total.sum()):
            name, there = ("since_infection", f"{i * windows.stride_s:g}", "recall"), total > 0
            figure = Figure(*name, n, there, "share", int(there.sum()), told=told)
            hit = windows.count(np.stack([run.hit & (strides == i) for run in heard]))
            yield _Ratio(figure, hit, total)


def _delay_figures(heard: Sequence[Heard], windows: Windows, told: str) -> list[Figure]:
    """In the order of `_Delays.values`: of all infections, then of those that any run caught."""
    after_onset = windows.count(windows.after_onset)
    caught = np.any([~np.isnan(run.first_alarm_s) for run in heard], axis=0)
    return [
        Figure(
            *("alarm", "all", f"{prefix}delay_{name}_s", int(after_onset[of].sum()), of),
            kind="delay",
            told=told,
        )
        for prefix, of in (("", after_onset > 0), ("caught_", caught))
        for name in _QUANTILES
    ]


@dataclass(frozen=True)
class _Delays:
    """Seconds from onset to alarm in one run.

    Attributes:
        delay_s: (groups,) each length that occurs, rising, to a tenth of a second.
        caught: (groups, n) the infections with that delay.
        missed: (n,) the infections that were missed.
    """

    delay_s: np.ndarray
    caught: csc_array
    missed: np.ndarray

    @classmethod
    def of(cls, delay_s: np.ndarray, exists: np.ndarray) -> _Delays:
        """From (n,) delays, NaN where there is none, and which of the n infections exist."""
        caught = exists & ~np.isnan(delay_s)
        lengths, group = np.unique(np.round(delay_s[caught] * _TENTHS), return_inverse=True)
        of = (group, np.flatnonzero(caught))
        matrix = csc_array((np.ones(len(group), np.float32), of), (len(lengths), len(delay_s)))
        return cls(lengths / _TENTHS, matrix, (exists & ~caught).astype(np.float32))

    def values(self, drawn: np.ndarray) -> np.ndarray:
        """(4, b) median and 90th percentile of all infections, a missed one never ending, and of
        those caught alone; the smallest delay that so many do not exceed."""
        upto = (self.caught @ drawn).cumsum(0)
        n_caught = upto[-1] if len(upto) else np.zeros(drawn.shape[1], drawn.dtype)
        n_all = n_caught + self.missed @ drawn
        delays = np.append(self.delay_s, np.inf)
        found = [
            np.where(n > 0, delays[(upto < q * n * (1 - 1e-6)).sum(0)], np.nan)
            for n in (n_all, n_caught)
            for q in _QUANTILES.values()
        ]
        return np.stack(found)
