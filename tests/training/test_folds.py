"""Out-of-fold predictions: no model may know an episode that it predicts."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from cis490 import files
from cis490.channels import PHASES
from cis490.config import resolve
from cis490.errors import ConfigError, FormatError
from cis490.files import content_sha256
from cis490.models import create, get_class
from cis490.models.base import FitSettings
from cis490.models.preprocess import Standardiser
from cis490.models.views import CodedSeries, WindowView
from cis490.training import folds
from cis490.training.checkpoint import read_description
from cis490.training.data import Cases, load_split
from cis490.training.folds import (
    KIND,
    OUT_OF_FOLD_SCHEMA,
    assign_folds,
    folds_of,
    out_of_fold,
    predict_folds,
)
from cis490.training.phases import PhaseFilter
from cis490.training.summary import best_by_val
from cis490.training.tuned import KIND as TUNING
from cis490.windows.codes import LEAST, decode
from tests.training.world import SCHEMA, World

EVERY_KIND = ["gbt", "mlp", "cnn", "minirocket"]


def settings_of_a_test(n_folds=3, **training):
    quick = {"epochs": 2, "batch_size": 16, "learning_rate": 0.001}
    return {"seeds": [42], "training": quick | training, "evaluation": {"folds": n_folds}}


def predicted(
    world: World, name: str, folder: Path | None = None, rivals: Sequence[Path] = (), **settings
) -> Path:
    """Train a model on the whole unless there is one, and predict out of fold."""
    out = world.root / f"oof/{name}_realistic.parquet"
    config = settings_of_a_test(**settings)
    folder = folder or world.train(name, **config["training"])
    out_of_fold(
        name,
        "realistic",
        schema_file=world.root / "schema.json",
        fit_file=world.root / "fit.parquet",
        model_file=folder / "model.json",
        features=world.features,
        tensors=world.tensors,
        config=resolve(config),
        code="code",
        out=out,
        rivals=rivals,
    )
    return out


def told(path: Path) -> tuple[dict, list[dict]]:
    metadata = files.read_parquet_metadata(path)
    return metadata, json.loads(metadata["folds"])


def watched(monkeypatch) -> list:
    """Each fold's parts and model, as they come to be."""
    seen, prepare, predictions_of = [], folds.prepare, folds.predictions_of

    def preparing(model, parts, run):
        seen.append({"parts": parts})
        return prepare(model, parts, run)

    def predicting(model, cases, seed, follows):
        seen[-1] |= {"model": model, "predicted": cases}
        return predictions_of(model, cases, seed, follows)

    monkeypatch.setattr(folds, "prepare", preparing)
    monkeypatch.setattr(folds, "predictions_of", predicting)
    return seen


