import numpy as np
import polars as pl
import pytest

from cis490.files import read_parquet
from cis490.probes import perturbed
from cis490.probes.data import NotMeasurable
from cis490.probes.perturbed import Store, changed_by_test, copied
from tests.probes.world import BOOSTER, ORIGIN, SCHEMA, World


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return World(tmp_path_factory.mktemp("perturbed"))


def store_of(world, **split):
    settings = {"recipe": "host", "train_hosts": ["alder", "dogwood"], "test_hosts": []}
    return Store(
        world.inputs().verdicts, settings | {"val_fraction": 0.25, **split}, world.features, SCHEMA
    )


def episodes_of(world):
    return pl.concat([windows.episodes for windows in world.windows.values()])


def changed(world, tmp_path, **split):
    rows, names = changed_by_test(
        store_of(world, **split), episodes_of(world), 66, BOOSTER, tmp_path, ORIGIN
    )
    assert rows[0]["estimate"] == len(names)
    return names


def test_training_leaves_the_same_bytes_whatever_test_holds(world, tmp_path):
    assert changed(world, tmp_path) == []


def test_the_copy_changes_every_value_of_test_and_no_other(world, tmp_path):
    episodes = episodes_of(world)
    tested = set(episodes.filter(part="test")["episode_id"])
    copy = copied(store_of(world), episodes["episode_id"], tmp_path, tested)
    before, after = read_parquet(world.features[0]), read_parquet(copy.features[0])
    noisy = before["episode_id"].is_in(list(tested))
    assert after.filter(~noisy).equals(before.filter(~noisy))
    features = [name for name in before.columns if "." in name]
    same = after.filter(noisy).select(features).to_numpy() == before.filter(noisy).select(features)
    assert not np.asarray(same).any()
    told = read_parquet(copy.verdicts[0]).join(
        read_parquet(world.inputs().verdicts[0]), on="episode_id", suffix="_before"
    )
    other = (told["sha256"] != told["sha256_before"]).to_list()
    assert other == told["episode_id"].is_in(list(tested)).to_list()


def test_a_normalisation_over_all_rows_is_caught(world, tmp_path, monkeypatch):
    honest = perturbed.load_fit

    def leaky(fit_file, *, features, **rest):
        parts = honest(fit_file, features=features, **rest)
        level = pl.concat([read_parquet(path) for path in features])["proc.wchar.mean"].mean()
        parts["train"].X[:] -= level
        return parts

    monkeypatch.setattr(perturbed, "load_fit", leaky)
    names = changed(world, tmp_path)
    assert "windows of train" in names
    assert "windows of val" not in names
    assert "booster" in names


def test_a_split_that_looks_at_the_content_of_test_is_caught(world, tmp_path, monkeypatch):
    honest = perturbed.write_fit

    def leaky(verdicts, split, out):
        honest(verdicts, split, out)
        sums = pl.concat([read_parquet(path) for path in verdicts])["sha256"].sort()
        fit = read_parquet(out)
        fit.with_columns(sample_name=pl.lit(sums[0])).write_parquet(out)

    monkeypatch.setattr(perturbed, "write_fit", leaky)
    assert changed(world, tmp_path) == ["fit"]


def test_without_test_there_is_nothing_to_perturb(world, tmp_path):
    known = episodes_of(world).filter(pl.col("part") != "test")
    with pytest.raises(NotMeasurable, match="no test episode"):
        changed_by_test(store_of(world), known, 0, BOOSTER, tmp_path, ORIGIN)
