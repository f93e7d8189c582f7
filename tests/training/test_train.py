import numpy as np
import polars as pl
import pytest
from sklearn.metrics import f1_score

from cis490 import files
from cis490.channels import PHASES
from cis490.config import resolve
from cis490.errors import ConfigError, SchemaMismatch
from cis490.models import ARCHITECTURES, get_class
from cis490.models.mlp import MLP
from cis490.report import headline, results, trained
from cis490.training import summary
from cis490.training.checkpoint import HISTORY_SCHEMA, load_best
from cis490.training.data import load_split
from cis490.training.phases import PhaseFilter
from cis490.training.step import Stepper
from cis490.training.summary import aggregate, summarise
from cis490.training.train import Places
from tests.training.world import SCHEMA, World

FILES = ("model.json", "weights.safetensors", "history.parquet", "collapse_report.json")


def content(folder):
    return {name: (folder / name).read_bytes() for name in FILES}


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_nothing_of_the_test_episodes_reaches_what_training_writes(tmp_path, name):
    one, other = World(tmp_path / "a"), World(tmp_path / "b", test_shift=1000.0)
    assert one.features[0].read_bytes() != other.features[0].read_bytes()
    assert content(one.train(name)) == content(other.train(name))


@pytest.mark.parametrize("name", ["gbt", "mlp", "cnn"])
def test_a_model_is_trained_and_predicts_every_val_and_test_window(world, name):
    folder = world.train(name, "oracle", seeds=(42, 1, 2), epochs=40, learning_rate=0.01)
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
    assert predictions["part"].value_counts(sort=True)["count"].to_list() == [66, 66]
    found = [PHASES[i] for i in probabilities.to_numpy().argmax(1)]
    assert np.mean(np.array(found) == predictions["phase"].to_numpy()) > 0.6
    assert 0 < latency["p50_ms"] <= latency["p95_ms"]
    assert (latency["batch"], latency["threads"]) == (1, 1)
    assert latency["n_parameters"] == model["seeds"][0]["n_parameters"]
    assert latency["bytes_on_disk"] > 1000


def test_the_model_says_what_it_is(world):
    model = files.read_json(world.train("gru") / "model.json")
    assert (model["kind"], model["version"]) == ("cis490.model", 3)
    assert (model["architecture"], model["mode"]) == ("gru", "realistic")
    assert model["schema_sha256"] == SCHEMA.sha256
    assert "device" not in model["settings"]
    (seed,) = model["seeds"]
    assert (seed["seed"], seed["status"], seed["epochs"]) == (42, "ok", 2)
    options = get_class("gru").presets["small"]
    assert seed["model"] == {"n_classes": 5, "input_shape": [31, 20], "options": options}


def test_training_twice_gives_the_same_bytes(world):
    first = content(world.train("lstm"))
    assert content(world.train("lstm")) == first


def test_every_seed_is_trained_on_data_that_were_loaded_once(world, monkeypatch):
    loaded = []

    def noting(file, parts, **options):
        loaded.extend(parts)
        return load_split(file, parts, **options)

    made, prepare = [], MLP._prepare
    monkeypatch.setattr("cis490.training.data.load_split", noting)
    monkeypatch.setattr(MLP, "_prepare", lambda *args: (made.append(1), prepare(*args))[1])
    folder = world.train("mlp", seeds=(3, 1))
    assert loaded == ["train", "val"]
    assert len(made) == 1  # and made ready once
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
    folder = world.train("mlp", learning_rate=1e30, epochs=12)
    model = files.read_json(folder / "model.json")
    assert model["status"] == "failed"
    assert "loss is" in model["reason"]
    assert "step" in model["reason"]
    told = files.read_json(folder / "collapse_report.json")["42"]
    actions = [event["action"] for event in told["events"]]
    assert actions == ["restore", "halve", "halve", "halve", "reseed"] * 2 or actions[-1] == "fail"
    assert (told["outcome"], told["reason"]) == ("failed", model["reason"])
    history = pl.read_parquet(folder / "history.parquet")
    assert len(history) == len(actions)  # what was tried is shown


def test_the_collapse_report_is_written_when_nothing_happened_too(world):
    for name in ("gbt", "mlp"):
        told = files.read_json(world.train(name, seeds=(1, 2)) / "collapse_report.json")
        healthy = {"outcome": "healthy", "reason": None, "events": []}
        assert told == {
            str(seed): healthy | {"trained_with": {"seed": seed, "rate_factor": 1.0}}
            for seed in (1, 2)
        }


