"""Predictions of perturbed windows, and what the table says of them."""

import numpy as np
import polars as pl
import pytest
from sklearn.metrics import f1_score

from cis490 import files
from cis490.channels import CHANNELS
from cis490.errors import Cis490Error, FormatError
from cis490.evaluation.tables import METRICS_SCHEMA
from cis490.models.views import WindowView
from cis490.report.svg import to_svg
from cis490.robustness.conditions import LYING_GUEST, UNPERTURBED
from cis490.robustness.picture import best_by_val, picture
from cis490.robustness.repredict import REPREDICTED_SCHEMA, moved_windows
from cis490.training.predict import predict
from tests.robustness.conftest import make_fleet


@pytest.fixture(scope="module")
def said(fleet):
    return {
        name: fleet.repredict(*name)
        for name in (("gbt", "realistic"), ("gbt", "oracle"), ("mlp", "realistic"))
    }


@pytest.fixture(scope="module")
def table(fleet, said):
    return fleet.tabulate(list(said.values()))


def rows_of(table, metric, mode="oracle"):
    rows = table.filter(pl.col("seed").is_null(), mode=mode, metric=metric)
    return {row["key"]: row for row in rows.to_dicts()}


def test_unperturbed_windows_are_predicted_as_the_real_ones(fleet, said):
    real = fleet.root / "real.parquet"
    predict(
        model_dir=fleet.root / "models/gbt_oracle",
        schema_file=fleet.root / "schema.json",
        split_file=fleet.root / "split.parquet",
        features=[fleet.root / "features/birch-00000.parquet"],
        tensors=[fleet.root / "tensors/birch-00000.safetensors"],
        config={"training": {"device": "cpu"}},
        out=real,
        latency_out=fleet.root / "latency.json",
    )
    theirs = files.read_parquet(real)
    names = [name for name in theirs.columns if name.startswith("p_")]
    theirs_said = [names[i][2:] for i in theirs.select(names).to_numpy().argmax(1)]
    ours = files.read_parquet(said["gbt", "oracle"]).filter(condition=UNPERTURBED)
    assert ours["predicted"].cast(pl.String).to_list() == theirs_said
    assert ours["seed"].to_list() == theirs["seed"].to_list()


def test_every_seed_predicts_every_window_under_every_condition(fleet, said):
    frame = files.read_parquet(said["gbt", "realistic"])
    assert frame.schema == pl.Schema(REPREDICTED_SCHEMA)
    counts = frame.group_by("condition", "seed", maintain_order=True).len()
    assert counts.select("condition", "seed").rows() == [
        (condition.name, seed) for condition in fleet.conditions for seed in (1, 2)
    ]
    assert counts["len"].n_unique() == 1


def test_when_the_guest_lies_realistic_inputs_stay_and_oracle_inputs_move(said):
    lie = pl.col("condition") == LYING_GUEST
    assert not files.read_parquet(said["gbt", "realistic"]).filter(lie)["moved"].any()
    assert files.read_parquet(said["gbt", "oracle"]).filter(lie)["moved"].any()


def test_a_realistic_model_that_hears_the_guest_is_an_error(fleet):
    """As if what the guest says reached the inputs of a mode that must not see it."""
    lie = fleet.root / "perturbed/features/lying_guest.parquet"
    frame, metadata = files.read_parquet(lie), files.read_parquet_metadata(lie)
    trusted = next(c for c in CHANNELS if c.trust == "host")
    files.write_parquet(
        lie,
        frame.with_columns(pl.col(f"{trusted.key}.mean") + 1),
        {"schema_sha256": metadata["schema_sha256"]},
    )
    try:
        with pytest.raises(Cis490Error, match=r"realistic: \d+ windows moved with what the guest"):
            fleet.repredict("gbt", "realistic")
    finally:
        files.write_parquet(lie, frame, {"schema_sha256": metadata["schema_sha256"]})


def test_moved_windows_are_those_with_another_bit():
    x = np.random.default_rng(0).normal(size=(5, 3, 4)).astype(np.float32)
    x[1, 0, 0] = np.nan
    y = x.copy()
    y[3, 2, 1] = np.nextafter(y[3, 2, 1], np.float32(9))
    assert moved_windows(x, y).tolist() == [False, False, False, True, False]
    views = WindowView.from_array(x), WindowView.from_array(y)
    assert moved_windows(*views).tolist() == [False, False, False, True, False]


def test_macro_f1_is_the_mean_of_the_seeds_and_its_change_is_against_the_unperturbed(said, table):
    frame = files.read_parquet(said["gbt", "oracle"])
    labels = frame["phase"].unique().cast(pl.String).to_list()
    means = {}
    for (condition,), rows in frame.partition_by("condition", as_dict=True).items():
        scores = [
            f1_score(
                of_seed["phase"].cast(pl.String).to_list(),
                of_seed["predicted"].cast(pl.String).to_list(),
                labels=labels,
                average="macro",
                zero_division=0,
            )
            for of_seed in rows.partition_by("seed")
        ]
        means[condition] = np.mean(scores)
    figures, changes = rows_of(table, "macro_f1"), rows_of(table, "macro_f1_change")
    for condition in figures.keys() - {"without_netflow"}:
        assert figures[condition]["estimate"] == pytest.approx(means[condition], abs=1e-9)
    for condition in changes.keys() - {"without_netflow"}:
        diff = means[condition] - means[UNPERTURBED]
        assert changes[condition]["estimate"] == pytest.approx(diff, abs=1e-9)
        assert changes[condition]["low"] <= diff + 1e-9
        assert diff - 1e-9 <= changes[condition]["high"]
    assert UNPERTURBED not in changes


