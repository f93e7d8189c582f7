import numpy as np

from cis490.probes.window_split import split_by_window
from tests.probes.world import BOOSTER, ORIGIN, TWO_HOSTS, windows_of


def test_what_is_known_of_an_episode_flatters_a_split_by_window_alone():
    windows = windows_of("train", TWO_HOSTS)
    # Every feature marks the episode and the place in it, and says nothing of another episode.
    assert windows.X is not None
    windows.X[:] += 50 * np.arange(len(windows))[:, None]
    by_episode, by_window, flattery = split_by_window(windows, BOOSTER, ORIGIN)
    assert (by_episode["key"], by_window["key"]) == ("split_by_episode", "split_by_window")
    assert flattery["low"] > 0
    gap = by_window["estimate"] - by_episode["estimate"]
    assert abs(flattery["estimate"] - gap) < 1e-12