def known_by_episode(*, coded: bool, n_episodes=60, n_windows=4) -> Cases:
    """Labels drawn for each episode: who has seen the episode knows them, nobody else can."""
    rng = np.random.default_rng(0)
    label = rng.integers(0, len(PHASES), n_episodes)
    y = np.repeat(label, n_windows)
    rows = pl.DataFrame(
        {
            "part": ["train"] * len(y),
            "episode_id": [f"e{i:03d}" for i in range(n_episodes) for _ in range(n_windows)],
            "window": np.tile(np.arange(n_windows, dtype=np.int32), n_episodes),
            "phase": [PHASES[i] for i in y],
        }
    )
    if not coded:
        own = rng.normal(size=(n_episodes, 12)).astype(np.float32)
        return Cases(rows, np.repeat(own, n_windows, 0) + rng.normal(0, 0.01, (len(y), 12)), y)
    length, stride, n_channels = 16, 8, 6
    n_steps = length + stride * (n_windows - 1)
    shape = (n_episodes, n_steps, n_channels)
    own = np.tile(rng.normal(size=(n_episodes, stride, n_channels)), (1, n_steps // stride, 1))
    values = own + rng.normal(0, 0.01, shape)
    base, scale = values.min(1), np.ptp(values, axis=1) / 60_000
    codes = LEAST + np.rint((values - base[:, None]) / scale[:, None])
    series = CodedSeries(
        codes.astype(np.int16).reshape(-1, n_channels),
        np.arange(n_episodes + 1, dtype=np.int64) * n_steps,
        scale.astype(np.float32),
        base.astype(np.float32),
    )
    low = np.repeat(series.offset[:-1], n_windows)
    start = low + rows["window"].to_numpy() * stride
    high = low + stride * (n_windows - 1)
    step_label = np.repeat(label, n_steps).astype(np.int8)
    return Cases(rows, WindowView(series, start, length, stride // 2, low, high, step_label), y)


def by_episode(cases: Cases, n_folds=5) -> np.ndarray:
    return cases.rows["episode_id"].rank("dense").to_numpy().astype(np.int64) % n_folds


def accuracy(cases: Cases, table: pl.DataFrame) -> float:
    probabilities = table.select(f"p_{phase}" for phase in PHASES).to_numpy()
    return float(np.mean(probabilities.argmax(1) == cases.y))


def maker(name):
    return lambda: create(name, len(PHASES), settings=FitSettings(epochs=2, learning_rate=0.001))


@pytest.mark.parametrize("name", EVERY_KIND)
def test_each_window_is_predicted_once_by_a_model_that_did_not_see_its_episode(
    world, monkeypatch, name
):
    seen = watched(monkeypatch)
    table = pl.read_parquet(predicted(world, name))
    cases = load_split(
        world.root / "fit.parquet",
        ("train", "val"),
        schema=SCHEMA,
        mode="realistic",
        tabular=get_class(name).tabular,
        features=world.features,
        tensors=world.tensors,
    )
    assert table.schema == OUT_OF_FOLD_SCHEMA
    assert table.select(cases.rows.columns).equals(cases.rows)
    assert (table["seed"] == 42).all()
    assert table.group_by("episode_id").agg(pl.col("fold").n_unique())["fold"].max() == 1
    everybody = set(cases.rows["episode_id"])
    assert len(seen) == 3
    for fold in seen:
        ids = {part: set(of.rows["episode_id"]) for part, of in fold["parts"].items()}
        assert ids["train"] | ids["val"] | ids["held_out"] == everybody
        assert sum(map(len, ids.values())) == len(everybody)
        assert fold["predicted"] is fold["parts"]["held_out"]
        assert min(map(len, ids.values())) > 0


@pytest.mark.parametrize(("name", "coded"), [("gbt", False), ("minirocket", True)])
def test_what_only_a_memory_could_know_comes_out_at_chance(name, coded):
    cases = known_by_episode(coded=coded)
    leaking = np.arange(len(cases.y)) % 5  # windows of an episode on both sides: what must not be
    assert accuracy(cases, predict_folds(maker(name), cases, folds_of(leaking), name)[0]) > 0.9
    honest, entries = predict_folds(maker(name), cases, folds_of(by_episode(cases)), name)
    assert len(honest) == len(cases.y)
    assert accuracy(cases, honest) < 0.2 + 4 * np.sqrt(0.2 * 0.8 / 60)
    assert [entry["fold"] for entry in entries] == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("name", ["gbt", "cnn", "minirocket"])
def test_nothing_of_the_held_out_episodes_reaches_the_model(monkeypatch, name):
    cases = known_by_episode(coded=name != "gbt", n_episodes=12)
    fold = by_episode(cases)
    held_out = fold == 0
    if isinstance(cases.X, np.ndarray):
        X = np.where(held_out[:, None], 1e6 * cases.X, cases.X)
    else:
        series = cases.X.series
        base = series.base.copy()
        base[series.episode(cases.X.start[held_out])] += 1e6
        X = WindowView(
            CodedSeries(series.codes, series.offset, series.scale, base),
            *(cases.X.start, cases.X.length, cases.X.jitter),
            *(cases.X.low, cases.X.high, cases.X.step_label),
        )
    other = Cases(cases.rows, X, np.where(held_out, 0, cases.y))
    seen = watched(monkeypatch)
    for each in (cases, other):
        predict_folds(maker(name), each, folds_of(fold), name)
    first, second = (seen[place]["model"].state()[1] for place in (0, 5))
    assert first.keys() == second.keys()
    for array in first:
        assert np.array_equal(first[array], second[array], equal_nan=True), array
    changed = seen[2]["model"].state()[1], seen[7]["model"].state()[1]  # it learns from fold 0
    assert any(not np.array_equal(*(a[key] for a in changed), equal_nan=True) for key in first)


def test_the_standardiser_is_that_of_a_folds_own_training_episodes(monkeypatch):
    cases = known_by_episode(coded=True, n_episodes=12)
    series, seen = cases.X.series, watched(monkeypatch)
    predict_folds(maker("cnn"), cases, folds_of(by_episode(cases)), "cnn")
    assert len(seen) == 5
    for fold in seen:
        own = np.unique(series.episode(fold["parts"]["train"].X.start))
        steps = np.concatenate([np.arange(*series.offset[i : i + 2]) for i in own])
        of = series.episode(steps)
        values = decode(series.codes[steps], series.scale[of], series.base[of])
        wanted = Standardiser.fit(values, np.zeros(6, bool))
        assert np.allclose(fold["model"]._standardiser.mean, wanted.mean, atol=1e-5)
        assert np.allclose(fold["model"]._standardiser.spread, wanted.spread, rtol=1e-5)


def test_windows_move_where_they_are_learned_from_and_share_the_one_series(monkeypatch):
    cases = known_by_episode(coded=True, n_episodes=12)
    seen = watched(monkeypatch)
    predict_folds(maker("cnn"), cases, folds_of(by_episode(cases)), "cnn")
    for fold in seen:
        jitter = {part: of.X.jitter for part, of in fold["parts"].items()}
        assert jitter == {"train": 4, "val": 0, "held_out": 0}
        for of in fold["parts"].values():
            assert of.X.series.codes is cases.X.series.codes


def fleet(n: int) -> pl.DataFrame:
    """Episodes of two hosts and three profiles, in order of their arrival."""
    return pl.DataFrame(
        {
            "episode_id": [f"e{i}" for i in range(n)],
            "host_id": ["alder" if i % 5 < 3 else "dogwood" for i in range(n)],
            "profile": [("io-walk", "none", "scan")[i % 3] for i in range(n)],
        }
    )


def test_new_arrivals_move_no_episode_to_another_fold():
    whole = assign_folds(fleet(200), 5)
    for n in (0, 1, 7, 50, 199):
        assert assign_folds(fleet(n), 5).equals(whole[:n])
    among = pl.concat([fleet(90).filter(host_id="alder"), fleet(100).filter(host_id="dogwood")])
    both = assign_folds(among, 5).join(whole, on="episode_id")
    assert (both["fold"] == both["fold_right"]).all()


def test_folds_are_even_within_each_host_and_profile():
    episodes = fleet(200)
    dealt = episodes.join(assign_folds(episodes, 5), on="episode_id")
    counts = dealt.group_by("host_id", "profile", "fold").len()
    for group in counts.partition_by("host_id", "profile"):
        assert len(group) == 5
        assert group["len"].max() - group["len"].min() <= 1


def test_programs_that_take_turns_do_not_get_a_fold_each():
    turns = pl.DataFrame(
        {"episode_id": [f"e{i}" for i in range(50)], "host_id": "alder", "profile": "io-walk"}
    )
    fold = assign_folds(turns, 5)["fold"].to_numpy()
    for program in range(5):
        assert len(set(fold[program::5])) > 2


def test_the_next_fold_says_when_to_stop_and_empty_ones_are_passed_over():
    made = list(folds_of(np.array([4, 0, 2, 0])))
    assert [fold.number for fold in made] == [0, 2, 4]
    assert [fold.held_out.tolist() for fold in made] == [
        [False, True, False, True],
        [False, False, True, False],
        [True, False, False, False],
    ]
    assert [fold.val.tolist() for fold in made] == [
        [False, False, True, False],
        [True, False, False, False],
        [False, True, False, True],
    ]
    for fold in made:
        assert (fold.train.astype(int) + fold.val + fold.held_out == 1).all()


def test_two_folds_learn_from_each_other_without_val_and_one_cannot():
    first, second = folds_of(np.array([3, 1, 3]))
    assert (first.train.tolist(), first.val.any()) == ([True, False, True], False)
    assert (second.train.tolist(), second.val.any()) == ([False, True, False], False)
    assert list(folds_of(np.array([3, 3]))) == []
    assert list(folds_of(np.array([], np.int64))) == []


@pytest.mark.parametrize("name", ["gbt", "cnn"])
def test_test_episodes_change_nothing(tmp_path, name):
    one, other = World(tmp_path / "a"), World(tmp_path / "b", test_shift=1000.0)
    assert one.features[0].read_bytes() != other.features[0].read_bytes()
    assert predicted(one, name).read_bytes() == predicted(other, name).read_bytes()


@pytest.mark.parametrize("name", EVERY_KIND)
def test_the_same_again_gives_the_same_bytes(world, name):
    folder = world.train(name)
    first = predicted(world, name, folder).read_bytes()
    assert predicted(world, name, folder).read_bytes() == first


def break_a_fold(monkeypatch, name, error, place):
    kind, calls = get_class(name), []
    fit = kind._fit

    def breaking(self, *args):
        calls.append(1)
        if len(calls) == place:
            raise error
        return fit(self, *args)

    monkeypatch.setattr(kind, "_fit", breaking)


@pytest.mark.parametrize("name", ["gbt", "cnn"])
def test_a_fold_that_fails_is_told_and_its_windows_are_missing(world, monkeypatch, name):
    folder = world.train(name)
    break_a_fold(monkeypatch, name, RuntimeError("no\n  convergence"), place=2)
    path = predicted(world, name, folder)
    metadata, entries = told(path)
    assert [entry["status"] for entry in entries] == ["ok", "failed", "ok"]
    assert entries[1]["reason"] == "RuntimeError: no convergence"
    table = pl.read_parquet(path)
    assert set(table["fold"]) == {entries[0]["fold"], entries[2]["fold"]}
    assert len(table) + entries[1]["n_windows"]["held_out"] == 77
    assert metadata["reason"] == ""


def test_what_kills_a_job_is_no_failed_fold(world, monkeypatch):
    folder = world.train("gbt")
    break_a_fold(monkeypatch, "gbt", MemoryError(), place=2)
    with pytest.raises(MemoryError):
        predicted(world, "gbt", folder)
    assert not (world.root / "oof").exists()


def test_the_metadata_tell_what_the_predictions_rest_on(world):
    folder = world.train("mlp")
    path = predicted(world, "mlp", folder)
    metadata, entries = told(path)
    model = files.read_json(folder / "model.json")
    assert (metadata["kind"], metadata["version"]) == (KIND, "1")
    assert (metadata["architecture"], metadata["mode"]) == ("mlp", "realistic")
    assert (metadata["seed"], metadata["n_folds"], metadata["code"]) == ("42", "3", "code")
    assert metadata["fit_sha256"] == model["fit_sha256"]
    assert metadata["schema_sha256"] == SCHEMA.sha256
    assert len(metadata["data_sha256"]) == 64
    settings = json.loads(metadata["settings"])
    assert (settings["epochs"], settings["preset"]) == (2, "small")
    assert "device" not in settings
    assert [entry["fold"] for entry in entries] == [0, 1, 2]
    table = pl.read_parquet(path)
    for entry in entries:
        assert entry["n_windows"]["held_out"] == len(table.filter(fold=entry["fold"]))
        assert sum(entry["n_windows"].values()) == 77
        assert sum(entry["n_episodes"].values()) == 7
        assert 0 <= entry["val_macro_f1"] <= 1


def test_the_weights_of_the_whole_have_no_say(world):
    one = predicted(world, "mlp", world.train("mlp")).read_bytes()
    folder = world.train("mlp", weight_decay=0.5)
    assert predicted(world, "mlp", folder).read_bytes() == one


def test_the_learning_rate_is_that_of_the_whole_and_no_other_is_searched(world, monkeypatch):
    folder = world.train("mlp", learning_rate="auto", seeds=(42, 1))
    model = files.read_json(folder / "model.json")
    chosen = model["seeds"][0]["chosen"]

    monkeypatch.delattr("cis490.training.fit.find_rate")
    monkeypatch.delattr("cis490.training.fit.largest_micro_batch")
    _, entries = told(predicted(world, "mlp", folder, learning_rate="auto"))
    for entry in entries:
        assert entry["status"] == "ok"
        for name in ("learning_rate", "micro_batch", "precision"):
            assert entry["chosen"][name] == chosen[name]


def test_what_a_search_chose_holds_for_the_folds_too(world):
    tuning = world.root / "tuning.json"
    files.write_json(
        tuning,
        {
            **{"kind": TUNING, "version": 1, "architecture": "mlp", "mode": "realistic"},
            "fit_sha256": content_sha256(world.root / "fit.parquet"),
            "n_trials": 1,
            "chosen": {"parameters": {"width": 32, "epochs": 1}, "reason": "better"},
        },
    )
    metadata, entries = told(predicted(world, "mlp", world.train("mlp", tuning=tuning)))
    settings = json.loads(metadata["settings"])
    assert (settings["options"], settings["epochs"]) == ({"width": 32}, 1)
    assert {entry["epochs"] for entry in entries} == {1}


def test_a_phase_that_a_fold_does_not_learn_is_legal():
    cases = known_by_episode(coded=False, n_episodes=12)
    y = np.where(cases.y == 4, 0, cases.y)
    y[:4] = 4  # dormant in one episode alone
    cases = Cases(cases.rows, cases.X, y)
    table, entries = predict_folds(maker("gbt"), cases, folds_of(by_episode(cases)), "gbt")
    assert {entry["status"] for entry in entries} == {"ok"}
    own = table.filter(episode_id="e000").select(f"p_{phase}" for phase in PHASES)
    assert own["p_dormant"].max() < 0.2
    assert np.allclose(own.sum_horizontal(), 1)


@pytest.mark.parametrize("name", ["gbt", "cnn"])
def test_training_hosts_that_hold_one_phase_give_no_row_and_a_reason(tmp_path, name):
    path = predicted(World(tmp_path, phases=1), name)
    metadata, entries = told(path)
    assert pl.read_parquet(path).schema == OUT_OF_FOLD_SCHEMA
    assert len(pl.read_parquet(path)) == 0
    assert "every training window is clean" in metadata["reason"]
    assert {entry["status"] for entry in entries} == {"failed"}


@pytest.mark.parametrize("name", ["gbt", "cnn"])
@pytest.mark.parametrize("n", [1, 2, 4])
def test_few_episodes_make_few_folds_and_a_single_one_makes_none(world, name, n):
    fit = pl.read_parquet(world.root / "fit.parquet")
    files.write_parquet(world.root / "fit.parquet", fit[:n])
    path = predicted(world, name, n_folds=5)
    metadata, entries = told(path)
    table = pl.read_parquet(path)
    assert len(entries) == (0 if n == 1 else n)
    assert len(table) == (0 if n == 1 else 11 * n)
    assert ("fewer than 2 folds" in metadata["reason"]) == (n == 1)
    assert {entry["val_macro_f1"] is None for entry in entries} <= {n == 2}


def test_each_fold_follows_phases_as_its_own_training_episodes_do(world, monkeypatch):
    fitted, apply = [], PhaseFilter.apply

    def applying(self, probabilities, rows):
        fitted.append((self.transition, set(rows["episode_id"])))
        return apply(self, probabilities, rows)

    folder = world.train("gbt", **settings_of_a_test()["training"])
    monkeypatch.setattr(PhaseFilter, "apply", applying)
    table = pl.read_parquet(predicted(world, "gbt", folder))
    assert [episodes for _, episodes in fitted] == [
        set(table.filter(fold=number)["episode_id"]) for number in sorted(set(table["fold"]))
    ]
    assert len({chances.tobytes() for chances, _ in fitted}) > 1


def test_a_model_of_other_episodes_is_refused(world):
    folder = world.train("gbt")
    fit = pl.read_parquet(world.root / "fit.parquet")
    files.write_parquet(world.root / "fit.parquet", fit[1:])
    with pytest.raises(FormatError, match="no gbt realistic of this split's episodes"):
        predicted(world, "gbt", folder)


def test_fewer_than_three_folds_cannot_be_asked_for():
    with pytest.raises(ConfigError, match=r"evaluation\.folds"):
        resolve({"evaluation": {"folds": 2}})


def test_of_rivals_only_the_best_by_val_is_predicted_and_the_others_say_why(tmp_path, monkeypatch):
    world = World(tmp_path)
    paths = {name: world.train(name) / "model.json" for name in ("mlp", "cnn")}
    on_val = {"mlp": 0.4, "cnn": 0.6}

    def described(path):
        description = read_description(path)
        mean = on_val[description["architecture"]]
        return description | {"val_macro_f1_filtered": mean}

    monkeypatch.setattr(folds, "read_description", described)
    found = {
        name: predicted(world, name, path.parent, rivals=list(paths.values()))
        for name, path in paths.items()
    }
    assert len(pl.read_parquet(found["cnn"]))
    assert told(found["cnn"])[0]["reason"] == ""
    assert pl.read_parquet(found["mlp"]).schema == OUT_OF_FOLD_SCHEMA
    assert pl.read_parquet(found["mlp"]).is_empty()
    assert told(found["mlp"])[0]["reason"].startswith("cnn is better on val")
    on_val.update(mlp=None, cnn=None)  # none to choose: each is predicted
    assert len(
        pl.read_parquet(predicted(world, "mlp", paths["mlp"].parent, rivals=[*paths.values()]))
    )


@pytest.mark.parametrize(
    ("on_val", "best"),
    [({"mlp": 0.5, "cnn": 0.5}, "cnn"), ({"mlp": None, "cnn": 0.1}, "cnn"), ({"mlp": None}, None)],
)
def test_the_best_by_val_is_the_first_name_of_equals_and_never_one_that_failed(on_val, best):
    models = [{"architecture": name, "val_macro_f1_filtered": f1} for name, f1 in on_val.items()]
    assert best_by_val(models) == best
