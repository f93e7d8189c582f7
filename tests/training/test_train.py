import numpy as np
import polars as pl
import pytest

from cis490 import files
from cis490.channels import PHASES
from cis490.errors import ConfigError, SchemaMismatch
from cis490.models import ARCHITECTURES, get_class
from cis490.training.checkpoint import HISTORY_SCHEMA
from tests.training.world import SCHEMA, World

FILES = ("model.json", "weights.safetensors", "history.parquet")


def content(folder):
    return {name: (folder / name).read_bytes() for name in FILES}


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_nothing_of_the_test_episodes_reaches_what_training_writes(tmp_path, name):
    one, other = World(tmp_path / "a"), World(tmp_path / "b", test_shift=1000.0)
    assert one.features[0].read_bytes() != other.features[0].read_bytes()
    assert content(one.train(name)) == content(other.train(name))


@pytest.mark.parametrize("name", ["gbt", "mlp", "cnn"])
def test_a_model_is_trained_and_predicts_every_val_and_test_window(world, name):
    folder = world.train(name, "oracle", epochs=40, learning_rate=0.003)
    predictions, latency = world.predict(folder)
    model = files.read_json(folder / "model.json")
    assert (model["status"], model["reason"]) == ("ok", None)
    assert (model["n_windows"], model["n_episodes"]) == (
        {"train": 55, "val": 22},
        {"train": 5, "val": 2},
    )
    probabilities = predictions.select(f"p_{phase}" for phase in PHASES)
    assert predictions.columns[:5] == ["episode_id", "window", "part", "seed", "phase"]
    assert probabilities.dtypes == [pl.Float32] * 5
    assert predictions.sort("seed", "part", "episode_id", "window").equals(predictions)
    assert predictions["part"].value_counts(sort=True)["count"].to_list() == [22, 22]
    found = [PHASES[i] for i in probabilities.to_numpy().argmax(1)]
    assert np.mean(np.array(found) == predictions["phase"].to_numpy()) > 0.6
    assert 0 < latency["p50_ms"] <= latency["p95_ms"]
    assert (latency["batch"], latency["threads"]) == (1, 1)
    assert latency["n_parameters"] == model["seeds"][0]["n_parameters"]
    assert latency["bytes_on_disk"] > 1000


def test_the_model_says_what_it_is(world):
    model = files.read_json(world.train("gru") / "model.json")
    assert (model["kind"], model["version"]) == ("cis490.model", 1)
    assert (model["architecture"], model["mode"]) == ("gru", "realistic")
    assert model["schema_sha256"] == SCHEMA.sha256
    assert "device" not in model["settings"]
    (seed,) = model["seeds"]
    assert (seed["seed"], seed["status"], seed["epochs"]) == (42, "ok", 2)
    assert seed["model"] == {"n_classes": 5, "input_shape": [31, 20]}


def test_training_twice_gives_the_same_bytes(world):
    first = content(world.train("lstm"))
    assert content(world.train("lstm")) == first


def test_every_seed_is_trained_and_predicts(world):
    folder = world.train("mlp", seeds=(3, 1))
    history = pl.read_parquet(folder / "history.parquet")
    assert history.schema == HISTORY_SCHEMA
    assert history["seed"].to_list() == [3, 3, 1, 1]
    predictions, _ = world.predict(folder)
    assert predictions["seed"].unique(maintain_order=True).to_list() == [1, 3]
    assert len(predictions) == 2 * 44
    one, three = (predictions.filter(seed=s)["p_clean"].to_list() for s in (1, 3))
    assert one != three


def break_fit(monkeypatch, name, error, seeds=(42,)):
    kind = get_class(name)
    fit = kind._fit

    def breaking(self, *args):
        if self.seed in seeds:
            raise error
        return fit(self, *args)

    monkeypatch.setattr(kind, "_fit", breaking)


