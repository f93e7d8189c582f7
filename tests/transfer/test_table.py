"""transfer.parquet: both sides on the same windows, differences paired, what failed told."""

import json

import numpy as np
import polars as pl
import pytest
from sklearn.metrics import f1_score

from cis490 import files
from cis490.channels import PHASES
from cis490.errors import FormatError
from cis490.transfer.predict import TRANSFER_SCHEMA
from cis490.transfer.table import tabulate

HOSTS = ("alder", "birch")
OK = {"fold": 0, "status": "ok", "reason": None, "n_episodes": {"train": 9}}


def side(name, skill, seed, hosts=HOSTS):
    """Eight episodes a host of eleven windows; right with probability `skill[host]`."""
    rng = np.random.default_rng(seed)
    rows = []
    for host in hosts:
        for i in range(8):
            profile = "none" if i % 4 == 3 else "io-walk"
            for window in range(11):
                true = "clean" if profile == "none" else PHASES[min(window // 2, 4)]
                right = rng.random() < skill[host]
                said = true if right else PHASES[int(rng.integers(5))]
                p = [0.6 if phase == said else 0.1 for phase in PHASES]
                rows.append((f"{host}{i}", window, "test", 42, true, *p, 0, name, host, profile))
    return pl.DataFrame(rows, TRANSFER_SCHEMA, orient="row")


def written(tmp_path, sides, *, name="gbt_realistic", split="s", entries=(OK,)):
    """The files of a model, one a side."""
    architecture, mode = name.rsplit("_", 1)
    frame = pl.concat([pl.DataFrame(schema=TRANSFER_SCHEMA), *sides])
    paths = []
    for side in ("in_host", "cross_host"):
        told = {
            **{"architecture": architecture, "mode": mode, "seed": "42", "episodes_sha256": split},
            **{"n_drawn": "16", "n_usable": "20", "side": side},
            "folds": json.dumps(list(entries)),
        }
        paths.append(tmp_path / side / f"{name}.parquet")
        files.write_parquet(paths[-1], frame.filter(side=side), told)
    return paths


def table(tmp_path, *models):
    paths = [path for sides in models for path in sides]
    files.write_json(tmp_path / "split.json", {"name": "host", "sha256": "c0ffee" * 10})
    out = tmp_path / "out.parquet"
    tabulate(split_json=tmp_path / "split.json", predictions=paths, replicates=400, out=out)
    return pl.read_parquet(out), files.read_parquet_metadata(out)


BOTH = [
    side("in_host", {"alder": 0.9, "birch": 0.9}, 1),
    side("cross_host", {"alder": 0.9, "birch": 0.3}, 2),
]


def test_figures_are_scikit_learns_and_the_change_is_theirs(tmp_path):
    rows, _ = table(tmp_path, written(tmp_path, BOTH))
    for key, hosts in (("alder", ["alder"]), ("birch", ["birch"]), ("all", list(HOSTS))):
        of = {}
        for name in ("in_host", "cross_host"):
            frame = pl.concat(BOTH).filter(pl.col("host_id").is_in(hosts), side=name)
            said = frame.select(f"p_{p}" for p in PHASES).to_numpy().argmax(1)
            truth = [PHASES.index(p) for p in frame["phase"]]
            of[name] = f1_score(truth, said, average="macro", zero_division=0)
            row = rows.filter(part=name, key=key, metric="macro_f1").row(0, named=True)
            assert row["estimate"] == pytest.approx(of[name], abs=1e-12)
            assert row["low"] < row["estimate"] < row["high"]
            assert row["n_episodes"] == 8 * len(hosts)
        change = rows.filter(key=key, metric="macro_f1_change").row(0, named=True)
        assert change["part"] == "cross_host"
        assert change["estimate"] == pytest.approx(of["cross_host"] - of["in_host"], abs=1e-12)
    birch = rows.filter(key="birch", metric="macro_f1_change").row(0, named=True)
    assert birch["high"] < -0.2


def test_a_difference_of_nothing_has_no_width_for_it_is_paired(tmp_path):
    same = BOTH[0].with_columns(side=pl.lit("cross_host", TRANSFER_SCHEMA["side"]))
    rows, _ = table(tmp_path, written(tmp_path, [BOTH[0], same]))
    change = rows.filter(metric="macro_f1_change")
    assert change["estimate"].to_list() == [0.0] * 3
    assert change["low"].to_list() == [0.0] * 3
    assert change["high"].to_list() == [0.0] * 3


def test_only_windows_that_every_model_predicted_on_both_sides_count(tmp_path):
    less = BOTH[1].filter(pl.col("episode_id") != "birch3")
    rows, told = table(
        tmp_path,
        written(tmp_path, BOTH),
        written(tmp_path, [BOTH[0], less], name="cnn_realistic"),
    )
    assert told["n_scored"] == "15"
    assert set(rows.filter(key="birch")["n_episodes"]) == {7}
    assert set(rows.filter(key="birch")["n_windows"]) == {77}


def test_one_host_has_an_in_host_figure_alone(tmp_path):
    rows, told = table(tmp_path, written(tmp_path, [side("in_host", {"alder": 0.9}, 1, ["alder"])]))
    assert set(rows["part"]) == {"in_host"}
    assert set(rows["metric"]) == {"macro_f1"}
    assert told["n_scored"] == "8"


def test_what_failed_is_told_and_nothing_at_all_is_an_empty_table(tmp_path):
    lost = {**OK, "status": "failed", "reason": "loss became NaN", "fold": 1}
    rows, told = table(
        tmp_path,
        written(tmp_path, BOTH, entries=(OK, lost)),
        written(tmp_path, [], name="_oracle", entries=()),
    )
    failed = json.loads(told["failed"])
    assert failed["gbt_realistic"][0] == "in_host, 1: loss became NaN"
    assert "every candidate failed" in failed["_oracle"][0]
    assert set(rows["model"]) == {"gbt"}
    rows, told = table(tmp_path, written(tmp_path, [], name="_oracle", entries=()))
    assert (len(rows), told["n_scored"]) == (0, "0")


def test_sides_that_are_not_of_one_model_are_refused(tmp_path):
    inside, across = written(tmp_path, BOTH)
    with pytest.raises(FormatError, match="not the two sides of one model"):
        table(tmp_path, [inside])
    told = files.read_parquet_metadata(across) | {"architecture": "cnn"}
    files.write_parquet(across, BOTH[1], told)
    with pytest.raises(FormatError, match="not the two sides of one model"):
        table(tmp_path, [inside, across])


def test_predictions_of_other_episodes_are_refused(tmp_path):
    paths = [written(tmp_path, BOTH), written(tmp_path, BOTH, name="cnn_oracle", split="t")]
    with pytest.raises(FormatError, match="not of the episodes"):
        table(tmp_path, *paths)
