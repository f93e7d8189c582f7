import numpy as np
import pytest
from sklearn.metrics import f1_score

from cis490.probes.data import NotMeasurable
from cis490.probes.guest import Predicted, worth
from tests.probes.world import ORIGIN, windows_of

FLEET = {"birch": {"io-walk": 6, "none": 4}}


def model(windows, architecture, mode, wrong, seeds=(1, 2)):
    """Right but for a share of its windows."""
    rng = np.random.default_rng([len(seeds), *f"{architecture}{mode}".encode()])
    shape = len(seeds), len(windows)
    said = np.where(rng.random(shape) < wrong, rng.integers(5, size=shape), windows.y)
    return Predicted(architecture, mode, seeds, "c4ec", said)


def test_oracle_less_realistic_is_the_paired_difference_over_all_and_by_profile():
    windows = windows_of("test", FLEET)
    models = [
        model(windows, "gbt", "oracle", 0.1),
        model(windows, "gbt", "realistic", 0.6),
        model(windows, "cnn", "oracle", 0.1),
        model(windows, "cnn", "realistic", 0.1, seeds=(1,)),
        model(windows, "minirocket", "oracle", 0.9),
        model(windows, "minirocket", "realistic", 0.1),
    ]
    rows = {
        (row["model"], row["key"], row["metric"]): row
        for row in worth(windows, models, "test", ORIGIN)
    }
    macro = [
        np.mean([f1_score(windows.y, run, average="macro") for run in each.predicted])
        for each in models
    ]
    everything = "guest/all", "macro_f1_over_realistic"
    assert rows["gbt", *everything]["estimate"] == pytest.approx(macro[0] - macro[1], abs=1e-9)
    assert rows["gbt", *everything]["low"] > 0.2
    assert rows["cnn", *everything]["low"] < 0 < rows["cnn", *everything]["high"]
    mean = np.mean([macro[0] - macro[1], macro[2] - macro[3]])  # minirocket is company
    assert rows["all", *everything]["estimate"] == pytest.approx(mean, abs=1e-9)
    controls = rows["gbt", "guest/none", "false_alarm_rate_over_realistic"]
    assert controls["high"] < 0
    assert (controls["n_windows"], controls["n_episodes"]) == (44, 4)
    assert ("gbt", "guest/io-walk", "macro_f1_over_realistic") in rows


def test_a_mode_alone_says_nothing_of_the_guest():
    windows = windows_of("test", FLEET)
    failed = model(windows, "gbt", "oracle", 0.1, seeds=())
    with pytest.raises(NotMeasurable, match="both modes"):
        worth(windows, [model(windows, "gbt", "realistic", 0.5), failed], "test", ORIGIN)
