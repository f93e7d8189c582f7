"""Can a model tell the host from the features? Informational: machines do differ.

What tells hosts apart is what a detector may lean on in place of the phase.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from cis490.channels import channel_index
from cis490.evaluation.bootstrap import SEED
from cis490.evaluation.tables import Provenance
from cis490.probes.booster import FOLDS, NAME, Booster
from cis490.probes.data import NotMeasurable, Windows, columns_at, folds
from cis490.probes.exchanged import DRAWS, mean_macro_f1, null_row
from cis490.probes.tables import Name, Said, Scores

MODE: Final = "realistic"


def tell_hosts(windows: Windows, booster: Booster, origin: Provenance) -> list[dict[str, Any]]:
    """Macro F1 over hosts, out of fold, and what chance gives.

    Channels that some host never shows are left out: their absence would give it away. Chance are
    the scores of the same predictions against hosts that were exchanged between episodes.

    Args:
        windows: of all parts.

    Raises:
        NotMeasurable: there is one host, too few episodes, or no channel that all hosts show.
    """
    episodes = windows.episodes
    hosts = sorted(set(episodes["host_id"]))
    if len(hosts) < 2:
        raise NotMeasurable("there is one host alone")
    of_episode = np.array([hosts.index(host) for host in episodes["host_id"]])
    unit = windows.unit
    truth = of_episode[unit]
    kept = shown_everywhere(windows, truth, len(hosts))
    X = windows.features(kept)
    fold = folds(episodes, FOLDS)[unit]
    predicted = booster.out_of_fold(X, truth, fold, kept, n_classes=len(hosts))
    rng = np.random.default_rng(SEED)
    drawn = (rng.permutation(of_episode)[unit] for _ in range(DRAWS))
    null = mean_macro_f1(predicted[None], drawn, k=len(hosts))
    name = Name("all", "host", NAME, MODE, (booster.seed,))
    scores = Scores(windows, truth, [Said(name, predicted[None])], origin, labels=hosts)
    return [scores.row(0), null_row(name, null, scores.n, origin)]


def shown_everywhere(windows: Windows, host: np.ndarray, n_hosts: int) -> np.ndarray:
    """Positions in `Windows.X` of the realistic channels that every host shows at least once.

    Args:
        host: (n_windows,) integer in [0, n_hosts).

    Raises:
        NotMeasurable: there is none.
    """
    kept = []
    for i in channel_index(MODE):
        if len(np.unique(host[windows.shows(i)])) == n_hosts:
            kept.append(i)
    if not kept:
        raise NotMeasurable("no channel is shown by every host")
    return columns_at(kept)
