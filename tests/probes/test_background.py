import json

import numpy as np
import polars as pl
import pytest

from cis490.files import write_parquet
from cis490.probes.background import read_changes, score_by_presence, score_changes
from cis490.probes.data import NotMeasurable
from cis490.probes.tables import Name
from tests.probes.world import ORIGIN, SCHEMA, SECOND, WALL, exec_table, windows_of

NAME = Name("test", "", "cnn", "realistic", (1,), "c4ec")
TWO_SEEDS = NAME._replace(seeds=(1, 2))
CONTROLS = {"birch": {"none": 3}}


def read(folder, looks, labels=((0, "clean"),), meta="{}"):
    """Changes of one episode of a minute; `looks` are (seconds, event, pid, ppid)."""
    times = {"started_wall_ns": [WALL], "ended_wall_ns": [WALL + 60 * SECOND]}
    known = pl.DataFrame({"episode_id": ["e"], **times, "meta": [meta]})
    write_parquet(folder / "episodes.parquet", known)
    table = [(0, WALL + int(t * SECOND), phase) for t, phase in labels]
    schema = {"episode": pl.UInt32, "t_wall_ns": pl.Int64, "phase": pl.String}
    write_parquet(folder / "labels.parquet", pl.DataFrame(table, schema=schema, orient="row"))
    rows = [(0, WALL + int(t * SECOND), event, pid, ppid, "sh") for t, event, pid, ppid in looks]
    write_parquet(folder / "exec.parquet", exec_table(rows))
    paths = [[folder / f"{name}.parquet"] for name in ("episodes", "labels", "exec")]
    return read_changes(*paths)


FIRST = [(2, "snapshot", 5, 1), (2, "snapshot", 11, 10), (2, "snapshot", 12, 11)]


def test_a_job_is_a_child_of_the_launcher_and_of_no_other(tmp_path):
    looks = [*FIRST, (4, "start", 13, 11), (8, "start", 14, 10), (9, "start", 15, 1)]
    looks += [(12, "exit", 11, 10), (12, "exit", 13, 11), (14, "start", 16, 77)]
    rows = read(tmp_path, looks).rows()
    assert rows == [("e", "start", 4.0, 8.0, float("inf")), ("e", "exit", 9.0, 12.0, float("inf"))]


def test_changes_after_clean_time_are_not_benign_for_sure(tmp_path):
    looks = [*FIRST, (8, "start", 14, 10), (20, "start", 15, 10), (22, "exit", 14, 10)]
    labels = [(0, "clean"), (18.5, "armed"), (30, "infecting")]
    assert read(tmp_path, looks, labels).rows() == [("e", "start", 2.0, 8.0, 18.5)]


def test_jobs_that_an_episode_tells_itself_count_and_not_what_exec_saw(tmp_path):
    looks = [*FIRST, (8, "start", 14, 10), (12, "exit", 11, 10)]
    jobs = [
        {"name": "backup", "start_s": -3.0, "stop_s": 20.5},
        {"name": "build", "start_s": 12.25, "stop_s": None},
        {"name": "sync", "start_s": 31.0, "stop_s": 70.0},
    ]
    labels = [(0, "clean"), (30, "armed")]
    rows = read(tmp_path, looks, labels, json.dumps({"jobs": jobs})).rows()
    assert rows == [("e", "start", 12.25, 12.25, 30.0), ("e", "exit", 20.5, 20.5, 30.0)]
    assert read(tmp_path, looks, labels, '{"jobs": []}').is_empty()
    assert len(read(tmp_path, looks, labels, '{"jobs": 3}')) == 2


def test_an_episode_without_exec_tells_of_no_change(tmp_path):
    assert read(tmp_path, []).is_empty()


def changes_of(windows, at_s, event="start", until=float("inf")):
    ids = windows.episodes["episode_id"].to_list()
    rows = [(name, event, at_s - 2.0, at_s, until) for name in ids]
    names = ["episode_id", "event", "after_s", "at_s", "clean_until_s"]
    return pl.DataFrame(rows, schema=names, orient="row")


def test_a_change_is_held_against_the_last_window_before_it():
    windows = windows_of("test", CONTROLS)
    place = windows.frame["window"].to_numpy()
    # Window k covers [5k, 5k + 10). The change lies in (22, 24]: the last before it is window 2,
    # it falls in 3 and 4, and the first after it is 5.
    score = np.stack(
        [np.where(place == 5, 0.9, np.where((place == 3) | (place == 4), 0.5, 0.2))] * 2
    )
    score[1] += 0.05 * (place == 5)
    rows = score_changes(windows, score, changes_of(windows, 24.0), SCHEMA, TWO_SEEDS, ORIGIN)
    told = {row["metric"]: row for row in rows}
    assert told["score_change_within"]["estimate"] == pytest.approx(0.3)
    assert told["score_change_after"]["estimate"] == pytest.approx(0.725)
    assert {row["key"] for row in rows} == {"background_starts"}
    assert told["score_change_within"]["n_windows"] == 9
    assert told["score_change_after"]["n_windows"] == 6
    assert {row["n_episodes"] for row in rows} == {3}
    assert rows[0]["signature"].endswith("|changes=3")


def test_a_window_that_reaches_beyond_clean_time_does_not_count():
    windows = windows_of("test", CONTROLS)
    changes = changes_of(windows, 24.0, "exit", until=34.0)
    score = np.zeros((1, len(windows)))
    (row,) = score_changes(windows, score, changes, SCHEMA, NAME, ORIGIN)
    assert (row["key"], row["metric"]) == ("background_stops", "score_change_within")


def test_the_interval_is_of_episodes_not_of_changes():
    windows = windows_of("test", {"birch": {"none": 12}})
    place, level = windows.frame["window"].to_numpy(), windows.unit % 2
    score = np.where(place >= 4, 0.2 + 0.6 * level, 0.2)[None]
    one = changes_of(windows, 24.0)
    rows = score_changes(windows, score, one, SCHEMA, NAME, ORIGIN)
    twice = score_changes(windows, score, pl.concat([one, one]), SCHEMA, NAME, ORIGIN)
    ends = [
        [(row["estimate"], row["low"], row["high"]) for row in found] for found in (rows, twice)
    ]
    np.testing.assert_allclose(ends[0], ends[1])
    assert rows[-1]["low"] < 0.3 < rows[-1]["high"]


def test_changes_that_no_two_windows_tell_are_not_measurable():
    windows = windows_of("test", CONTROLS)
    with pytest.raises(NotMeasurable, match="of 3 starts and stops"):
        score_changes(
            windows,
            np.zeros((1, len(windows))),
            changes_of(windows, 4.0),
            SCHEMA,
            NAME,
            ORIGIN,
        )


def test_the_stand_in_holds_episodes_with_work_against_those_without():
    windows = windows_of("test", {"birch": {"none": 6}})
    ids = windows.episodes["episode_id"].to_list()
    works = pl.DataFrame(
        {"episode_id": ids, "background": [["a"], [], ["a", "b"], [], None, ["a"]]},
        schema={"episode_id": pl.String, "background": pl.List(pl.String)},
    )
    score = np.where(np.isin(windows.unit, [0, 2, 5]), 0.7, 0.1)[None]
    score[:, windows.unit == 4] = 1.0
    (row,) = score_by_presence(windows, score, works, NAME, ORIGIN)
    assert row["estimate"] == pytest.approx(0.6)
    assert (row["key"], row["n_episodes"], row["n_windows"]) == ("background_present", 5, 55)
    with pytest.raises(NotMeasurable, match="without benign work"):
        score_by_presence(windows, score, works[[0, 2, 5]], NAME, ORIGIN)