def test_the_table_has_the_columns_of_the_metrics_and_says_how_many_were_drawn(fleet, table):
    assert table.schema == METRICS_SCHEMA
    assert set(table["scope"]) == {"robustness"}
    assert set(table["key"]) == {condition.name for condition in fleet.conditions}
    assert table["signature"].str.ends_with("|drawn=6/6").all()
    assert set(table["model"]) == {"gbt"}  # the other has no seed that was trained


def test_a_condition_that_changes_no_episode_is_not_measurable(fleet, table):
    for mode in ("realistic", "oracle"):
        for metric in ("macro_f1", "macro_f1_change"):
            row = rows_of(table, metric, mode)["without_netflow"]
            assert (row["estimate"], row["low"], row["high"]) == (None, None, None)
            assert "not measurable" in row["signature"]
        assert rows_of(table, "inputs_moved", mode)["without_netflow"]["estimate"] == 0
    told = files.read_parquet_metadata(fleet.root / "robustness.parquet")
    assert "without_netflow" in told["not_measurable"]


def test_what_a_mode_does_not_see_changes_nothing_for_it(table):
    for condition in ("without_guest", LYING_GUEST):
        change = rows_of(table, "macro_f1_change", "realistic")[condition]
        assert (change["estimate"], change["low"], change["high"]) == (0, 0, 0), change
        assert rows_of(table, "inputs_moved", "realistic")[condition]["estimate"] == 0
        assert rows_of(table, "inputs_moved", "oracle")[condition]["estimate"] > 0


def test_predictions_of_other_windows_are_refused(fleet, said, tmp_path):
    frame = files.read_parquet(said["gbt", "oracle"])
    fewer = tmp_path / "gbt_other.parquet"
    metadata = {"architecture": "gbt", "mode": "other", "weights_sha256": "0"}
    files.write_parquet(fewer, frame.filter(pl.col("window") > 0), metadata)
    with pytest.raises(FormatError, match="other windows"):
        fleet.tabulate([said["gbt", "oracle"], fewer])
    files.write_parquet(fewer, frame.with_columns(pl.col("episode_id") + "x"), metadata)
    with pytest.raises(FormatError, match="not of the episodes drawn"):
        fleet.tabulate([fewer])


@pytest.mark.parametrize("n", [0, 1])
def test_a_part_of_one_episode_or_none_gives_a_table_and_a_picture(tmp_path, n):
    fleet = make_fleet(tmp_path)
    split = files.read_parquet(tmp_path / "split.parquet")
    shown = split.filter(part="test").head(n)
    files.write_parquet(tmp_path / "split.parquet", pl.concat([split.filter(part="train"), shown]))
    fleet.rebuild()
    fleet.train("gbt", "oracle", (1,))
    table = fleet.tabulate([fleet.repredict("gbt", "oracle")], replicates=100)
    told = files.read_parquet_metadata(tmp_path / "robustness.parquet")
    assert table.is_empty() == (n == 0)
    changes = table.filter(metric="macro_f1_change")
    assert changes["low"].null_count() == len(changes)
    drawn = picture(table, told, fleet.conditions, {"oracle": "gbt"})
    assert (drawn.figure is None) == (n == 0)
    assert to_svg(drawn).startswith("<?xml")


def test_the_picture_names_every_model_and_what_is_not_measurable(fleet, table):
    told = files.read_parquet_metadata(fleet.root / "robustness.parquet")
    shown = picture(table, told, fleet.conditions, {"realistic": "gbt", "oracle": "gbt"})
    svg = to_svg(shown)
    for word in ("realistic", "oracle", "gbt", "share of rows lost", "lying guest"):
        assert word in svg, word
    assert "not measurable" in svg
    assert "6 of 6 episodes" in shown.caption
    assert svg == to_svg(
        picture(table, told, fleet.conditions, {"realistic": "gbt", "oracle": "gbt"})
    )


def test_the_best_is_that_by_val_and_no_company():
    rows = [
        ("gbt", "oracle", "val", 0.7),
        ("cnn", "oracle", "val", 0.7),
        ("minirocket", "oracle", "val", 0.9),
        ("gbt", "realistic", "test", 0.9),
    ]
    frame = pl.DataFrame(
        [
            {"model": m, "mode": o, "part": p, "estimate": e, "seed": None, "scope": "all"}
            | {"key": "all", "metric": "macro_f1"}
            for m, o, p, e in rows
        ],
        schema_overrides={"seed": pl.Int64},
    )
    assert best_by_val(frame) == {"oracle": "cnn"}
