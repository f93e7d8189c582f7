import json
import math
import os
import subprocess
import sys
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta, timezone
from enum import Enum
from pathlib import Path
from types import MappingProxyType

import numpy as np
import pytest
import torch

from cis490 import files
from cis490.errors import FormatError
from tests.conftest import ROOT


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


class Colour(Enum):
    RED = "red"


@dataclass
class Run:
    loss: float
    folder: Path


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (np.float64(0.1), 0.1),
        (np.bool_(True), True),
        (np.array(3, np.uint8), 3),
        (np.array([[1.5], [2]], np.float16), [[1.5], [2.0]]),
        (torch.tensor(0.5, dtype=torch.bfloat16), 0.5),
        (torch.tensor([1.0, 2.0], dtype=torch.bfloat16, requires_grad=True), [1.0, 2.0]),
        (torch.tensor([True]), [True]),
        (date(2026, 1, 2), "2026-01-02"),
        (datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC), "2026-01-02T03:04:05Z"),
        (datetime(2026, 1, 2, 3, tzinfo=timezone(timedelta(hours=2))), "2026-01-02T03:00:00+02:00"),
        (Colour.RED, "red"),
        (Run(0.5, Path("a/b")), {"loss": 0.5, "folder": "a/b"}),
        (MappingProxyType({"a": (1, 2)}), {"a": [1, 2]}),
        (2**53 + 1, 2**53 + 1),
        (-(10**30), -(10**30)),
    ],
)
def test_json_has_a_form_for_what_programs_hold(value, expected):
    assert json.loads(files.to_json({"x": value})) == {"x": expected}


@pytest.mark.parametrize(
    "value", [{1: 2}, {"a": {None: 1}}, {np.int64(3): 1}, {Colour.RED: 1}, 1j, np.array([1j])]
)
def test_what_has_no_json_form_is_refused(value):
    with pytest.raises(TypeError):
        files.to_json(value)


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (float("nan"), "the value: NaN"),
        ({"seeds": [{"val_loss": math.nan, "reason": None}]}, "seeds.0.val_loss: NaN"),
        ({"b": [1.0, -math.inf], "a": np.float32(math.inf)}, "a: Infinity; b.1: -Infinity"),
        ({"a": torch.tensor([[0.0, math.nan]])}, "a.0.1: NaN"),
        ({"run": Run(math.nan, Path("x"))}, "run.loss: NaN"),
        ([math.nan] * 1005, "0: NaN; 1: NaN; 2: NaN; 3: NaN; 4: NaN and 1,000 more"),
    ],
)
def test_a_number_that_becomes_null_is_reported_with_its_place(value, said, tmp_path, caplog):
    path = tmp_path / "x.json"
    files.write_json(path, value)
    json.loads(path.read_text(), parse_constant=pytest.fail)
    assert [(r.levelname, r.getMessage()) for r in caplog.records] == [
        ("WARNING", f"{path}: {said} written as null")
    ]


def test_a_null_that_was_one_is_not_reported(caplog):
    files.to_json({"reason": None, "text": "null", "loss": 1.0})
    assert not caplog.records


def test_compact_json_is_one_line_of_the_same_content():
    value = {"b": [1, 2.5], "a": "µ"}
    assert files.to_compact_json(value) == '{"a":"µ","b":[1,2.5]}'
    assert json.loads(files.to_json(value)) == value


@pytest.mark.parametrize("call", ["json.dump(1, file)", "json.dumps(1)"])
def test_the_linter_keeps_plain_json_out_of_the_package(call):
    code = f"import json\n\nfile = open('x')  # noqa\n{call}\n"
    command = [sys.executable, "-m", "ruff", "check", "--no-cache", "--stdin-filename"]
    command += ["src/cis490/new.py", "-"]
    done = subprocess.run(command, input=code, text=True, capture_output=True, cwd=ROOT)
    assert "TID251" in done.stdout
    assert "use cis490.files.write_json" in done.stdout


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


@pytest.mark.parametrize("content", [b"", b'{"a": ', b"\xff\xfe"])
def test_a_damaged_json_file_is_named_with_what_to_do(content, tmp_path):
    (tmp_path / "split.json").write_bytes(content)
    with pytest.raises(FormatError, match=r"split\.json is damaged: .*; delete it"):
        files.read_json(tmp_path / "split.json")
