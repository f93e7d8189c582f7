"""What the guest's word is worth: an architecture with it (oracle) and without (realistic)."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from typing import Any, Final, NamedTuple

import numpy as np

from cis490.evaluation.baselines import TRAINED
from cis490.evaluation.breakdowns import ALL, COMPARED, CONTROL, Cell, Scored, in_groups, replicate
from cis490.evaluation.tables import Entrant, Provenance
from cis490.probes.data import NotMeasurable, Windows
from cis490.probes.tables import Name, paired_row

MODES: Final = ("oracle", "realistic")
# The mean over all architectures, company left out.
MEAN: Final = "all"


class Predicted(NamedTuple):
    """A trained model, and its (len(seeds), n_windows) int64 predictions, index into PHASES."""

    architecture: str
    mode: str
    seeds: tuple[int, ...]
    checkpoint: str
    predicted: np.ndarray


def worth(
    windows: Windows, models: Sequence[Predicted], part: str, origin: Provenance
) -> list[dict[str, Any]]:
    """Oracle less realistic, of each architecture and their mean, over all and by profile.

    Macro F1; of controls the false-alarm rate, where less is better. Replicates and the draws of
    seeds are those of the other tables.

    Raises:
        NotMeasurable: no architecture was trained in both modes.
    """
    of = {(model.architecture, model.mode): model for model in models if model.seeds}
    both = [a for a, mode in sorted(of) if mode == MODES[0] and (a, MODES[1]) in of]
    if not both:
        raise NotMeasurable("no architecture has predictions in both modes")
    used = [of[name] for name in product(both, MODES)]
    entrants, stop = {}, 0
    for model in used:
        start, stop = stop, stop + len(model.seeds)
        which = model.architecture, model.mode
        runs = tuple(range(start, stop))
        entrants[which] = Entrant(*which, model.seeds, runs, model.checkpoint)
    scored = Scored(
        profile=windows.profile,
        host=windows.episodes["host_id"].to_list(),
        unit=windows.unit,
        truth=windows.y,
        phase_share=np.ones(len(windows)),
        predicted=np.concatenate([model.predicted for model in used]),
    )
    rows: list[dict[str, Any]] = []
    for group in in_groups(_cells(scored), origin.replicates):
        scores = replicate(scored, origin.replicates, group)
        for f, (figure, _) in enumerate(scores.rows):
            metric = f"{figure.metric}_over_realistic"
            gaps, diffs = {}, {}
            for a in both:
                oracle, realistic = (entrants[a, mode] for mode in MODES)
                own = [float(scores.estimates[f, list(e.runs)].mean()) for e in (oracle, realistic)]
                drawn = [e.mean_over_seeds(scores.replicates[f]) for e in (oracle, realistic)]
                gaps[a], diffs[a] = own[0] - own[1], drawn[0] - drawn[1]
            ours = [a for a in both if a not in TRAINED]
            if len(ours) > 1:
                gaps[MEAN] = float(np.mean([gaps[a] for a in ours]))
                diffs[MEAN] = np.mean([diffs[a] for a in ours], axis=0)
            for a, gap in gaps.items():
                seeds = entrants[a, MODES[0]].seeds if a != MEAN else ()
                checkpoint = entrants[a, MODES[0]].checkpoint if a != MEAN else "-"
                name = Name(part, f"guest/{figure.key}", a, MODES[0], seeds, checkpoint)
                values = diffs[a] if scores.resampled[f] else None
                rows.append(paired_row(name, metric, gap, figure.n, origin, values))
    return rows


def _cells(scored: Scored) -> list[Cell]:
    """Everything, and each profile."""
    counts, profiles = scored.counts(), np.array(scored.profile)
    found = [Cell.of(ALL, counts, np.ones(len(profiles), dtype=bool))]
    for profile in sorted(set(scored.profile)):
        metric = "false_alarm_rate" if profile == CONTROL else COMPARED
        found.append(Cell.of(("profile", profile), counts, profiles == profile, (metric,)))
    return found