@pytest.mark.parametrize("name", ["gbt", "mlp"])
def test_the_metadata_tell_where_a_model_comes_from(world, name):
    folder = world.train(name, seeds=(1, 2))
    told = files.read_json(folder / "training_metadata.json")
    model = files.read_json(folder / "model.json")
    assert (told["seeds"], told["code"]["sha256"]) == ([1, 2], "code")
    assert (told["data"], told["split"]) == (model["data_sha256"], model["fit_sha256"])
    assert list(told["timings"]) == sorted(["hash", "load", "prepare", "seed 1", "seed 2"])
    assert told["settings"]["preset"] == "small"


def test_what_a_metric_rests_on_stands_beside_it(world):
    folder = world.train("mlp")
    model = files.read_json(folder / "model.json")
    assert set(model["data_sha256"]) == {"train", "val"}
    told = files.read_parquet_metadata(folder / "history.parquet")
    wanted = {key: model[key] for key in ("fit_sha256", "weights_sha256")}
    assert {key: told[key] for key in wanted} == wanted
    assert (told["n_train"], told["n_val"]) == ("55", "22")


def test_settings_of_one_architecture_and_its_options_are_its_own(world):
    config = {"architectures": {"mlp": {"epochs": 1, "width": 32}}}
    model = files.read_json(world.train("mlp", config=config) / "model.json")
    assert (model["settings"]["epochs"], model["seeds"][0]["epochs"]) == (1, 1)
    assert model["seeds"][0]["model"]["options"]["width"] == 32
    other = files.read_json(world.train("gru", config=config) / "model.json")
    assert other["settings"]["epochs"] == 2


def test_an_option_that_an_architecture_lacks_is_an_error_not_a_failed_training(world):
    with pytest.raises(ConfigError, match="MLP has no option kernel; there are width,"):
        world.train("mlp", config={"architectures": {"mlp": {"kernel": 3}}})


class Killed(BaseException):
    """As from outside: nothing of ours may catch it."""


def test_a_killed_job_goes_on_and_writes_the_same_files(tmp_path, monkeypatch):
    one, other = World(tmp_path / "a"), World(tmp_path / "b")
    whole = content(one.train("cnn", seeds=(1, 2)))
    fit = Stepper.step
    left = iter(range(4 * 2 + 3))  # four steps an epoch, two epochs: into the second seed

    def dying(self, *arguments):
        if next(left, None) is None:
            raise Killed
        return fit(self, *arguments)

    places = Places.under(tmp_path / "results", "host/cnn_realistic", resolve({}))
    with monkeypatch.context() as context:
        context.setattr(Stepper, "step", dying)
        with pytest.raises(Killed):
            other.train("cnn", seeds=(1, 2), places=places)
    assert {file.name for file in places.states.iterdir()} == {"seed-1.pt"}
    steps = []

    def noting(self, *arguments):
        steps.append(1)
        return fit(self, *arguments)

    monkeypatch.setattr(Stepper, "step", noting)
    assert content(other.train("cnn", seeds=(1, 2), places=places)) == whole
    assert len(steps) == 8  # only the second seed is trained
    assert not places.states.exists()


def test_the_best_seed_by_val_is_the_one_to_take_elsewhere(world):
    folder = world.train("mlp", seeds=(1, 2, 3), epochs=4)
    model = files.read_json(folder / "model.json")
    f1 = {seed["seed"]: seed["val_macro_f1"] for seed in model["seeds"]}
    assert f1[model["best_seed"]] == max(f1.values())
    assert len(set(f1.values())) > 1
    assert load_best(folder, SCHEMA).seed == model["best_seed"]


def seed_entry(seed, f1, status="ok"):
    return {"seed": seed, "status": status, "reason": None, "val_macro_f1": f1}


def test_seeds_come_to_a_mean_and_a_deviation_and_failed_ones_are_not_averaged():
    told = aggregate(
        [seed_entry(1, 0.5), seed_entry(2, None, "failed"), seed_entry(3, 0.7), seed_entry(4, 0.6)]
    )
    assert told["val_macro_f1"] == pytest.approx({"mean": 0.6, "sd": 0.1, "n_seeds": 3})
    assert (told["status"], told["best_seed"], told["unstable"]) == ("ok", 3, True)
    assert len(told["seeds"]) == 4


@pytest.mark.parametrize(
    ("f1", "sd", "unstable"),
    [
        ([0.6, 0.6], 0.0, False),
        ([0.5, 0.57], 0.0495, False),
        ([0.5, 0.572], 0.0509, True),
        ([0.6], None, None),
        ([None], None, None),
    ],
)
def test_a_deviation_above_a_twentieth_is_flagged_and_one_seed_has_none(f1, sd, unstable):
    told = aggregate([seed_entry(i, value) for i, value in enumerate(f1)])
    assert told["val_macro_f1"]["sd"] == (sd and pytest.approx(sd, abs=1e-4))
    assert told["unstable"] is unstable
    assert told["best_seed"] == f1.index(max(f1, key=lambda value: value or 0))


