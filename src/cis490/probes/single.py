"""Each channel alone, beside the clock: one that reaches more than the clock carries evidence.

One that nearly reaches the detectors, and should not know the phase, is a leak to look for.
"""

from __future__ import annotations

from typing import Any, Final

from cis490.channels import CHANNELS
from cis490.evaluation.baselines import CLOCK, MODE, predict_baselines
from cis490.evaluation.tables import Provenance
from cis490.probes.booster import NAME, Booster
from cis490.probes.data import Windows, columns_at
from cis490.probes.tables import Name, Said, Scores

OVER_CLOCK: Final = "macro_f1_over_clock"


def each_channel(
    train: Windows, val: Windows, shown: Windows, part: str, booster: Booster, origin: Provenance
) -> list[dict[str, Any]]:
    """Macro F1 of gbt on the six statistics of each channel, and its paired lead over the clock.

    Channels that training never saw are left out; a guest's own are under mode oracle.

    Raises:
        NotMeasurable: gbt cannot be trained.
    """
    said = []
    for i, channel in enumerate(CHANNELS):
        kept = columns_at([i])
        if not train.shows(i).any():
            continue
        model = booster.fit(
            train.features(kept), train.y, kept, X_val=val.features(kept), y_val=val.y
        )
        predicted = model.predict_proba(shown.features(kept)).argmax(1)[None]
        mode = "realistic" if channel.trust == "host" else "oracle"
        name = Name(part, f"channel/{channel.key}", NAME, mode, (booster.seed,))
        said.append(Said(name, predicted))
    places = (each.frame["window"].to_numpy() for each in (train, shown))
    clock = predict_baselines(train.y, *places)[CLOCK]
    said.append(Said(Name(part, "clock", CLOCK, MODE), clock[None]))
    scores = Scores(shown, shown.y, said, origin)
    last = len(said) - 1
    rows = [scores.row(i) for i in range(len(said))]
    rows += [scores.difference(said[i].name, OVER_CLOCK, i, last) for i in range(last)]
    return rows


def over_clock(rows: list[dict[str, Any]]) -> list[str]:
    """The channels whose lead over the clock has its whole interval above 0, best first."""
    leads = [row for row in rows if row["metric"] == OVER_CLOCK and (row["low"] or 0) > 0]
    leads.sort(key=lambda row: (-row["estimate"], row["key"]))
    return [row["key"].removeprefix("channel/") for row in leads]
