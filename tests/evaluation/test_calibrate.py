"""Calibration of one split, from files to files."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from sklearn.metrics import brier_score_loss, log_loss

from cis490.channels import PHASES
from cis490.errors import FormatError
from cis490.evaluation import calibrate as module
from cis490.evaluation.calibrate import calibrate
from cis490.evaluation.calibration import RELIABILITY_SCHEMA, scaled
from cis490.evaluation.tables import METRICS_SCHEMA
from cis490.files import read_parquet_metadata, write_parquet
from tests.evaluation.world import SOME, World

P = [f"p_{phase}" for phase in PHASES]
MANY = {"cpu-saturate": 6, "io-walk": 6, "none": 3}
PARTS = {"train": {"alder": MANY, "dogwood": MANY}, "val": {"alder": SOME}, "test": {"birch": SOME}}
SKILL = {("cnn", "oracle"): 1.5, ("gbt", "realistic"): 2.5, ("gbt", "oracle"): None}


class Fleet(World):
    """Detectors whose true phase has a logit that is `skill` higher, and which are too sure."""

    def predictions(self, name: str, seed: int, skill: Any) -> pl.DataFrame:
        frame = self.windows.filter(pl.col("part") != "train")
        return self.told(frame, [seed, *name.encode()], skill, seed).sort(
            "part", "episode_id", "window"
        )

    def told(self, frame: pl.DataFrame, stream: list[int], skill: float, seed: int) -> pl.DataFrame:
        rng = np.random.default_rng(stream)
        truth = frame["phase"].replace_strict(PHASES, range(len(PHASES)), return_dtype=pl.Int64)
        z = rng.normal(size=(len(frame), len(PHASES)))
        z[np.arange(len(frame)), truth.to_numpy()] += skill
        p = np.exp(3 * z - 3 * z.max(1, keepdims=True))
        p = (p / p.sum(1, keepdims=True)).astype(np.float32)
        named = frame.select(
            "episode_id", "window", "part", pl.lit(seed, pl.Int64).alias("seed"), "phase"
        )
        return named.with_columns(pl.Series(name, p[:, k], pl.Float32) for k, name in enumerate(P))

    def write(self) -> Fleet:
        super().write()
        for (architecture, mode), skill in self.skill.items():
            name = f"{architecture}_{mode}"
            frame = self.windows.filter(pl.col("part").is_in(["train", "val"]))
            frame = self.told(frame, [99, *name.encode()], skill or 0.0, 42)
            number = pl.col("episode_id").str.tail(3).cast(pl.Int32)
            frame = frame.with_columns(fold=number % 3)
            write_parquet(self.oof(name), frame if skill is not None else frame.clear())
        return self

    def oof(self, name: str) -> Path:
        return self.path("oof", self.name, f"{name}.parquet")

    def arguments(self) -> dict[str, Any]:
        kept = ("split_file", "split_json", "features", "predictions", "models", "evals")
        out = {
            name: self.path("eval", f"{name}.parquet") for name in ("calibration", "reliability")
        }
        found = {name: value for name, value in super().arguments().items() if name in kept}
        return found | out | {"out_of_fold": [self.oof(name) for name in self.names]}

    def calibrate(self) -> Fleet:
        arguments = self.arguments()
        del arguments["evals"]
        calibrate(**arguments, replicates=200)
        return self

    @property
    def table(self) -> pl.DataFrame:
        return pl.read_parquet(self.arguments()["calibration"])

    @property
    def diagrams(self) -> pl.DataFrame:
        return pl.read_parquet(self.arguments()["reliability"])

    def told_of(self, what: str) -> dict[str, Any]:
        content: dict[str, Any] = json.loads(
            read_parquet_metadata(self.arguments()["calibration"])[what]
        )
        return content

    def figure(self, metric: str, part: str = "test", **more: Any) -> dict[str, Any]:
        chosen = {"model": "cnn", "mode": "oracle", "part": part, "metric": metric, **more}
        scope = (
            {}
            if "scope" in more
            else {"scope": pl.col("scope").is_in(["calibration", "conformal"])}
        )
        rows = self.table.filter(pl.col("seed").is_null(), *scope.values(), **chosen).to_dicts()
        assert len(rows) == 1
        return rows[0]


@pytest.fixture(scope="module")
def calibrated(tmp_path_factory: pytest.TempPathFactory) -> Fleet:
    return (
        Fleet(tmp_path_factory.mktemp("calibrated"), PARTS, SKILL, seeds=(1, 2)).write().calibrate()
    )


def fleet(folder: Path, parts: Mapping[str, Any] = PARTS, **more: Any) -> Fleet:
    return Fleet(folder, parts, SKILL, **more).write()


def probabilities(fleet: Fleet, seed: int) -> tuple[np.ndarray, np.ndarray]:
    frame = pl.read_parquet(fleet.path("predictions", "host", "cnn_oracle.parquet"))
    frame = frame.filter(part="test", seed=seed)
    p = frame.select(P).to_numpy().astype(float)
    return p / p.sum(1, keepdims=True), np.array([PHASES.index(phase) for phase in frame["phase"]])


def test_the_tables_have_their_columns_and_are_sorted(calibrated: Fleet) -> None:
    assert calibrated.table.schema == METRICS_SCHEMA
    assert calibrated.diagrams.schema == RELIABILITY_SCHEMA
    key = calibrated.table.select(
        "model", "mode", pl.col("seed").fill_null(-1), "part", "scope", "key", "metric"
    ).rows()
    assert key == sorted(set(key))
    key = calibrated.diagrams.select("model", "mode", "part", "scaled", "bin").rows()
    assert key == sorted(set(key))
    assert len(key) == 2 * 2 * 15


def test_figures_are_means_over_seeds_of_scikit_learns_before_and_after(calibrated: Fleet) -> None:
    temperature = calibrated.figure("temperature", "oof")["estimate"]
    assert temperature > 1.5  # too sure, so it is cooled
    for name, change in (("", 1.0), ("_scaled", temperature)):
        costs = {"brier": brier_score_loss, "nll": log_loss}
        for metric, function in costs.items():
            per_seed = [
                function(truth, scaled(p, change), labels=range(5))
                for p, truth in (probabilities(calibrated, seed) for seed in (1, 2))
            ]
            row = calibrated.figure(metric + name)
            assert row["estimate"] == pytest.approx(np.mean(per_seed), abs=1e-6)
            assert row["low"] < row["estimate"] < row["high"]
            assert (row["n_windows"], row["n_episodes"]) == (88, 8)
            alone = calibrated.table.filter(model="cnn", metric=metric + name).drop_nulls("seed")
            assert alone["estimate"].to_list() == pytest.approx(per_seed, abs=1e-6)


def test_a_change_is_paired_so_its_interval_is_narrower_than_the_two(calibrated: Fleet) -> None:
    for metric in ("ece", "brier", "nll"):
        once, after = calibrated.figure(metric), calibrated.figure(f"{metric}_scaled")
        change = calibrated.figure(f"{metric}_change")
        assert change["estimate"] == pytest.approx(after["estimate"] - once["estimate"])
        assert change["high"] < 0  # three times too sure: scaling helps beyond doubt
        width = change["high"] - change["low"]
        assert width < after["high"] - once["low"] - (after["low"] - once["high"])


def test_signatures_say_which_temperature_and_sets_a_figure_rests_on(calibrated: Fleet) -> None:
    temperature = calibrated.figure("temperature", "oof")
    assert "interval=sandwich" in temperature["signature"]
    assert "seeds=-|" in temperature["signature"]
    said = f"|temperature={temperature['estimate']:.6g}"
    assert said in calibrated.figure("ece_scaled")["signature"]
    assert said not in calibrated.figure("ece")["signature"]
    assert "|alpha=0.1|least=0." in calibrated.figure("coverage")["signature"]


def test_a_diagram_holds_all_windows_of_all_seeds(calibrated: Fleet) -> None:
    for state in (False, True):
        own = calibrated.diagrams.filter(model="cnn", scaled=state)
        assert own["n_windows"].sum() == 2 * 88
        empty = own.filter(n_windows=0)
        assert empty["accuracy"].null_count() == len(empty) > 0


def test_sets_cover_out_of_fold_as_promised_and_their_coverage_on_test_is_told(
    calibrated: Fleet,
) -> None:
    inside = calibrated.figure("coverage", "oof")
    assert inside["n_episodes"] == 38
    assert 0.87 < inside["estimate"] < 0.97
    hosts = calibrated.table.filter(
        scope="conformal_host", part="oof", metric="coverage", model="cnn"
    )
    assert hosts["key"].to_list() == ["alder", "dogwood"]
    assert calibrated.table.filter(scope="conformal_host", part="test")[
        "key"
    ].unique().to_list() == ["birch"]
    assert 1 <= calibrated.figure("set_size")["estimate"] <= 5
    assert "birch" in calibrated.told_of("exchangeability")["cnn_oracle"]


def test_a_failed_model_has_reasons_and_no_rows(calibrated: Fleet) -> None:
    assert calibrated.table.filter(model="gbt", mode="oracle").is_empty()
    assert calibrated.told_of("not_measurable") == {
        "gbt_oracle": {
            "calibration": "its training failed",
            "conformal": "there are no out-of-fold predictions",
            "temperature": "there are no out-of-fold predictions",
        }
    }


def test_without_out_of_fold_predictions_only_what_needs_none_is_told(tmp_path: Path) -> None:
    world = fleet(tmp_path)
    path = world.oof("cnn_oracle")
    write_parquet(path, pl.read_parquet(path).clear())
    world.calibrate()
    own = world.table.filter(model="cnn")
    assert set(own["metric"]) == {"ece", "brier", "nll"}
    assert set(world.diagrams.filter(model="cnn")["scaled"]) == {False}
    assert set(world.told_of("not_measurable")["cnn_oracle"]) == {"temperature", "conformal"}


def test_what_chooses_is_never_what_is_shown(tmp_path: Path, calibrated: Fleet) -> None:
    world = fleet(tmp_path, seeds=(1, 2))
    features = world.arguments()["features"][0]
    held_out = pl.col("episode_id").str.starts_with("birch")
    changed = pl.when(held_out).then(pl.lit("dormant")).otherwise("phase").alias("phase")
    write_parquet(features, pl.read_parquet(features).with_columns(changed))
    for path in world.arguments()["predictions"]:
        write_parquet(path, pl.read_parquet(path).with_columns(changed))
    world.calibrate()
    chosen = {"part": "oof"}
    assert world.table.filter(**chosen).equals(calibrated.table.filter(**chosen))
    assert not world.table.equals(calibrated.table)


def test_without_test_val_is_shown_and_chooses_nothing(tmp_path: Path) -> None:
    parts = {part: hosts for part, hosts in PARTS.items() if part != "test"}
    world = fleet(tmp_path, parts).calibrate()
    assert set(world.table["part"]) == {"oof", "val"}
    assert world.figure("temperature", "oof")["n_episodes"] == 30
    assert set(world.table.filter(part="val")["scope"]) == {"calibration"}
    assert world.told_of("exchangeability") == {}


def test_few_training_episodes_give_no_sets_but_a_temperature(tmp_path: Path) -> None:
    few = {"train": {"alder": SOME}, "val": {"alder": SOME}, "test": {"birch": SOME}}
    world = fleet(tmp_path, few).calibrate()
    assert world.table.filter(pl.col("scope").str.starts_with("conformal")).is_empty()
    reasons = world.told_of("not_measurable")["cnn_oracle"]
    assert reasons["conformal"] == "it takes 19 calibration episodes, there are 16"
    assert world.figure("temperature", "oof")["n_episodes"] == 16


def test_one_test_episode_gives_estimates_without_intervals(tmp_path: Path) -> None:
    world = fleet(tmp_path, {**PARTS, "test": {"birch": {"io-walk": 1}}}).calibrate()
    shown = world.table.filter(part="test", scope="calibration")
    assert len(shown)
    assert shown["low"].null_count() == len(shown)
    assert "Too few episodes" in world.told_of("exchangeability")["cnn_oracle"]


@pytest.mark.parametrize("part", ["train", "test"])
def test_a_store_of_one_part_is_legal(tmp_path: Path, part: str) -> None:
    world = fleet(tmp_path, {part: PARTS[part]}).calibrate()
    assert world.table.schema == METRICS_SCHEMA
    assert set(world.table["part"]) == ({"oof"} if part == "train" else {"test"})


def test_a_class_missing_from_test_has_no_row_and_harms_none(tmp_path: Path) -> None:
    world = fleet(tmp_path, phases=PHASES[:3], train_phases=PHASES).calibrate()
    keys = world.table.filter(scope="conformal_phase", part="test")["key"]
    assert set(keys) == set(PHASES[:3])


def test_a_fold_that_failed_is_left_out_and_seen_in_n(tmp_path: Path) -> None:
    world = fleet(tmp_path)
    path = world.oof("cnn_oracle")
    write_parquet(path, pl.read_parquet(path).filter(pl.col("fold") != 1))
    world.calibrate()
    assert world.figure("temperature", "oof")["n_episodes"] < 38
    whole = world.table.filter(model="gbt", metric="temperature")
    assert whole["n_episodes"].to_list() == [38]


def test_the_same_inputs_give_the_same_bytes_however_many_models_are_held_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    outputs = []
    for folder, together in (("a", 6), ("b", 1)):
        monkeypatch.setattr(module, "TOGETHER", together)
        arguments = fleet(tmp_path / folder).calibrate().arguments()
        outputs.append([arguments[name].read_bytes() for name in ("calibration", "reliability")])
    assert outputs[0] == outputs[1]


def broken(frame: pl.DataFrame, how: str) -> pl.DataFrame:
    if how == "a window twice":
        return pl.concat([frame, frame.head(1)])
    if how == "another split's":
        return frame.with_columns(episode_id="x-" + pl.col("episode_id"))
    return frame.with_columns(phase=pl.lit("armed"))


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("a window twice", "a window twice"),
        ("another split's", "neither train nor val"),
        ("another truth", "another true phase"),
    ],
)
def test_out_of_fold_predictions_that_do_not_fit_are_refused_by_name(
    tmp_path: Path, how: str, message: str
) -> None:
    world = fleet(tmp_path)
    path = world.oof("cnn_oracle")
    write_parquet(path, broken(pl.read_parquet(path), how))
    with pytest.raises(FormatError, match=f"cnn_oracle.*{message}"):
        world.calibrate()


def test_out_of_fold_predictions_of_another_model_are_refused(tmp_path: Path) -> None:
    arguments = fleet(tmp_path).arguments()
    arguments["out_of_fold"].reverse()
    del arguments["evals"]
    with pytest.raises(FormatError, match="expected the out-of-fold predictions of cnn_oracle"):
        calibrate(**arguments, replicates=200)
