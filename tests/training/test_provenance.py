import json
import subprocess
import time
from dataclasses import replace

import numpy as np
import polars as pl
import pytest
import torch

from cis490 import files
from cis490.models.views import CodedSeries, WindowView
from cis490.training import provenance
from cis490.training.data import Cases
from cis490.training.provenance import Timer, commit, data_sha256


def windows():
    series = CodedSeries(
        codes=np.arange(40, dtype=np.int16).reshape(20, 2),
        offset=np.array([0, 10, 20]),
        scale=np.ones((2, 2), np.float32),
        base=np.zeros((2, 2), np.float32),
    )
    ends = np.array([0, 10]), np.array([5, 15])
    return cases(WindowView(series, np.array([0, 10]), 5, 2, *ends, np.zeros(20, np.int8)))


def cases(X):
    ids = ["a", "b"]
    rows = pl.DataFrame({"episode_id": ids, "window": [0, 0], "phase": ["clean", "armed"]})
    return Cases(rows, X, np.array([0, 1]))


def with_series(case, **changes):
    return replace(case, X=replace(case.X, series=replace(case.X.series, **changes)))


def test_the_same_data_has_the_same_hash_however_it_lies_in_memory():
    assert data_sha256(windows()) == data_sha256(windows())
    X = np.arange(6, dtype=np.float32).reshape(2, 3)
    assert data_sha256(cases(X)) == data_sha256(cases(np.asfortranarray(X)))
    assert data_sha256(cases(X)) == data_sha256(cases(X.astype(">f4")))


@pytest.mark.parametrize(
    "change",
    [
        lambda c: with_series(c, codes=c.X.series.codes + np.eye(20, 2, dtype=np.int16)),
        lambda c: with_series(c, scale=c.X.series.scale * 2),
        lambda c: with_series(c, base=c.X.series.base - 1),
        lambda c: replace(c, X=replace(c.X, start=c.X.start + 1)),
        lambda c: replace(c, X=replace(c.X, length=4)),
        lambda c: replace(c, X=replace(c.X, jitter=1)),
        lambda c: replace(c, X=replace(c.X, step_label=np.ones(20, np.int8))),
        lambda c: replace(c, y=c.y[::-1]),
        lambda c: replace(c, rows=c.rows.with_columns(episode_id=pl.Series(["a", "c"]))),
    ],
)
def test_whatever_a_model_sees_counts_in_the_hash_of_the_data(change):
    assert data_sha256(change(windows())) != data_sha256(windows())


def test_another_shape_of_the_same_bytes_is_other_data():
    X = np.zeros((2, 6), np.float32)
    assert data_sha256(cases(X)) != data_sha256(cases(X.reshape(2, 3, 2)))
    assert data_sha256(cases(X[:0])) != data_sha256(cases(X))


@pytest.fixture
def repository(tmp_path):
    def git(*words):
        own = ["-c", "user.name=n", "-c", "user.email=e", "-c", "init.defaultBranch=main"]
        subprocess.run(["git", "-C", tmp_path, *own, *words], check=True, capture_output=True)

    package = tmp_path / "package"
    package.mkdir()
    (package / "__init__.py").write_text("x = 1\n")
    git("init")
    git("add", ".")
    git("commit", "-m", "first")
    git("tag", "v1")
    return package


def test_the_commit_is_told_and_whether_the_code_was_changed_since(repository):
    clean = commit(repository)
    assert len(clean) == 40
    assert int(clean, 16)
    (repository / "__init__.py").write_text("x = 2\n")
    assert commit(repository) == f"{clean}-dirty"


def test_a_package_that_the_repository_around_it_does_not_know_has_no_commit(repository):
    installed = repository / ".venv/package"
    installed.mkdir(parents=True)
    (installed / "__init__.py").write_text("")
    assert commit(installed) is None


def test_without_git_there_is_no_commit_and_no_error(repository, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert commit(repository) is None


def test_phases_are_timed_and_add_up_also_if_one_raises():
    timer = Timer()
    with timer.phase("load"):
        time.sleep(0.02)
    with pytest.raises(ZeroDivisionError), timer.phase("seed 42"):
        1 / 0  # noqa: B018
    first = timer.phases["load"]["wall_s"]
    with timer.phase("load"):
        time.sleep(0.02)
    assert list(timer.phases) == ["load", "seed 42"]
    assert first >= 0.02
    assert timer.phases["load"]["wall_s"] >= first + 0.02
    assert timer.phases["load"]["cpu_s"] < 0.02  # asleep


def test_an_xgboost_of_either_name_is_found_and_what_is_absent_is_none(monkeypatch):
    monkeypatch.setattr(provenance, "_version", {"xgboost-cpu": "3.2.0", "torch": "2.13"}.get)
    found = provenance.versions()
    assert (found["xgboost"], found["torch"], found["scipy"]) == ("3.2.0", "2.13", None)


def test_the_file_tells_all_and_is_json(tmp_path, caplog):
    timer = Timer()
    with timer.phase("load"):
        pass
    told = provenance.provenance(
        data={"train": "1" * 64, "val": "2" * 64},
        fit_sha256="f" * 64,
        schema_sha256="5" * 64,
        code="c0de",
        settings={"epochs": 3},
        seeds=[42, 7],
        device="cpu",
        timer=timer,
    )
    files.write_json(tmp_path / "training_metadata.json", told)
    read = json.loads((tmp_path / "training_metadata.json").read_text())
    assert read["data"] == {"train": "1" * 64, "val": "2" * 64}
    assert (read["split"], read["schema"]) == ("f" * 64, "5" * 64)
    assert (read["settings"], read["seeds"]) == ({"epochs": 3}, [42, 7])
    assert read["hardware"]["gpu"] is None
    assert read["versions"]["torch"] == torch.__version__
    assert read["timings"] == timer.phases
    assert read["peak_memory"]["process_bytes"] > 2**20
    assert read["code"]["sha256"] == "c0de"
    assert not caplog.records
