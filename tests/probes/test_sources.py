import numpy as np
import polars as pl
import pytest

from cis490.probes.data import NotMeasurable, columns_at
from cis490.probes.sources import donors, leave_one_out, permutation_importance
from cis490.probes.tables import Name
from tests.probes.world import BOOSTER, ORIGIN, TWO_HOSTS, channel, tell, windows_of

NAME = Name("val", "permuted", "cnn", "realistic", (42,))


def test_a_source_comes_from_a_whole_episode_of_the_same_host():
    windows = windows_of("val", TWO_HOSTS)
    frame = windows.frame.filter((pl.col("window") < 7) | ~pl.col("episode_id").str.ends_with("1"))
    windows = type(windows)(frame)
    taken = donors(windows, np.random.default_rng(0))
    hosts, place = frame["host_id"].to_numpy(), frame["window"].to_numpy()
    length = np.bincount(windows.unit)
    assert (hosts[taken] == hosts).all()
    moved = 0
    for i in range(len(length)):
        own = taken[windows.unit == i]
        (donor,) = set(windows.unit[own])
        assert (place[own] == place[windows.unit == i] % length[donor]).all()
        moved += donor != i
    assert moved > 0


@pytest.mark.parametrize("shape", [(2,), (2, 7)], ids=["features", "windows"])
def test_only_the_source_that_a_model_looks_at_matters_to_it(shape):
    windows = windows_of("val", TWO_HOSTS)
    X = np.zeros((len(windows), *shape))
    X[:, 0] = X[:, 1] = windows.y.reshape(-1, *[1] * (len(shape) - 1))

    def predict(X):
        first = X.reshape(len(X), 2, -1)[:, 0, 0]
        return np.eye(5)[first.astype(int)]

    before = X.copy()
    groups = {"proc": [0], "qmp": [1]}
    looked_at, other = permutation_importance(windows, X, groups, predict, NAME, ORIGIN)
    assert looked_at["key"] == "permuted/proc"
    assert looked_at["low"] > 0.2
    assert (other["key"], other["estimate"]) == ("permuted/qmp", 0)
    np.testing.assert_array_equal(X, before)


def test_episodes_alone_on_their_host_have_none_to_change_places_with():
    windows = windows_of("val", {"alder": {"none": 1}, "birch": {"none": 1}})
    with pytest.raises(NotMeasurable, match="no host has two"):
        permutation_importance(windows, np.zeros((22, 1)), {}, lambda X: X, NAME, ORIGIN)


def test_leaving_out_the_source_that_tells_costs_and_another_does_not():
    train, val = (windows_of(part, TWO_HOSTS) for part in ("train", "val"))
    for windows in (train, val):
        tell(windows, "proc.wchar", windows.y)
    rows = leave_one_out(train, val, "realistic", BOOSTER, ORIGIN)
    change = {row["key"]: row for row in rows if row["metric"] == "macro_f1_change"}
    assert change.keys() == {"without/proc", "without/qmp", "without/netflow"}
    assert change["without/proc"]["high"] < -0.3
    assert change["without/qmp"]["estimate"] > -0.2
    assert len(columns_at([channel("proc.wchar")])) == 6


def test_without_val_nothing_is_judged():
    train = windows_of("train", TWO_HOSTS)
    with pytest.raises(NotMeasurable, match="no val"):
        leave_one_out(train, windows_of("val", {}), "realistic", BOOSTER, ORIGIN)
