"""The evaluation as a library: any detectors, any classes, one call."""

from __future__ import annotations

import contextlib
import io
import re
from typing import Any

import numpy as np
import polars as pl
import pytest
from polars.testing import assert_frame_equal
from sklearn.metrics import f1_score

from cis490.channels import PHASES
from cis490.errors import Cis490Error
from cis490.evaluation import compare_detectors
from tests.conftest import ROOT
from tests.evaluation.world import World

CLASSES = np.array(["benign", "dropper", "miner", "worm", "scanner", "backdoor", "wiper"])


def sample(n: int = 20, seed: int = 0) -> dict[str, Any]:
    """n files of 5 windows, of seven classes; two detectors, one of them trained three times."""
    rng = np.random.default_rng(seed)
    truth = rng.choice(CLASSES, 5 * n)
    said = [np.where(rng.random(5 * n) < 0.7, truth, rng.choice(CLASSES, 5 * n)) for _ in range(4)]
    return {
        "truth": truth,
        "predictions": {"net": {7: said[0], 1: said[1], 3: said[2]}, "rule": said[3]},
        "cluster": np.repeat([f"file{i}" for i in range(n)], 5),
        "stratum": np.repeat(["old", "new"], 5 * n // 2),
    }


def figure(scores: pl.DataFrame, detector: str, metric: str, **of: Any) -> dict[str, Any]:
    seed = of.pop("seed", None)
    rows = scores.filter(pl.col("seed").eq_missing(seed), detector=detector, metric=metric, **of)
    (row,) = rows.to_dicts()
    return row


@pytest.mark.parametrize("nothing", [None, float("nan")])
def test_a_window_without_a_class_is_refused_not_scored_as_one(nothing: Any) -> None:
    given = sample()
    for name in ("truth", "rule"):
        lacking = np.array(
            given["predictions"]["rule"] if name == "rule" else given["truth"], object
        )
        lacking[[3, 9]] = nothing
        changed = given | {"truth": lacking}
        if name == "rule":
            changed = given | {"predictions": given["predictions"] | {"rule": lacking}}
        with pytest.raises(Cis490Error, match=rf"{name}: row 3 has no value \(n=2 such rows\)"):
            compare_detectors(**changed, replicates=100)


def test_seeds_that_are_no_integers_are_refused() -> None:
    given = sample()
    given["predictions"]["net"] = {"s1": given["predictions"]["rule"]}
    with pytest.raises(Cis490Error, match="net has the seed 's1'; give integers"):
        compare_detectors(**given, replicates=100)


def test_the_library_gives_the_figures_of_the_workflow(evaluated: World) -> None:
    arguments = evaluated.arguments()
    predictions: dict[str, Any] = {}
    for path in arguments["predictions"]:
        frame = pl.read_parquet(path).filter(part="test").sort("episode_id", "window")
        if len(frame):
            said = frame.select(f"p_{phase}" for phase in PHASES).to_numpy().argmax(1)
            predictions[path.stem] = {42: np.array(PHASES)[said]}
    windows = evaluated.windows.filter(part="test").sort("episode_id", "window")
    scores, pairs = compare_detectors(
        windows["phase"],
        predictions,
        cluster=windows["episode_id"],
        stratum=windows["profile"],
        replicates=200,
    )
    key = ["seed", "metric", "estimate", "low", "high", "n_windows", "n_valid_replicates"]
    for name in predictions:
        model, mode = name.split("_")
        theirs = evaluated.metrics.filter(model=model, mode=mode, part="test", scope="all")
        theirs = theirs.filter(~pl.col("metric").str.contains("coverage"))
        ours = scores.filter(detector=name, scope="all")
        # Classes are added up in another order.
        assert_frame_equal(ours.select(key), theirs.select(key), abs_tol=1e-12)
    between = evaluated.pairwise.filter(model_a="cnn", mode_a="realistic", model_b="gbt")
    ours = pairs.filter(detector_a="cnn_realistic", detector_b="gbt_realistic")
    columns = ["diff", "low", "high", "effect", "p"]
    assert_frame_equal(ours.select(columns), between.select(columns), abs_tol=1e-9)


def test_any_classes_are_scored_as_scikit_learn_does() -> None:
    given = sample()
    scores, _ = compare_detectors(**given, replicates=50)
    for seed, said in given["predictions"]["net"].items():
        expected = f1_score(given["truth"], said, average="macro")
        row = figure(scores, "net", "macro_f1", seed=seed)
        assert row["estimate"] == pytest.approx(expected, abs=1e-12)
    rule = given["predictions"]["rule"]
    for name, expected in zip(
        sorted(CLASSES), f1_score(given["truth"], rule, average=None), strict=True
    ):
        row = figure(scores, "rule", "f1", scope="class", key=name)
        assert row["estimate"] == pytest.approx(expected, abs=1e-12)


def test_seeds_have_rows_of_their_own_and_a_mean() -> None:
    scores, pairs = compare_detectors(**sample(), replicates=100)
    of = [figure(scores, "net", "macro_f1", seed=seed)["estimate"] for seed in (1, 3, 7)]
    mean = figure(scores, "net", "macro_f1")
    assert mean["estimate"] == pytest.approx(np.mean(of))
    assert (mean["n_windows"], mean["n_clusters"]) == (100, 20)
    assert figure(scores, "net", "macro_f1_sd")["estimate"] == pytest.approx(np.std(of, ddof=1))
    assert figure(scores, "net", "macro_f1_bca")["low"] < mean["estimate"]
    assert pairs.select("detector_a", "detector_b").rows() == [("net", "rule")]


def test_neither_the_order_of_windows_nor_of_detectors_changes_a_number() -> None:
    given = sample()
    order = np.random.default_rng(1).permutation(100)
    moved = {key: given[key][order] for key in ("truth", "cluster", "stratum")}
    moved["predictions"] = {
        "rule": given["predictions"]["rule"][order],
        "net": {seed: said[order] for seed, said in given["predictions"]["net"].items()},
    }
    for ours, theirs in zip(
        compare_detectors(**given, replicates=60),
        compare_detectors(**moved, replicates=60),
        strict=True,
    ):
        assert ours.drop("signature", strict=False).equals(theirs.drop("signature", strict=False))


def test_signatures_name_the_sample_and_the_predictions() -> None:
    given = sample()
    signature = figure(compare_detectors(**given, replicates=60).scores, "net", "macro_f1")[
        "signature"
    ]
    assert signature.startswith(
        "macro_f1|unit=cluster|n=100/20|strata=stratum|interval=percentile|B=60|rng=PCG64:490|"
        "seeds=7,1,3|split="
    )
    given["predictions"]["net"][1][0] = "benign" if given["truth"][0] != "benign" else "worm"
    again = figure(compare_detectors(**given, replicates=60).scores, "net", "macro_f1")["signature"]
    assert again != signature
    assert again.split("|checkpoint=")[0] == signature.split("|checkpoint=")[0]


def test_a_single_cluster_has_figures_and_no_more() -> None:
    given = {**sample(2), "cluster": np.repeat("one", 10), "stratum": None}
    scores, pairs = compare_detectors(**given, replicates=60)
    row = figure(scores, "rule", "macro_f1")
    assert 0 < row["estimate"] < 1
    assert row["low"] is None
    assert pairs["p"].to_list() == pairs["effect"].to_list() == [None]


def test_classes_may_be_integers_and_only_overall_figures_asked_for() -> None:
    truth, said = [3, 10, 3, 10], [3, 10, 10, 10]
    scores, pairs = compare_detectors(
        truth, {"a": said}, cluster=[0, 0, 1, 1], replicates=60, per_class=False
    )
    assert set(scores["scope"]) == {"all"}
    assert figure(scores, "a", "accuracy")["estimate"] == 0.75
    assert pairs.is_empty()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"truth": np.array([], dtype=str)}, "there is no window"),
        ({"truth": [["a"]]}, r"truth: expected one value a window, got shape \(1, 1\)"),
        ({"truth": [0.5] * 100}, "truth: holds numbers with a point"),
        ({"predictions": {}}, "there is no detector"),
        ({"predictions": {"a": {}}}, "a has no seed"),
        ({"predictions": {"a": ["worm"]}}, "predictions of a: 1 values for 100 windows"),
        ({"predictions": {"a": {3: ["worm"]}}}, "predictions of a, seed 3: 1 values"),
        ({"cluster": [1]}, "cluster: 1 values for 100"),
        ({"stratum": ["x"] * 99 + ["y"]}, "cluster file19 is in x and in y"),
        ({"replicates": 0}, "replicates is 0"),
    ],
)
def test_what_does_not_fit_is_said(change: dict[str, Any], message: str) -> None:
    with pytest.raises(Cis490Error, match=message):
        compare_detectors(**{**sample(), "replicates": 10, **change})


def test_the_example_of_the_page_prints_what_the_page_says() -> None:
    page = (ROOT / "docs/evaluation.md").read_text()
    found = re.search(
        r"<!-- evaluation-example -->\s*```python\n(.*?)```\s*```\n(.*?)```", page, re.DOTALL
    )
    assert found, "docs/evaluation.md has no example with its output"
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        exec(compile(found[1], "docs/evaluation.md", "exec"), {})
    assert said.getvalue() == found[2]
