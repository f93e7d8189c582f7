"""A batch that is written and read in pieces is the batch."""

import os
import subprocess
import sys

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from cis490.episodes.telemetry import TABLES, read, read_pieces, write
from tests.builders import START, lines, members_of, source_rows
from tests.windows.test_build import decode

FLOAT, NULL = {"minflt": 0.5}, {"minflt": None}
ONE_AT_A_TIME = 1


def with_proc(tmp_path, episode_id, change, **options):
    """An episode in whose proc rows some values are others."""
    rows = [row | change for row in source_rows("proc", 10, 20.0)]
    members = members_of(episode_id, **options) | {"proc.jsonl": lines(rows)}
    return decode(tmp_path, episode_id, members=members)


@pytest.fixture
def episodes(tmp_path):
    """Whole numbers, floats, nulls, no netflow, and one that is larger than several others."""
    return [
        decode(tmp_path, "whole", load=3),
        with_proc(tmp_path, "float", FLOAT),
        decode(tmp_path, "degraded", netflow=False),
        with_proc(tmp_path, "null", NULL, netflow=False),
        decode(tmp_path, "long", duration_s=90.0),
        decode(tmp_path, "last"),
    ]


def names(folder):
    return {path.name for path in folder.iterdir()}


def written(folder, episodes, **options):
    write(folder, iter(episodes), **options)
    assert names(folder) == {f"{table}.parquet" for table in TABLES}
    return read(folder)


def assert_same(frames, expected):
    assert frames.keys() == expected.keys()
    for table in expected:
        assert_frame_equal(frames[table], expected[table])  # dtypes too


@pytest.mark.parametrize("share", [0.0, 0.3, 0.5])
def test_tables_written_in_pieces_are_those_written_at_once(tmp_path, episodes, share):
    whole = written(tmp_path / "whole", episodes)
    total = sum(episode.header["held_bytes"] for episode in episodes)
    pieces = written(tmp_path / "pieces", episodes, most_bytes=int(share * total))
    assert_same(pieces, whole)
    assert whole["proc"]["minflt"].dtype == pl.Float64
    assert whole["proc"]["utime_ticks"].dtype == pl.Int64


@pytest.mark.parametrize("first", [FLOAT, NULL])
def test_a_channel_has_one_type_whatever_the_first_piece_holds(tmp_path, first):
    episodes = [with_proc(tmp_path, "first", first), decode(tmp_path, "second")]
    whole = written(tmp_path / "whole", episodes)
    assert_same(written(tmp_path / "pieces", episodes, most_bytes=ONE_AT_A_TIME), whole)
    expected = pl.Float64 if first is FLOAT else pl.Int64
    assert whole["proc"]["minflt"].dtype == expected


def test_whole_numbers_beside_fractions_of_another_piece_become_the_nearest_floats(tmp_path):
    episodes = [with_proc(tmp_path, "a", {"minflt": 2**53 + 1}), with_proc(tmp_path, "b", FLOAT)]
    whole = written(tmp_path / "whole", episodes)
    assert_same(written(tmp_path / "pieces", episodes, most_bytes=ONE_AT_A_TIME), whole)


@pytest.mark.parametrize("most_bytes", [ONE_AT_A_TIME, 10**9])
def test_an_empty_batch_has_empty_tables_of_the_usual_columns(tmp_path, episodes, most_bytes):
    whole = written(tmp_path / "whole", episodes)
    empty = written(tmp_path / "empty", [], most_bytes=most_bytes)
    for table, frame in empty.items():
        assert frame.height == 0
        assert frame.columns == whole[table].columns
    (piece,) = read_pieces(tmp_path / "empty", most_bytes)
    assert_same(piece, empty)


def test_tables_that_are_empty_in_every_piece_are_there(tmp_path):
    episodes = [decode(tmp_path, f"e{i}", netflow=False) for i in range(3)]
    frames = written(tmp_path / "out", episodes, most_bytes=ONE_AT_A_TIME)
    assert frames["netflow"].height == frames["exec"].height == 0
    assert frames["episodes"].height == 3
    for piece in read_pieces(tmp_path / "out", ONE_AT_A_TIME):
        assert piece["netflow"].schema == frames["netflow"].schema


@pytest.mark.parametrize("share", [0.0, 0.3, 0.5, 1.0])
def test_pieces_hold_each_episode_once_with_positions_of_their_own(tmp_path, episodes, share):
    whole = written(tmp_path / "out", episodes)
    sizes = whole["episodes"]["held_bytes"].to_list()
    most = int(share * sum(sizes))
    first = 0
    found = {table: [] for table in TABLES}
    for piece in read_pieces(tmp_path / "out", most):
        n = piece["episodes"].height
        held = piece["episodes"]["held_bytes"].sum()
        assert held <= most or n == 1
        if first + n < len(sizes):  # and no smaller than need be
            assert held + sizes[first + n] > most
        for table, frame in piece.items():
            if table != "episodes":
                assert frame["episode"].is_between(0, n - 1).all()
                frame = frame.with_columns(pl.col("episode") + first)
            found[table].append(frame)
        first += n
    assert_same({table: pl.concat(frames) for table, frames in found.items()}, whole)


def broken(episodes):
    yield from episodes
    raise RuntimeError("no more")


@pytest.mark.parametrize("n", [0, 1, 3])
def test_nothing_is_left_of_a_batch_that_could_not_be_read_to_its_end(tmp_path, episodes, n):
    with pytest.raises(RuntimeError, match="no more"):
        write(tmp_path / "out", broken(episodes[:n]), ONE_AT_A_TIME)
    assert names(tmp_path / "out") == set()


def test_the_pieces_of_a_killed_writer_go_and_those_of_a_live_one_stay(tmp_path, episodes):
    code = """
import os, signal, sys
from cis490.files import scratch
with scratch(sys.argv[1]) as folder:
    (folder / "piece").write_text("some")
    os.kill(os.getpid(), signal.SIGKILL)
"""
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "out")], check=False)
    (left,) = names(tmp_path / "out")
    live = left.replace(left.split(".")[2], str(os.getppid()))
    (tmp_path / "out" / live).mkdir()
    write(tmp_path / "out", episodes, ONE_AT_A_TIME)
    assert names(tmp_path / "out") == {live, *(f"{table}.parquet" for table in TABLES)}


def test_long_text_weighs_what_it_is(tmp_path):
    row = {"t_wall_ns": START, "t_mono_ns": 0, "event": "start", "cmdline": "x" * 100_000}
    short = decode(tmp_path, "short")
    long = decode(tmp_path, "long", members=members_of("long") | {"exec.jsonl": lines([row] * 20)})
    assert long.header["held_bytes"] - short.header["held_bytes"] > 2_000_000
    whole = written(tmp_path / "whole", [short, long, long])
    assert_same(written(tmp_path / "out", [short, long, long], most_bytes=2_500_000), whole)