@pytest.mark.parametrize("name", ["gbt", "cnn"])
def test_a_training_that_fails_by_itself_is_recorded_and_predicts_nothing(world, monkeypatch, name):
    break_fit(monkeypatch, name, RuntimeError("no\n  convergence"))
    folder = world.train(name)
    model = files.read_json(folder / "model.json")
    assert (model["status"], model["reason"]) == ("failed", "RuntimeError: no convergence")
    history = pl.read_parquet(folder / "history.parquet")
    assert (history.schema, len(history)) == (HISTORY_SCHEMA, 0)
    predictions, latency = world.predict(folder)
    assert len(predictions) == 0
    assert [c for c in predictions.columns if c.startswith("p_")] == [f"p_{p}" for p in PHASES]
    assert latency["p50_ms"] is None


def test_a_seed_that_fails_leaves_the_others_standing(world, monkeypatch):
    break_fit(monkeypatch, "mlp", ValueError("bad luck"), seeds=(1,))
    folder = world.train("mlp", seeds=(1, 2))
    model = files.read_json(folder / "model.json")
    assert model["status"] == "ok"
    assert [seed["status"] for seed in model["seeds"]] == ["failed", "ok"]
    assert model["seeds"][0]["reason"] == "ValueError: bad luck"
    predictions, _ = world.predict(folder)
    assert predictions["seed"].unique().to_list() == [2]


def test_a_loss_that_explodes_is_recorded_with_epoch_and_step(world):
    model = files.read_json(world.train("mlp", learning_rate=1e30) / "model.json")
    assert model["status"] == "failed"
    assert "loss is" in model["reason"]
    assert "step" in model["reason"]


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(3), MemoryError()])
def test_what_kills_a_job_is_not_recorded_as_a_failed_training(world, monkeypatch, error):
    break_fit(monkeypatch, "mlp", error)
    with pytest.raises(type(error)):
        world.train("mlp")
    assert not (world.root / "models").exists()


@pytest.mark.parametrize("name", ["gbt", "transformer"])
def test_too_few_classes_is_a_failed_training(tmp_path, name):
    model = files.read_json(World(tmp_path, phases=1).train(name) / "model.json")
    assert model["status"] == "failed"
    assert "every training window is clean" in model["reason"]


@pytest.mark.parametrize("name", ["gbt", "mlp", "cnn"])
def test_a_class_absent_from_train_is_no_failure(tmp_path, name):
    world = World(tmp_path, phases=3)
    predictions, _ = world.predict(world.train(name))
    assert len(predictions) == 44
    assert predictions["p_dormant"].is_finite().all()


@pytest.mark.parametrize("name", ["gbt", "gru"])
def test_no_training_windows_is_a_failed_training(world, name):
    fit = pl.read_parquet(world.root / "fit.parquet").filter(part="val")
    files.write_parquet(world.root / "fit.parquet", fit)
    model = files.read_json(world.train(name) / "model.json")
    assert model["status"] == "failed"
    assert "not one case" in model["reason"]


@pytest.mark.parametrize("name", ["gbt", "gru"])
def test_without_val_episodes_the_last_weights_are_kept(world, name):
    fit = pl.read_parquet(world.root / "fit.parquet").filter(part="train")
    files.write_parquet(world.root / "fit.parquet", fit)
    model = files.read_json(world.train(name) / "model.json")
    assert model["status"] == "ok"
    assert model["seeds"][0]["val_macro_f1"] is None


def test_a_device_that_is_not_there_is_an_error_not_a_failed_training(world, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(ConfigError, match=r"training\.device is cuda"):
        world.train("cnn", device="cuda")
    world.train("gbt", device="cuda")  # trees never leave the CPU


def test_data_of_another_schema_is_an_error_not_a_failed_training(world):
    other = SCHEMA.to_dict() | {"grid": {"hz": 4, "max_gap_s": None}}
    files.write_json(world.root / "schema.json", other)
    with pytest.raises(SchemaMismatch):
        world.train("gbt")
