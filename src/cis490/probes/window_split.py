"""How much a split of windows at random would have flattered us.

Windows of one episode overlap and are alike: if some train and others test, the test is half known.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from cis490.evaluation.bootstrap import SEED
from cis490.evaluation.tables import Provenance
from cis490.probes.booster import FOLDS, NAME, Booster
from cis490.probes.data import Windows, folds, of_mode
from cis490.probes.tables import Name, Said, Scores

PART: Final = "train+val"


def split_by_window(windows: Windows, booster: Booster, origin: Provenance) -> list[dict[str, Any]]:
    """Macro F1 out of fold, with folds of whole episodes and of single windows, and the difference.

    Args:
        windows: of train and val, all of the training hosts.

    Raises:
        NotMeasurable: there are too few episodes.
    """
    kept = of_mode("realistic")
    X, y = windows.features(kept), windows.y
    by_episode = folds(windows.episodes, FOLDS)[windows.unit]
    by_window = np.random.default_rng(SEED).permutation(np.arange(len(y)) % FOLDS)
    said = []
    for key, fold in (("split_by_episode", by_episode), ("split_by_window", by_window)):
        name = Name(PART, key, NAME, "realistic", (booster.seed,))
        said.append(Said(name, booster.out_of_fold(X, y, fold, kept)[None]))
    scores = Scores(windows, y, said, origin)
    flattery = scores.difference(said[1].name, "macro_f1_over_episodes", 1, 0)
    return [scores.row(0), scores.row(1), flattery]
