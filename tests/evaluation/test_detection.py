"""Detection in time, from files to files."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from sklearn.metrics import average_precision_score, matthews_corrcoef

from cis490.channels import PHASES
from cis490.errors import FormatError
from cis490.evaluation.alarms import alarm_score
from cis490.evaluation.detection import ALARMS_SCHEMA, LIMITS, detect, read_thresholds
from cis490.evaluation.tables import METRICS_SCHEMA
from cis490.files import write_parquet
from tests.evaluation.world import SKILL, SMALL, World

LENGTH_S, STRIDE_S = 10, 5
SECOND = 10**9
INFECTED = ("infecting", "infected_running", "dormant")
# Alarms enough that most of the figures can be measured on a few episodes.
OFTEN = 60.0


@dataclass
class Fleet(World):
    """A world whose detectors give scores without ties, with telemetry and out-of-fold predictions.

    Attributes:
        silent: names of models without predictions out of fold.
    """

    silent: Iterable[str] = ()

    def write(self) -> Fleet:
        super().write()
        self.write_telemetry()
        for (architecture, mode), skill in self.skill.items():
            name = f"{architecture}_{mode}"
            fitted = self.scores(pl.col("part") != "test", name, 0, 0.5 if skill is None else skill)
            frame = fitted.with_columns(fold=pl.lit(0, pl.Int32))
            silent = skill is None or name in self.silent
            path = self.path("oof", self.name, f"{name}.parquet")
            told = {"reason": "fewer than 2 episodes" if silent else ""}
            write_parquet(path, frame.clear() if silent else frame, told)
        return self

    def write_telemetry(self) -> None:
        """A phase begins in the middle of the first window that it covers most of."""
        episodes, labels = [], []
        for i, ((name,), rows) in enumerate(
            self.windows.group_by("episode_id", maintain_order=True)
        ):
            started = i * 1000 * SECOND
            episodes.append((name, started))
            before = None
            for window, phase in rows.select("window", "phase").rows():
                if phase != before:
                    since = window * STRIDE_S + 4 if before else 0
                    labels.append((i, started + since * SECOND, phase))
                before = phase
        schema = {"episode_id": pl.String, "started_wall_ns": pl.Int64}
        folder = self.path("telemetry", "b")
        write_parquet(
            folder / "episodes.parquet", pl.DataFrame(episodes, schema=schema, orient="row")
        )
        schema = {"episode": pl.UInt32, "t_wall_ns": pl.Int64, "phase": pl.String}
        write_parquet(folder / "labels.parquet", pl.DataFrame(labels, schema=schema, orient="row"))

    def predictions(self, name: str, seed: int, skill: Any) -> pl.DataFrame:
        return self.scores(pl.col("part") != "train", name, seed, skill)

    def scores(self, chosen: pl.Expr, name: str, seed: int, skill: float) -> pl.DataFrame:
        frame = self.windows.filter(chosen).sort("part", "episode_id", "window")
        truth = frame["phase"].replace_strict(PHASES, range(5), return_dtype=pl.Int64).to_numpy()
        rng = np.random.default_rng([seed, *name.encode()])
        logits = rng.normal(size=(len(frame), 5))
        logits[np.arange(len(frame)), truth] += 6 * skill - 1
        p = np.exp(logits)
        p /= p.sum(1, keepdims=True)
        return frame.select(
            "episode_id", "window", "part", pl.lit(seed, pl.Int64).alias("seed"), "phase"
        ).with_columns(
            pl.Series(f"p_{phase}", p[:, k], pl.Float32) for k, phase in enumerate(PHASES)
        )

    def detect(self, per_hour: float = OFTEN, replicates: int = 300, **changed: Any) -> Fleet:
        given = self.arguments()
        folder = self.path("telemetry", "b")
        arguments: dict[str, Any] = {
            **{
                key: given[key]
                for key in ("split_file", "split_json", "features", "models", "predictions")
            },
            "episodes": [folder / "episodes.parquet"],
            "labels": [folder / "labels.parquet"],
            "out_of_fold": [self.path("oof", self.name, f"{name}.parquet") for name in self.names],
            "detection": self.path("eval", self.name, "detection.parquet"),
            "alarms": self.path("eval", self.name, "alarms.parquet"),
            "window": {"length_s": LENGTH_S, "stride_s": STRIDE_S},
            "replicates": replicates,
            "false_alarms_per_hour": per_hour,
            "hysteresis": 0.5,
        }
        detect(**{**arguments, **changed})
        return self

    @property
    def detection(self) -> pl.DataFrame:
        return pl.read_parquet(self.path("eval", self.name, "detection.parquet"))

    @property
    def alarms(self) -> pl.DataFrame:
        return pl.read_parquet(self.path("eval", self.name, "alarms.parquet"))

    @property
    def thresholds(self) -> dict[str, dict[str, Any]]:
        return read_thresholds(self.path("eval", self.name, "detection.parquet"))


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Fleet:
    folder = tmp_path_factory.mktemp("detected")
    return Fleet(folder, SMALL, SKILL, seeds=(7, 42)).write().detect()


def one(table: pl.DataFrame, metric: str, **where: Any) -> dict[str, Any]:
    """The row of the realistic cnn on test over all seeds, unless told otherwise."""
    asked = {"model": "cnn", "mode": "realistic", "part": "test", "key": "all"} | where
    seed = asked.pop("seed", None)
    chosen = pl.col("seed").is_null() if seed is None else pl.col("seed") == seed
    (row,) = table.filter(chosen, metric=metric, **asked).to_dicts()
    return row


def test_tables_have_their_columns_and_are_sorted(fleet: Fleet) -> None:
    assert fleet.detection.schema == METRICS_SCHEMA
    key = ["split", "model", "mode", pl.col("seed").fill_null(-1), "part", "scope", "key", "metric"]
    keys = fleet.detection.select(key).rows()
    assert keys == sorted(set(keys))
    assert fleet.alarms.schema == ALARMS_SCHEMA
    assert fleet.alarms.equals(fleet.alarms.sort("part", "model", "mode", "seed", "episode_id"))
    # Three models, two seeds, eight episodes of each part.
    assert len(fleet.alarms) == 3 * 2 * 16


def test_figures_are_those_of_the_episodes_listed(fleet: Fleet) -> None:
    mine = fleet.alarms.filter(model="cnn", mode="realistic", part="test")
    for seed in (7, 42):
        rows = mine.filter(seed=seed)
        row = one(fleet.detection, "false_alarms_per_hour", seed=seed)
        expected = rows["n_false"].sum() / rows["clean_hours"].sum()
        assert row["estimate"] == pytest.approx(expected)
        infections = rows.drop_nulls("onset_s")
        row = one(fleet.detection, "caught", seed=seed)
        assert row["estimate"] == pytest.approx(1 - infections["first_alarm_s"].is_null().mean())
        assert row["n_episodes"] == len(infections)
        delay = (infections["first_alarm_s"] - infections["onset_s"]).fill_null(np.inf)
        expected = np.sort(delay.to_numpy())[(len(delay) - 1) // 2]
        assert one(fleet.detection, "delay_median_s", seed=seed)["estimate"] == expected
    both = one(fleet.detection, "caught")["estimate"]
    alone = [one(fleet.detection, "caught", seed=seed)["estimate"] for seed in (7, 42)]
    assert both == pytest.approx(np.mean(alone))


def test_an_onset_is_that_of_the_labels_and_alarms_end_with_a_window(fleet: Fleet) -> None:
    rows = fleet.alarms.drop_nulls("onset_s")
    assert set((rows["onset_s"] % STRIDE_S).round(6)) == {4}
    caught = rows.drop_nulls("first_alarm_s")
    assert (caught["first_alarm_s"] >= caught["onset_s"]).all()
    assert set(caught["first_alarm_s"] % STRIDE_S) == {0}
    assert fleet.alarms.filter(profile="none")["onset_s"].null_count() == 3 * 2 * 4


def test_pr_auc_is_that_of_the_scores_written(fleet: Fleet) -> None:
    path = fleet.path("predictions", fleet.name, "cnn_realistic.parquet")
    frame = pl.read_parquet(path).filter(pl.col("phase") != "armed", part="test")
    expected = [
        average_precision_score(
            rows["phase"].is_in(INFECTED).to_numpy(),
            alarm_score(rows.select(f"p_{phase}" for phase in PHASES).to_numpy()),
        )
        for _, rows in frame.group_by("seed", maintain_order=True)
    ]
    row = one(fleet.detection, "pr_auc")
    assert row["estimate"] == pytest.approx(np.mean(expected), abs=1e-9)
    assert row["low"] < row["estimate"] < row["high"]
    assert row["n_windows"] == len(frame.filter(seed=7))


def test_every_figure_that_is_measured_has_an_interval_that_holds_it(fleet: Fleet) -> None:
    measured = fleet.detection.drop_nulls("low")
    assert len(measured) > 200
    assert (measured["low"] <= measured["estimate"] + 1e-12).all()
    assert (measured["estimate"] <= measured["high"] + 1e-12).all()
    nothing = fleet.detection.filter(pl.col("estimate").is_null())
    assert nothing["signature"].str.contains("interval=not measurable").all()
    assert {"tpr_at_fpr", "precision"} >= set(nothing["metric"])


def test_a_count_of_zero_has_an_exact_interval(tmp_path: Path) -> None:
    world = Fleet(tmp_path, SMALL, {("cnn", "realistic"): 3.0}).write().detect(per_hour=1)
    row = one(world.detection, "false_alarms_per_hour")
    hours = row["n_windows"] * STRIDE_S / 3600
    assert (row["estimate"], row["low"]) == (0, 0)
    assert row["high"] == pytest.approx(-np.log(0.025) / hours)
    assert "interval=exact" in row["signature"]
    assert f"|hours={hours:.4g}|" in row["signature"]
    caught = one(world.detection, "caught")
    assert caught["estimate"] == caught["high"] == 1
    assert 0 < caught["low"] < 1


def test_a_threshold_comes_from_out_of_fold_predictions_alone(fleet: Fleet, tmp_path: Path) -> None:
    chosen = fleet.thresholds["cnn_realistic"]
    assert chosen["reason"] is None
    assert chosen["seeds"] == [0]
    assert chosen["rule"]["release"] == chosen["rule"]["threshold"] / 2
    assert chosen["n_false"] <= OFTEN * chosen["hours"]
    told = f"|threshold={chosen['rule']['threshold']!r}|release="
    assert told in one(fleet.detection, "caught")["signature"]
    assert told in one(fleet.detection, "mcc", scope="threshold")["signature"]
    assert "threshold" not in one(fleet.detection, "mcc", scope="decision")["signature"]
    assert "threshold" not in one(fleet.detection, "pr_auc")["signature"]
    other = Fleet(tmp_path, SMALL, SKILL, seeds=(7, 42)).write()
    path = other.path("predictions", other.name, "cnn_realistic.parquet")
    frame = pl.read_parquet(path)
    worse = frame.with_columns(p_clean="p_dormant", p_dormant="p_clean")
    write_parquet(path, worse)
    assert other.detect().thresholds == fleet.thresholds
    assert not other.detection.equals(fleet.detection)


def test_val_chooses_no_threshold_where_it_is_what_is_shown(tmp_path: Path) -> None:
    without_test = {part: hosts for part, hosts in SMALL.items() if part != "test"}
    for folder, parts in (("val", without_test), ("test", SMALL)):
        world = Fleet(tmp_path / folder, parts, {("cnn", "realistic"): 0.5}).write().detect()
        before = world.thresholds
        path = world.path("oof", world.name, "cnn_realistic.parquet")
        write_parquet(path, pl.read_parquet(path).filter(pl.col("part") != "val"))
        assert (world.detect().thresholds == before) == (folder == "val")


def test_predictions_out_of_fold_of_a_test_episode_are_refused(tmp_path: Path) -> None:
    world = Fleet(tmp_path, SMALL, {("cnn", "realistic"): 0.5}).write()
    path = world.path("oof", world.name, "cnn_realistic.parquet")
    leak = world.scores(pl.col("part") == "test", "cnn_realistic", 0, 0.5)
    leak = leak.with_columns(fold=pl.lit(0, pl.Int32))
    write_parquet(path, pl.concat([pl.read_parquet(path), leak]))
    with pytest.raises(FormatError, match="birch-cpu-saturate-test-000 is no training or val"):
        world.detect()


def test_a_stricter_limit_gives_fewer_false_alarms_out_of_fold(tmp_path: Path) -> None:
    world = Fleet(tmp_path, SMALL, {("cnn", "realistic"): 0.5}).write()
    found = []
    for per_hour in (0, 30, 200):
        choice = world.detect(per_hour=per_hour, replicates=100).thresholds["cnn_realistic"]
        assert choice["n_false"] <= per_hour * choice["hours"]
        found.append(choice["rule"]["threshold"])
    assert found == sorted(found, reverse=True)
    assert len(set(found)) == 3


def test_for_every_limit_there_is_what_that_limit_alone_would_give(tmp_path: Path) -> None:
    world = Fleet(tmp_path, SMALL, {("cnn", "realistic"): 0.5}, seeds=(7, 42)).write()
    chosen = world.detect(per_hour=10).thresholds["cnn_realistic"]["limits"]
    assert set(chosen) == {"30", "100", "300"}
    table = world.detection.filter(scope="allowed")
    found = set()
    for limit, choice in chosen.items():
        own = world.detect(per_hour=float(limit))
        alone = own.thresholds["cnn_realistic"]
        assert choice == {name: alone[name] for name in choice}
        for metric in ("caught", "false_alarms_per_hour"):
            row, expected = one(table, metric, key=limit), one(own.detection, metric, scope="alarm")
            for name in ("estimate", "low", "high", "n_windows", "n_episodes", "signature"):
                assert row[name] == expected[name]
            found.add(row["estimate"])
    assert len(found) > 3


def test_no_false_alarms_allowed_is_no_limit_to_take_several_times(tmp_path: Path) -> None:
    world = Fleet(tmp_path, SMALL, {("cnn", "realistic"): 0.5}).write().detect(per_hour=0)
    assert world.thresholds["cnn_realistic"]["limits"] == {}
    assert "allowed" not in set(world.detection["scope"])


def test_decisions_are_judged_as_scikit_learn_judges_the_likeliest_phase(fleet: Fleet) -> None:
    path = fleet.path("predictions", fleet.name, "cnn_realistic.parquet")
    frame = pl.read_parquet(path).filter(pl.col("phase") != "armed", part="test")
    expected = []
    for _, rows in frame.group_by("seed", maintain_order=True):
        likeliest = rows.select(f"p_{phase}" for phase in PHASES).to_numpy().argmax(1)
        said = np.isin(np.array(PHASES)[likeliest], INFECTED)
        truth = rows["phase"].is_in(INFECTED).to_numpy()
        expected.append([matthews_corrcoef(truth, said), said[truth].mean(), said[~truth].mean()])
    for metric, value in zip(("mcc", "tpr", "fpr"), np.mean(expected, axis=0), strict=True):
        row = one(fleet.detection, metric, scope="decision")
        assert row["estimate"] == pytest.approx(value, abs=1e-9)
        assert row["low"] < value < row["high"]


def test_a_model_without_predictions_out_of_fold_is_ranked_but_raises_no_alarm(
    tmp_path: Path,
) -> None:
    world = Fleet(tmp_path, SMALL, SKILL, silent=["cnn_oracle"]).write().detect()
    mine = world.detection.filter(model="cnn", mode="oracle")
    assert set(mine["scope"]) == {"ranking", "decision", "decision_base_rate"}
    assert world.thresholds["cnn_oracle"]["rule"] is None
    reason = "no predictions out of fold: fewer than 2 episodes"
    assert world.thresholds["cnn_oracle"]["reason"] == reason
    assert world.alarms.filter(model="cnn", mode="oracle").is_empty()
    others = world.detection.filter(model="cnn", mode="realistic")
    at_thresholds = {"alarm", "allowed", "threshold", "base_rate", "since_infection"}
    assert set(others["scope"]) == set(mine["scope"]) | at_thresholds


def test_a_failed_model_has_no_rows_and_stops_nobody(fleet: Fleet, tmp_path: Path) -> None:
    assert fleet.detection.filter(model="gbt", mode="oracle").is_empty()
    assert not fleet.detection.filter(model="gbt", mode="realistic").is_empty()
    world = Fleet(tmp_path, SMALL, dict.fromkeys(SKILL)).write().detect()
    assert world.detection.schema == METRICS_SCHEMA
    assert world.detection.is_empty()
    assert world.alarms.schema == ALARMS_SCHEMA
    assert world.alarms.is_empty()
    assert set(world.thresholds) == set(world.names)


def test_the_same_inputs_give_the_same_bytes_in_any_order_of_models(tmp_path: Path) -> None:
    found = []
    for folder, skill in (("a", SKILL), ("b", dict(reversed(SKILL.items())))):
        world = Fleet(tmp_path / folder, SMALL, skill, seeds=(7, 42)).write().detect()
        files = ("detection.parquet", "alarms.parquet")
        found.append([world.path("eval", world.name, file).read_bytes() for file in files])
    assert found[0] == found[1]


def test_a_model_more_changes_no_other_models_figures(fleet: Fleet, tmp_path: Path) -> None:
    skill = {**SKILL, ("mlp", "oracle"): 0.3}
    more = Fleet(tmp_path, SMALL, skill, seeds=(7, 42)).write().detect()
    assert more.detection.filter(pl.col("model") != "mlp").equals(fleet.detection)


def test_two_seeds_are_drawn_so_that_their_mean_is_no_surer_than_either(fleet: Fleet) -> None:
    row = one(fleet.detection, "pr_auc")
    assert "seeds=7,42|" in row["signature"]
    alone = [one(fleet.detection, "pr_auc", seed=seed) for seed in (7, 42)]
    assert row["estimate"] == pytest.approx(np.mean([each["estimate"] for each in alone]))


def metrics_of(folder: Path, parts: dict[str, Any], part: str = "test") -> set[tuple[str, str]]:
    """The metrics and keys that are told of one part, after some parts were changed."""
    given = {name: hosts for name, hosts in {**SMALL, **parts}.items() if hosts}
    world = Fleet(folder, given, {("cnn", "realistic"): 0.6}).write().detect(replicates=100)
    assert set(world.detection["part"]) <= {"test", "val"} & set(given)
    return set(world.detection.filter(part=part).select("metric", "key").rows())


CAUGHT, CONTROLS = ("caught", "all"), ("false_alarms_per_hour", "controls")
FALSE, PR_AUC, MCC = ("false_alarms_per_hour", "all"), ("pr_auc", "all"), ("mcc", "all")


def test_without_infections_only_false_alarms_are_told(tmp_path: Path) -> None:
    parts = {"test": {"birch": {"none": 4}}}
    limits = {("false_alarms_per_hour", f"{times * OFTEN:g}") for times in LIMITS}
    assert metrics_of(tmp_path, parts) == {FALSE, CONTROLS} | limits


def test_without_controls_false_alarms_are_those_before_infections(tmp_path: Path) -> None:
    found = metrics_of(tmp_path, {"test": {"birch": {"io-walk": 4}}})
    assert {FALSE, CAUGHT, PR_AUC, MCC} <= found
    assert CONTROLS not in found


def test_without_a_test_part_val_is_told(tmp_path: Path) -> None:
    assert {FALSE, CONTROLS, CAUGHT, PR_AUC, MCC} <= metrics_of(tmp_path, {"test": {}}, "val")


def test_without_val_test_is_told(tmp_path: Path) -> None:
    assert {FALSE, CONTROLS, CAUGHT, PR_AUC, MCC} <= metrics_of(tmp_path, {"val": {}})


def test_with_nothing_to_score_the_tables_are_empty(tmp_path: Path) -> None:
    assert metrics_of(tmp_path, {"val": {}, "test": {}}) == set()


def test_with_nothing_to_choose_a_threshold_on_windows_are_ranked(tmp_path: Path) -> None:
    found = metrics_of(tmp_path, {"train": {}, "val": {}})
    assert PR_AUC in found
    assert {FALSE, CAUGHT}.isdisjoint(found)


def test_with_neither_a_threshold_nor_infections_nothing_is_told(tmp_path: Path) -> None:
    parts = {"train": {}, "val": {}, "test": {"birch": {"none": 4}}}
    assert metrics_of(tmp_path, parts) == set()


def test_controls_of_one_host_are_enough_to_choose_a_threshold_on(tmp_path: Path) -> None:
    parts = {"train": {"alder": {"none": 2}}, "val": {"alder": {"none": 1}}}
    assert {FALSE, CONTROLS, CAUGHT, PR_AUC, MCC} <= metrics_of(tmp_path, parts)


def test_one_episode_gives_estimates_and_no_percentiles(tmp_path: Path) -> None:
    parts = {**SMALL, "test": {"birch": {"io-walk": 1}}}
    world = Fleet(tmp_path, parts, {("cnn", "realistic"): 0.5}).write().detect()
    rows = world.detection.filter(part="test")
    assert not rows["signature"].str.contains("interval=percentile").any()
    assert 0 < one(world.detection, "pr_auc")["estimate"] <= 1


def test_a_class_that_is_absent_from_test_is_no_reason_to_fail(tmp_path: Path) -> None:
    phases = ("clean", "infecting", "infected_running")
    world = Fleet(tmp_path, SMALL, SKILL, phases=phases, train_phases=PHASES).write().detect()
    assert one(world.detection, "mcc", scope="threshold")["estimate"] is not None


def test_predictions_out_of_fold_that_are_no_numbers_are_refused_by_name(tmp_path: Path) -> None:
    world = Fleet(tmp_path, SMALL, {("cnn", "realistic"): 0.5}).write()
    path = world.path("oof", world.name, "cnn_realistic.parquet")
    frame = pl.read_parquet(path).with_columns(p_clean=pl.lit(float("nan"), pl.Float32))
    write_parquet(path, frame)
    with pytest.raises(FormatError, match=r"oof/host/cnn_realistic\.parquet"):
        world.detect()
