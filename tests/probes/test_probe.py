import json

import polars as pl
import pytest

from cis490.evaluation.tables import METRICS_SCHEMA
from cis490.files import read_json
from tests.probes.world import PARTS, World


@pytest.fixture(scope="module")
def probed(tmp_path_factory):
    world = World(tmp_path_factory.mktemp("probes")).train()
    return world, *world.probe()


def test_every_probe_gives_rows_of_metrics_parquet_with_a_signature(probed):
    _, table, metadata = probed
    assert table.schema == METRICS_SCHEMA
    kinds = {key.split("/")[0] for key in table["key"]}
    assert kinds == {
        *("host", "exchanged", "exchanged_training", "channel", "clock", "test_perturbed"),
        *("split_by_episode", "split_by_window", "permuted", "without", "background_starts"),
    }
    assert table["scope"].unique().to_list() == ["probe"]
    assert table["signature"].str.contains("unit=episode.*split=c0ffee").all()
    assert table.select("split", "model", "mode", "part", "key", "metric").is_unique().all()
    unmeasured = json.loads(metadata["not_measurable"])
    assert unmeasured.keys() == {"importance of a network, realistic", "guest"}


def test_each_row_is_of_the_part_that_it_names(probed):
    world, table, _ = probed
    n = {part: len(windows) for part, windows in world.windows.items()}
    n |= {"all": sum(n.values()), "train+val": n["train"] + n["val"]}
    counted = table.filter(~pl.col("key").str.starts_with("background"))
    for part, key, n_windows in counted.select("part", "key", "n_windows").rows():
        assert n_windows == n[part], key


def test_gbt_with_all_sources_is_the_gbt_that_was_trained(probed):
    world, table, _ = probed
    (trained,) = read_json(world.inputs().models[0])["seeds"]
    row = table.filter(key="without/nothing", metric="macro_f1").row(0, named=True)
    assert row["estimate"] == pytest.approx(trained["val_macro_f1"], abs=1e-6)


def test_the_one_channel_that_tells_the_phase_is_named(probed):
    _, _, metadata = probed
    assert json.loads(metadata["over_clock"])[0] == "proc.wchar"
    assert json.loads(metadata["leak"]) is False
    assert json.loads(metadata["changed"]) == []


def test_the_same_files_give_the_same_bytes(probed):
    world, _, _ = probed
    out = world.root / "probes/probes.parquet"
    before = out.read_bytes()
    world.probe()
    assert out.read_bytes() == before


ONE = {"birch": {"io-walk": 1}}
LACKING = {
    "one test episode": {**PARTS, "test": ONE},
    "one test episode, and it is a control": {**PARTS, "test": {"birch": {"none": 1}}},
    "no test": {"train": PARTS["train"], "val": PARTS["val"]},
    "no val": {"train": PARTS["train"], "test": PARTS["test"]},
    "neither": {"train": PARTS["train"]},
    "no controls": {part: {"alder": {"io-walk": 3}} for part in PARTS},
    "one episode a part": dict.fromkeys(PARTS, ONE),
    "one training phase": {**PARTS, "train": {"alder": {"none": 6}}},
}


@pytest.mark.parametrize("parts", LACKING.values(), ids=LACKING)
def test_what_a_small_store_cannot_say_is_said_and_nothing_crashes(tmp_path, parts):
    world = World(tmp_path, parts).train()
    table, metadata = world.probe()
    unmeasured = json.loads(metadata["not_measurable"])
    assert all(unmeasured.values())
    assert unmeasured
    assert table["estimate"].is_not_null().all()
    ends = table.drop_nulls("low").filter(~pl.col("metric").str.starts_with("macro_f1_null"))
    assert (ends["low"] <= ends["high"]).all()