def test_the_report_flags_above_the_same_deviation_as_the_summary():
    assert results.UNSTABLE is trained.UNSTABLE is headline.UNSTABLE is summary.UNSTABLE


def test_a_model_whose_seeds_all_failed_has_no_figure():
    told = aggregate([seed_entry(1, None, "failed") | {"reason": "why"}])
    assert (told["status"], told["reason"], told["best_seed"]) == ("failed", "why", None)
    assert told["val_macro_f1"] == {"mean": None, "sd": None, "n_seeds": 0}


def test_the_summary_of_a_split_has_every_model_with_what_its_figures_rest_on(world, monkeypatch):
    break_fit(monkeypatch, "gru", ValueError("bad luck"), seeds=(1, 2))
    folders = [world.train(name, seeds=(1, 2)) for name in ("mlp", "gru")]
    out = world.root / "summary.json"
    summarise([folder / "model.json" for folder in folders], out)
    gru, mlp = files.read_json(out)["models"]
    assert (gru["architecture"], gru["status"], gru["val_macro_f1"]["mean"]) == (
        "gru",
        "failed",
        None,
    )
    assert [seed["reason"] for seed in gru["seeds"]] == ["ValueError: bad luck"] * 2
    assert mlp["val_macro_f1"]["n_seeds"] == 2
    assert mlp["n_windows"] == {"train": 55, "val": 22}
    model = files.read_json(folders[0] / "model.json")
    for key in ("fit_sha256", "data_sha256", "weights_sha256"):
        assert mlp[key] == model[key]


@pytest.mark.parametrize(
    "error", [KeyboardInterrupt(), SystemExit(3), MemoryError(), OSError(28, "No space left")]
)
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


@pytest.mark.parametrize("name", ["gbt", "mlp"])
def test_event_files_hold_each_seed_when_they_are_asked_for(world, name):
    reader = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    places = Places(tensorboard=world.root / "events", profile=world.root / "profile")
    folder = world.train(name, seeds=(1, 2), places=places)
    history = pl.read_parquet(folder / "history.parquet")
    for seed in (1, 2):
        events = reader.EventAccumulator(str(places.tensorboard / f"seed_{seed}")).Reload()
        found = [event.value for event in events.Scalars("loss/train")]
        assert found == pytest.approx(history.filter(seed=seed)["train_loss"].to_list(), rel=1e-5)
    assert places.profile.is_dir()  # an output that Snakemake waits for, of any model


def test_the_live_line_says_how_each_seed_ended(world, caplog):
    caplog.set_level("INFO", "cis490")
    world.train("mlp", seeds=(1, 2))
    told = [record.getMessage() for record in caplog.records]
    for place, seed in enumerate((1, 2), start=1):
        assert any(
            text.startswith(f"mlp realistic: seed {seed} ({place} of 2): ok after epoch 2")
            for text in told
        )


@pytest.mark.parametrize("name", ["gbt", "mlp"])
def test_predictions_are_a_models_own_after_its_filter_unless_that_is_off(world, name):
    alone = world.predict(world.train(name, phase_filter=False))[0]
    folder = world.train(name, phase_filter=True)
    followed = world.predict(folder)[0]
    description = files.read_json(folder / "model.json")
    columns = [f"p_{phase}" for phase in PHASES]
    wanted = [
        PhaseFilter.from_state(description["phase_filter"]).apply(
            part.select(columns).to_numpy().astype(float), part
        )
        for part in alone.partition_by("seed", "part", maintain_order=True)
    ]
    np.testing.assert_allclose(followed.select(columns), np.concatenate(wanted), atol=1e-6)
    assert not alone.equals(followed)


def test_what_is_too_sure_passes_no_filter(world):
    folder = world.train("minirocket", phase_filter=True)
    assert files.read_json(folder / "model.json")["phase_filter"] is None


@pytest.mark.parametrize("name", ["gbt", "cnn", "minirocket"])
def test_val_after_the_filter_is_macro_f1_of_what_is_predicted_of_val(tmp_path, name):
    world = World(tmp_path)
    folder = world.train(name, seeds=(42, 7))
    frame, _ = world.predict(folder)
    val = frame.filter(part="val")
    scores = []
    for seed in (42, 7):
        rows = val.filter(seed=seed)
        said = rows.select(f"p_{phase}" for phase in PHASES).to_numpy().argmax(1)
        truth = [PHASES.index(phase) for phase in rows["phase"]]
        scores.append(
            f1_score(truth, said, labels=sorted(set(truth)), average="macro", zero_division=0)
        )
    told = files.read_json(folder / "model.json")["val_macro_f1_filtered"]
    assert told == pytest.approx(sum(scores) / 2, abs=1e-9)
