"""Each host is predicted by models that know it and by models that do not, and by no other."""

import json

import numpy as np
import polars as pl
import pytest

from cis490 import files
from cis490.config import resolve
from cis490.errors import FormatError
from cis490.training import folds
from cis490.training.checkpoint import read_description
from cis490.transfer import predict
from cis490.transfer.predict import TRANSFER_SCHEMA, hosts_held_out, transfer
from tests.training.world import World

FAST = {"epochs": 2, "batch_size": 16, "learning_rate": 0.001}


def predicted(world, *models, mode="realistic", side="in_host", episodes=100):
    out = world.root / "transfer.parquet"
    transfer(
        mode,
        side,
        model_files=[folder / "model.json" for folder in models],
        schema_file=world.root / "schema.json",
        split_file=world.root / "split.parquet",
        features=world.features,
        tensors=world.tensors,
        config=resolve(
            {
                "seeds": [42],
                "training": FAST,
                "evaluation": {"folds": 3},
                "transfer": {"episodes": episodes},
            }
        ),
        code="code",
        out=out,
    )
    return pl.read_parquet(out), files.read_parquet_metadata(out)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return World(tmp_path_factory.mktemp("transfer"))


@pytest.mark.parametrize("name", ["gbt", "mlp", "cnn"])
def test_each_usable_episode_is_predicted_on_both_sides_and_no_excluded_one(world, name):
    split = pl.read_parquet(world.root / "split.parquet")
    usable = set(split.filter(pl.col("part") != "excluded")["episode_id"])
    for side in ("in_host", "cross_host"):
        table, told = predicted(world, world.train(name), side=side)
        assert table.schema == TRANSFER_SCHEMA
        assert set(table["episode_id"]) == usable
        assert set(table["side"]) == {side}
        assert not table.select("episode_id", "window").is_duplicated().any()
        assert (told["architecture"], told["n_drawn"], told["n_usable"]) == (name, "9", "9")
        assert table.sort("part", "episode_id", "window").equals(table)


def test_no_model_of_a_host_never_seen_learned_from_it_or_stopped_by_it(world, monkeypatch):
    seen = []
    original = folds._predict_fold

    def watched(model, parts, name, follows):
        seen.append({part: set(of.rows["episode_id"]) for part, of in parts.items()})
        return original(model, parts, name, follows)

    monkeypatch.setattr(folds, "_predict_fold", watched)
    for side in ("in_host", "cross_host"):
        predicted(world, world.train("gbt"), side=side)
    inside, across = seen[:3], seen[3:]
    assert len(across) == 2
    for parts in across:
        host = {name[:5] for name in parts["held_out"]}
        assert len(host) == 1
        assert {name[:5] for name in parts["train"] | parts["val"]}.isdisjoint(host)
        assert parts["train"]
        assert parts["val"]
    for parts in inside:
        assert {name[:5] for name in parts["train"]} >= {name[:5] for name in parts["held_out"]}
        assert parts["held_out"].isdisjoint(parts["train"] | parts["val"])


def test_the_best_by_val_is_taken_and_what_failed_is_passed_over(world, monkeypatch):
    gbt, mlp = world.train("gbt"), world.train("mlp")
    on_val = {"gbt": None, "mlp": 0.3}

    def described(path):
        description = read_description(path)
        mean = on_val[description["architecture"]]
        return description | {"val_macro_f1_filtered": mean}

    monkeypatch.setattr(predict, "read_description", described)
    assert predicted(world, gbt, mlp)[1]["architecture"] == "mlp"
    on_val["gbt"] = 0.3  # a tie goes to the first name
    assert predicted(world, mlp, gbt)[1]["architecture"] == "gbt"
    on_val["gbt"] = None
    table, told = predicted(world, gbt)
    assert (len(table), told["architecture"], told["folds"]) == (0, "", "[]")


def test_models_of_another_mode_are_refused(world):
    with pytest.raises(FormatError, match="mode oracle where realistic"):
        predicted(world, world.train("gbt", "oracle"))


def test_no_more_episodes_are_drawn_than_asked_for(world):
    table, told = predicted(world, world.train("gbt"), side="cross_host", episodes=6)
    assert (told["n_drawn"], told["n_usable"]) == ("6", "9")
    assert table["episode_id"].n_unique() == 6
    assert len(json.loads(told["folds"])) == 2


def test_hosts_are_held_out_each_alone_many_in_groups_and_a_single_one_not_at_all():
    for n, expected in ((3, [{"h0"}, {"h1"}, {"h2"}]), (11, None)):
        host = np.repeat([f"h{i:x}" for i in range(n)], 4)
        fold = np.tile([0, 1, 2, 1], n)
        found = list(hosts_held_out(host, fold, 3))
        held = [set(host[each.held_out]) for each in found]
        groups = [{"h0", "h3", "h6", "h9"}, {"h1", "h4", "h7", "ha"}, {"h2", "h5", "h8"}]
        assert held == (expected or groups)
        for each in found:
            assert (each.train.astype(int) + each.val + each.held_out == 1).all()
            assert set(fold[each.val]) == {0}
    assert len(list(hosts_held_out(np.repeat(list("abcdefghij"), 2), np.tile([0, 1], 10), 3))) == 10
    assert list(hosts_held_out(np.repeat("h", 4), fold[:4], 3)) == []
    eleven = np.repeat(list("abcdefghijk"), 2)
    assert len(list(hosts_held_out(eleven, np.tile([0, 1], 11), 20))) == 11  # none holds nothing


def test_the_fold_that_tells_when_to_stop_is_one_that_the_other_hosts_have():
    host = np.repeat(["a", "b", "c"], 3)
    fold = np.array([0, 1, 2, 3, 1, 2, 4, 4, 4])  # fold 0 is of a alone
    without_a, without_b, _ = hosts_held_out(host, fold, 5)
    assert set(fold[without_a.val]) == {1}
    assert set(fold[without_b.val]) == {0}
    only = np.array([1, 2, 3, 4, 4, 4, 4, 4, 4])
    without_a, *_ = hosts_held_out(host, only, 5)
    assert not without_a.val.any()  # something must be learned from
    assert without_a.train.sum() == 6
