"""The evaluation of one split, from files to files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from sklearn.metrics import confusion_matrix, f1_score

from cis490.channels import PHASES
from cis490.errors import FormatError
from cis490.evaluation.tables import BEST_OF, METRICS_SCHEMA, PAIRWISE_SCHEMA
from cis490.files import read_json, read_parquet_metadata, write_parquet
from tests.evaluation.world import SKILL, SMALL, SOME, World


def overall(world: World, model: str, mode: str, part: str = "test") -> dict[str, Any]:
    rows = world.metrics.filter(
        pl.col("seed").is_null(), model=model, mode=mode, part=part, scope="all", metric="macro_f1"
    ).to_dicts()
    assert len(rows) == 1
    return rows[0]


def summary(world: World, name: str) -> dict[str, Any]:
    path = next(path for path in world.arguments()["evals"] if path.stem == f"{name}_eval")
    content: dict[str, Any] = read_json(path)
    return content


def test_tables_have_the_columns_of_the_statistics_page_and_are_sorted(evaluated: World) -> None:
    assert evaluated.metrics.schema == METRICS_SCHEMA
    assert evaluated.pairwise.schema == PAIRWISE_SCHEMA
    keys = evaluated.metrics.select(
        "split", "model", "mode", pl.col("seed").fill_null(-1), "part", "scope", "key", "metric"
    )
    assert keys.rows() == sorted(set(keys.rows()))
    pairs = evaluated.pairwise.select("model_a", "mode_a", "model_b", "mode_b").rows()
    assert pairs == sorted(set(pairs))
    assert len(pairs) == 6 * 5 / 2  # three models and three baselines
    assert all(pair[:2] < pair[2:] for pair in pairs)


def test_macro_f1_is_that_of_the_predicted_windows(evaluated: World) -> None:
    frame = pl.read_parquet(evaluated.arguments()["predictions"][0]).filter(part="test")
    said = frame.select(f"p_{phase}" for phase in PHASES).to_numpy().argmax(1)
    truth = [PHASES.index(phase) for phase in frame["phase"]]
    expected = f1_score(truth, said, labels=sorted(set(truth)), average="macro", zero_division=0)
    row = overall(evaluated, "cnn", "realistic")
    assert row["estimate"] == pytest.approx(expected, abs=1e-12)
    assert row["low"] < row["estimate"] < row["high"]
    assert (row["n_windows"], row["n_episodes"]) == (88, 8)
    content = summary(evaluated, "cnn_realistic")
    assert content["confusion"]["labels"] == list(PHASES)
    np.testing.assert_array_equal(
        content["confusion"]["counts"], confusion_matrix(truth, said, labels=range(5))
    )


def test_clear_windows_are_those_with_a_share_of_at_least_0_8(evaluated: World) -> None:
    row = evaluated.metrics.filter(
        model="cnn", mode="oracle", part="test", scope="phase_share", seed=42
    )
    clear = evaluated.windows.filter(pl.col("phase_share") >= 0.8, part="test")
    assert row["key"].to_list() == [">=0.8"]
    assert row["n_windows"].to_list() == [len(clear)]


def test_figures_are_broken_down_by_sample_background_and_status(evaluated: World) -> None:
    rows = evaluated.metrics.filter(model="cnn", mode="oracle", part="test")
    alone = set(rows.filter(seed=42)["scope"])
    assert alone == {"all", "phase", "phase_share", "profile", "host"}
    rows = rows.filter(pl.col("seed").is_null())

    def n_episodes(scope: str) -> dict[tuple[str, str], int]:
        return {
            (key, metric): n
            for key, metric, n in rows.filter(scope=scope)
            .select("key", "metric", "n_episodes")
            .rows()
        }

    assert n_episodes("sample") == {
        ("cpu-saturate/cpu-saturate-a", "macro_f1"): 2,
        ("cpu-saturate/cpu-saturate-b", "macro_f1"): 1,
        ("io-walk/io-walk-a", "macro_f1"): 2,
        ("io-walk/io-walk-b", "macro_f1"): 1,
        ("none/none", "false_alarm_rate"): 2,
    }
    assert n_episodes("background") == {
        ("build", "false_alarm_rate"): 1,
        ("build", "macro_f1"): 3,
        ("idle", "false_alarm_rate"): 2,
        ("idle", "macro_f1"): 6,
        ("none", "macro_f1"): 2,
    }
    assert n_episodes("status") == {("accepted", "macro_f1"): 8}


def test_a_split_of_before_is_refused_by_name(tmp_path: Path) -> None:
    world = World(tmp_path, SMALL, SKILL).write()
    path = world.arguments()["split_file"]
    write_parquet(path, pl.read_parquet(path).drop("background"))
    with pytest.raises(FormatError, match=r"host\.parquet.*background"):
        world.evaluate()


def test_eval_json_says_what_the_table_says(evaluated: World) -> None:
    content = summary(evaluated, "cnn_oracle")
    row = overall(evaluated, "cnn", "oracle")
    assert {key: content["macro_f1"][key] for key in ("estimate", "low", "high")} == {
        key: row[key] for key in ("estimate", "low", "high")
    }
    assert content["signature"] == row["signature"]
    assert set(content["per_phase"]) == set(evaluated.windows.filter(part="test")["phase"])
    assert "false_alarm_rate" in content["per_profile"]["none"]
    assert "macro_f1" in content["per_profile"]["io-walk"]
    assert list(content["per_host"]) == ["birch"]
    assert content["latency"]["p95_ms"] == 2.5
    assert content["size"] == {"bytes_on_disk": 1000, "n_parameters": 10}
    assert content["n"] == {"windows": 88, "episodes": 8, "hosts": 1, "seeds": [42]}


def test_a_signature_names_all_that_the_figure_depends_on(evaluated: World) -> None:
    assert overall(evaluated, "cnn", "oracle")["signature"] == (
        "macro_f1|unit=episode|n=88/8|strata=profile|interval=percentile|B=200|rng=PCG64:490|seeds=42|"
        "split=c0ffeec0ffee|checkpoint=c4ecc4ecc4ec|v=0.1.0"
    )


def test_the_pairs_file_says_what_all_its_rows_rest_on(evaluated: World) -> None:
    told = read_parquet_metadata(evaluated.arguments()["pairwise"])
    assert told["split_sha256"] == "c0ffee" * 10 + "beef"
    shown = evaluated.windows.filter(part="test")
    assert int(told["n_windows"]) == len(shown)
    assert int(told["n_episodes"]) == shown["episode_id"].n_unique()
    checkpoints = json.loads(told["checkpoints"])
    assert checkpoints["cnn_oracle"] == "c4ec" * 16
    assert checkpoints["majority_baseline"] == "-"


def test_seeds_have_a_standard_deviation_beside_their_mean(tmp_path: Path) -> None:
    world = World(tmp_path, SMALL, SKILL, seeds=(1, 2, 3), lost=(2,)).write().evaluate()
    rows = world.metrics.filter(model="cnn", mode="oracle", part="test", scope="all")
    alone = rows.filter(pl.col("seed").is_not_null(), metric="macro_f1")["estimate"].to_list()
    assert len(alone) == 2
    (row,) = rows.filter(metric="macro_f1_sd").to_dicts()
    assert row["estimate"] == pytest.approx(np.std(alone, ddof=1))
    assert (row["seed"], row["low"], row["high"]) == (None, None, None)
    assert "seeds=1,3|" in row["signature"]
    assert world.metrics.filter(model="majority", metric="macro_f1_sd").is_empty()


def test_one_seed_has_no_standard_deviation(evaluated: World) -> None:
    assert evaluated.metrics.filter(metric="macro_f1_sd").is_empty()


def test_a_failed_model_has_a_reason_and_no_figures(evaluated: World) -> None:
    content = summary(evaluated, "gbt_oracle")
    assert content["status"] == "failed"
    assert content["reason"] == "loss became NaN at epoch 3"
    measured = ["macro_f1", "per_phase", "per_profile", "per_host", "confusion", "signature"]
    assert {key: content[key] for key in measured} == dict.fromkeys(measured)
    assert evaluated.metrics.filter(model="gbt", mode="oracle").is_empty()
    assert evaluated.pairwise.filter(model_a="gbt", mode_a="oracle").is_empty()


def test_the_same_inputs_give_the_same_bytes(tmp_path: Path) -> None:
    outputs = []
    for folder in ("a", "b"):
        world = World(tmp_path / folder, SMALL, SKILL).write().evaluate()
        found = [world.arguments()[key] for key in ("metrics", "pairwise")]
        outputs.append([path.read_bytes() for path in found + world.arguments()["evals"]])
    assert outputs[0] == outputs[1]


def test_the_order_of_the_models_changes_no_number(evaluated: World, tmp_path: Path) -> None:
    backwards = World(tmp_path, SMALL, dict(reversed(SKILL.items()))).write().evaluate()
    assert backwards.metrics.equals(evaluated.metrics)
    assert backwards.pairwise.equals(evaluated.pairwise)


def test_a_model_more_changes_no_other_models_interval(evaluated: World, tmp_path: Path) -> None:
    more = World(tmp_path, SMALL, {**SKILL, ("mlp", "oracle"): 0.3}).write().evaluate()
    own = pl.col("metric") != BEST_OF  # which asks who else there is
    found = more.metrics.filter(own, pl.col("model") != "mlp")
    assert found.equals(evaluated.metrics.filter(own))


def test_how_often_each_is_the_best_of_its_mode_on_val_is_told(evaluated: World) -> None:
    shares = evaluated.metrics.filter(metric=BEST_OF)
    assert set(shares["part"]) == {"val"}
    on_val = evaluated.metrics.filter(pl.col("seed").is_null(), part="val", scope="all")
    f1 = on_val.filter(metric="macro_f1")
    for (mode,), rows in shares.group_by("mode"):
        assert rows["estimate"].sum() == pytest.approx(1)
        own = f1.filter(pl.col("model").is_in(rows["model"].to_list()), mode=mode)
        best = own.sort("estimate", "model", descending=[True, False])["model"][0]
        first = rows.sort("estimate", descending=True)["model"][0]
        assert (len(own), first) == (len(rows), best)


def test_baselines_learn_from_train_only(evaluated: World, tmp_path: Path) -> None:
    world = World(tmp_path, SMALL, {}).write()
    baselines = evaluated.metrics.filter(mode="baseline", part="val")
    # Every test window gets another phase: nothing on val may move.
    held_out = pl.col("host_id") == "birch"
    features = world.arguments()["features"][0]
    changed = pl.read_parquet(features).with_columns(
        phase=pl.when(held_out).then(pl.lit("dormant")).otherwise("phase")
    )
    write_parquet(features, changed)
    world.evaluate()
    assert world.metrics.filter(mode="baseline", part="val").equals(baselines)
    # And changed training windows do move window index alone.
    trained = pl.col("episode_id").str.contains("train")
    write_parquet(
        features,
        changed.with_columns(phase=pl.when(trained).then(pl.lit("dormant")).otherwise("phase")),
    )
    world.evaluate()
    assert not world.metrics.filter(mode="baseline", part="val").equals(baselines)


def test_each_seed_has_rows_of_its_own_and_the_mean_has_none(tmp_path: Path) -> None:
    world = World(tmp_path, SMALL, {("cnn", "oracle"): 0.6}, seeds=(1, 2, 3)).write().evaluate()
    chosen = world.metrics.filter(model="cnn", part="test", scope="all", metric="macro_f1")
    assert chosen["seed"].to_list() == [None, 1, 2, 3]
    mean, *alone = chosen["estimate"].to_list()
    assert mean == pytest.approx(np.mean(alone))
    assert "seeds=1,2,3" in chosen["signature"][0]
    content = summary(world, "cnn_oracle")
    assert content["confusion"]["n_seeds"] == 3
    assert np.sum(content["confusion"]["counts"]) == 3 * 88


def test_without_a_test_part_val_is_shown(tmp_path: Path) -> None:
    parts = {part: hosts for part, hosts in SMALL.items() if part != "test"}
    world = World(tmp_path, parts, SKILL).write().evaluate()
    assert set(world.metrics["part"]) == {"val"}
    assert len(world.pairwise) == 15
    assert summary(world, "cnn_oracle")["part"] == "val"


def test_one_test_episode_gives_estimates_without_intervals(tmp_path: Path) -> None:
    parts = {**SMALL, "test": {"birch": {"io-walk": 1}}}
    world = World(tmp_path, parts, SKILL).write().evaluate()
    row = overall(world, "cnn", "realistic")
    assert 0 < row["estimate"] < 1
    assert row["low"] is None
    assert world.pairwise["p"].null_count() == len(world.pairwise)


def test_a_class_absent_from_test_is_no_part_of_macro_f1(tmp_path: Path) -> None:
    world = World(tmp_path, SMALL, SKILL, phases=PHASES[:4], train_phases=PHASES)
    world.write().evaluate()
    scored = world.metrics.filter(scope="phase", part="test")
    assert set(scored["key"]) == set(PHASES[:4])
    frame = pl.read_parquet(world.arguments()["predictions"][0]).filter(part="test")
    said = frame.select(f"p_{phase}" for phase in PHASES).to_numpy().argmax(1)
    truth = [PHASES.index(phase) for phase in frame["phase"]]
    expected = f1_score(truth, said, labels=range(4), average="macro", zero_division=0)
    assert overall(world, "cnn", "realistic")["estimate"] == pytest.approx(expected)


def test_a_class_absent_from_train_counts_as_missed(tmp_path: Path) -> None:
    world = World(tmp_path, SMALL, SKILL, train_phases=PHASES[:4]).write().evaluate()
    row = world.metrics.filter(
        model="window_index", part="test", scope="phase", key="dormant", metric="f1"
    ).to_dicts()[0]
    assert row["estimate"] == row["low"] == 0
    assert row["high"] > 0


def test_when_all_models_failed_the_baselines_are_still_scored(tmp_path: Path) -> None:
    world = World(tmp_path, SMALL, dict.fromkeys(SKILL)).write().evaluate()
    assert set(world.metrics["model"]) == {"majority", "always_infected", "window_index"}
    assert {summary(world, name)["status"] for name in world.names} == {"failed"}


def test_no_window_to_score_gives_empty_tables(tmp_path: Path) -> None:
    world = World(tmp_path, {"train": {"alder": SOME}}, {("cnn", "oracle"): 0.5})
    world.write().evaluate()
    assert world.metrics.is_empty()
    assert world.metrics.schema == METRICS_SCHEMA
    assert world.pairwise.is_empty()
    assert summary(world, "cnn_oracle")["macro_f1"] is None


def test_without_training_episodes_there_is_no_clock_but_a_table(tmp_path: Path) -> None:
    world = World(tmp_path, {"test": {"birch": SOME}}, {("cnn", "oracle"): 0.5})
    world.write().evaluate()
    assert set(world.metrics["model"]) == {"always_infected", "cnn"}


def broken(frame: pl.DataFrame, how: str) -> pl.DataFrame:
    if how == "lacks a window":
        return frame.slice(1)
    if how == "a window twice":
        return pl.concat([frame, frame.head(1)])
    if how == "another truth":
        return frame.with_columns(phase=pl.lit("armed"))
    if how == "another seed":
        return frame.with_columns(seed=pl.lit(7, pl.Int64))
    if how == "not a number":
        return frame.with_columns(p_clean=pl.lit(float("nan"), pl.Float32))
    return frame.clear()


@pytest.mark.parametrize(
    "how",
    [
        "lacks a window",
        "a window twice",
        "another truth",
        "another seed",
        "not a number",
        "no rows",
    ],
)
def test_predictions_that_do_not_fit_are_refused_by_name(tmp_path: Path, how: str) -> None:
    world = World(tmp_path, SMALL, SKILL).write()
    path = world.arguments()["predictions"][1]
    write_parquet(path, broken(pl.read_parquet(path), how))
    with pytest.raises(FormatError, match=path.name):
        world.evaluate()


def test_predictions_of_another_model_are_refused(tmp_path: Path) -> None:
    world = World(tmp_path, SMALL, SKILL).write()
    arguments = world.arguments()
    arguments["predictions"].reverse()
    world.arguments = lambda: arguments  # type: ignore[method-assign]
    with pytest.raises(FormatError, match="expected the predictions of"):
        world.evaluate()


def test_the_measured_coverage_is_of_a_detector_never_of_a_trained_baseline(tmp_path: Path) -> None:
    skill = {**SKILL, ("minirocket", "realistic"): 0.97}
    metrics = World(tmp_path, SMALL, skill).write().evaluate().metrics
    assert set(metrics.filter(metric="macro_f1_coverage")["model"]) == {"gbt"}
    assert set(metrics.filter(model="minirocket")["mode"]) == {"realistic"}
