"""production_summary.json: its documented shape, and the numbers of the tables."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import jsonschema
import polars as pl
import pytest
import yaml

from cis490 import __version__
from cis490.files import read_json, write_json
from cis490.report.summary import MISSED
from tests.conftest import ROOT
from tests.evaluation.world import SKILL, SMALL, SOME
from tests.report.fleet import Fleet, render

SCHEMA = yaml.safe_load((ROOT / "schemas/production_summary.schema.yaml").read_text())


def summary(fleet: Fleet, **options: Any) -> dict[str, Any]:
    content = read_json(render(fleet, **options).with_name("production_summary.json"))
    jsonschema.Draft202012Validator(SCHEMA).validate(content)
    assert isinstance(content, dict)
    return content


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Fleet:
    folder = tmp_path_factory.mktemp("fleet")
    return Fleet(folder, SMALL, SKILL, seeds=(1, 2), untested=["scan-and-dial"]).make()


@pytest.fixture(scope="module")
def content(fleet: Fleet) -> dict[str, Any]:
    return summary(fleet)


def test_the_schema_is_one(content: dict[str, Any]) -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.Draft202012Validator(SCHEMA).validate(content | {"more": 1})


def test_every_figure_is_that_of_the_tables(fleet: Fleet, content: dict[str, Any]) -> None:
    (split,) = content["splits"]
    detectors = {(each["architecture"], each["mode"]): each for each in split["detectors"]}
    n = 0
    for name in ("metrics", "detection", "calibration"):
        for row in pl.read_parquet(fleet.table(name)).filter(pl.col("seed").is_null()).to_dicts():
            figures = detectors[row["model"], row["mode"]]["figures"]
            own = figures[row["part"]][row["scope"]][row["key"]][row["metric"]]
            for end in ("estimate", "low", "high"):
                infinite = row[end] is not None and math.isinf(row[end])
                assert own[end] == (MISSED if infinite else row[end])
            assert (own["n_windows"], own["n_episodes"]) == (row["n_windows"], row["n_episodes"])
            n += 1
    assert n > 500


def test_it_names_the_best_by_val_its_threshold_and_what_was_not_tested(
    fleet: Fleet, content: dict[str, Any]
) -> None:
    (split,) = content["splits"]
    assert content["cis490"] == __version__
    assert split["best"] == {"architecture": "gbt", "mode": "realistic"}
    assert split["answer"].startswith("The best realistic detector by val, gbt, reaches")
    assert split["untested_profiles"] == ["scan-and-dial"]
    assert split["sha256"] == read_json(fleet.path("splits", "host.json"))["sha256"]
    assert content["downgraded_hosts"][0]["host_id"] == "birch"
    by_name = {(each["architecture"], each["mode"]): each for each in split["detectors"]}
    best = by_name["gbt", "realistic"]
    assert best["threshold"]["release"] == best["threshold"]["threshold"] / 2
    assert best["signature"].startswith("macro_f1|")
    failed = by_name["gbt", "oracle"]
    assert (failed["status"], failed["figures"]) == ("failed", {})
    assert "out of fold" in failed["threshold_reason"]
    assert by_name["window_index", "baseline"]["baseline"]


def test_what_was_measured_on_this_machine_is_no_part_of_it() -> None:
    text = str(SCHEMA)
    assert "latency" not in text
    assert "p50" not in text


@pytest.mark.parametrize(
    "parts",
    [{"train": {"alder": SOME}}, {part: SMALL[part] for part in ("train", "test")}],
    ids=["nothing scored", "no val"],
)
def test_without_a_best_it_keeps_its_shape(parts: dict[str, Any], tmp_path: Path) -> None:
    (split,) = summary(Fleet(tmp_path, parts, SKILL).make())["splits"]
    assert split["best"] is None


def test_a_simulated_store_has_no_answer(tmp_path: Path) -> None:
    fleet = Fleet(tmp_path, SMALL, {("cnn", "realistic"): 0.7}).make()
    split = fleet.path("splits", "host.json")
    write_json(split, read_json(split) | {"n_simulated": 32})
    content = summary(fleet)
    assert content["simulated_episodes"] == 32
    assert "reaches" not in content["splits"][0]["answer"]
    assert "clones of real ones" in content["splits"][0]["answer"]


def test_without_the_later_stages_it_keeps_its_shape(fleet: Fleet) -> None:
    (split,) = summary(fleet, stages=())["splits"]
    assert {each.get("threshold") for each in split["detectors"]} == {None}
