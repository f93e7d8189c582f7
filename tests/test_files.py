import json
import os

import numpy as np
import pytest

from cis490 import files
from cis490.errors import FormatError


def test_a_failure_leaves_the_old_file_and_no_litter(tmp_path):
    target = tmp_path / "a/b.txt"
    files.write_text(target, "old")

    def fail():
        with files.replacing(target) as partial:
            partial.write_text("half")
            raise RuntimeError("on the way")

    with pytest.raises(RuntimeError, match="on the way"):
        fail()
    assert target.read_text() == "old"
    assert list(target.parent.iterdir()) == [target]


def test_what_a_killed_writer_left_is_removed_by_the_next(tmp_path):
    (tmp_path / ".x.json.4711.partial").write_text("half")
    (tmp_path / ".other.json.4711.partial").write_text("half")
    files.write_text(tmp_path / "x.json", "whole")
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        ".other.json.4711.partial",
        "x.json",
    ]


def test_writing_the_same_again_leaves_the_file_alone(tmp_path):
    path = tmp_path / "x.json"
    assert files.write_if_changed(path, "1")
    before = path.stat().st_mtime_ns
    assert not files.write_if_changed(path, "1")
    assert path.stat().st_mtime_ns == before
    assert files.write_if_changed(path, "2")


def test_json_is_strict_sorted_and_knows_numpy(tmp_path):
    value = {
        "b": np.float32(1.5),
        "a": [np.nan, float("inf"), np.int64(3)],
        "c": np.arange(2),
        "d": tmp_path,
        "e": {"z", "y"},
    }
    text = files.to_json(value)
    assert text == files.to_json(dict(reversed(value.items())))
    assert json.loads(text, parse_constant=pytest.fail) == {
        "a": [None, None, 3],
        "b": 1.5,
        "c": [0, 1],
        "d": str(tmp_path),
        "e": ["y", "z"],
    }
    with pytest.raises(TypeError):
        files.to_json({"f": object()})


def test_the_half_written_file_of_a_live_writer_is_left_alone(tmp_path):
    (tmp_path / f".x.json.{os.getpid()}.partial").write_text("half")
    with files.replacing(tmp_path / "x.json") as partial:
        assert partial.exists()
        partial.write_text("whole")
    (tmp_path / f".y.json.{os.getppid()}.partial").write_text("half")
    files.write_text(tmp_path / "y.json", "whole")
    assert (tmp_path / f".y.json.{os.getppid()}.partial").exists()


def test_a_damaged_parquet_file_is_named_with_what_to_do(tmp_path):
    path = tmp_path / "features.parquet"
    path.write_bytes(b"PAR1 not really")
    with pytest.raises(FormatError, match=r"features\.parquet cannot be read .* run the workflow"):
        files.read_parquet(path)
    with pytest.raises(FormatError, match=r"features\.parquet"):
        files.read_parquet_metadata(path)
