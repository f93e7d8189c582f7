from dataclasses import fields

import numpy as np
import pytest

from cis490.channels import CHANNELS, channel_index
from cis490.probes.data import NotMeasurable, columns_at, draw, folds, of_mode, told_of
from cis490.schema import feature_names
from cis490.training.data import columns_of
from tests.probes.world import TWO_HOSTS, channel, hide, windows_of

MANY = {"alder": {"io-walk": 40, "none": 20}}


def test_a_large_part_is_drawn_by_whole_episodes_and_a_small_one_kept():
    frame = windows_of("train", MANY).frame
    drawn = draw(frame, 100)
    assert len(drawn) == 99
    assert (drawn["episode_id"].value_counts()["count"] == 11).all()
    assert drawn["profile"].n_unique() == 2
    assert draw(frame, len(frame)).equals(frame)
    assert draw(frame, 1)["episode_id"].n_unique() == 1


def test_a_draw_stays_when_episodes_are_added():
    frame = windows_of("train", MANY).frame
    half = frame.filter(frame["episode_id"].str.ends_with("0") | (frame["profile"] == "none"))
    kept = set(draw(frame, 200)["episode_id"])
    assert kept & set(half["episode_id"]) <= set(draw(half, 200)["episode_id"])


def test_the_columns_of_a_mode_are_its_features():
    names = np.array(feature_names("oracle"))
    kept = of_mode("realistic")
    assert names[kept].tolist() == feature_names("realistic")
    ours, theirs = told_of(kept), columns_of("realistic", tabular=True)
    np.testing.assert_array_equal(ours.log, theirs.log)
    np.testing.assert_array_equal(ours.absent, theirs.absent)
    assert ours.groups == theirs.groups
    np.testing.assert_array_equal(ours.scaled, theirs.scaled)
    assert [f.name for f in fields(ours)] == ["log", "absent", "channel", "groups", "scaled"]


def test_leaving_out_a_source_leaves_out_its_channels_alone():
    names = np.array(feature_names("oracle"))
    left = names[of_mode("oracle", without="netflow")].tolist()
    assert left == [name for name in names if not name.startswith("netflow.")]


def test_a_channel_shows_where_it_has_a_value():
    windows = windows_of("train", TWO_HOSTS)
    chosen = windows.unit == 2
    hide(windows, "proc.wchar", chosen)
    np.testing.assert_array_equal(windows.shows(channel("proc.wchar")), ~chosen)
    assert windows.shows(channel("proc.rchar")).all()
    assert len(columns_at([channel("proc.wchar")])) * len(CHANNELS) == len(feature_names("oracle"))
    assert len(channel_index("realistic")) < len(CHANNELS)


def test_folds_are_of_equal_size_within_hosts_and_profiles():
    episodes = windows_of("train", {"alder": {"none": 10}, "birch": {"none": 5}}).episodes
    fold = folds(episodes, 5)
    assert np.bincount(fold).tolist() == [3] * 5
    assert np.bincount(fold[(episodes["host_id"] == "birch").to_numpy()]).tolist() == [1] * 5
    with pytest.raises(NotMeasurable, match="takes 5 episodes, there are 4"):
        folds(episodes[:4], 5)
