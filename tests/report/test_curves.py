"""The picture of the training curves: what is drawn is what the histories say."""

from __future__ import annotations

import math
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import polars as pl
import pytest

from cis490.files import write_json, write_parquet
from cis490.report.curves import SEED_STYLES, Curves, draw, write_curves
from cis490.training.checkpoint import HISTORY_SCHEMA


def epochs(seed: int, f1: list[float | None], *, attempt: int = 1, **changes: Any) -> list[dict]:
    return [
        {
            "seed": seed,
            "attempt": attempt,
            "epoch": i,
            "train_loss": 1 / i,
            "val_loss": 1.5 / i,
            "val_macro_f1": value,
        }
        | changes
        for i, value in enumerate(f1, start=1)
    ]


def model(
    rows: list[dict], kept: dict[int, int | None], *, name: str = "cnn", mode: str = "realistic"
) -> Curves:
    """A model whose seeds kept an epoch each, or failed (None)."""
    seeds = [
        {"seed": seed, "status": "failed", "reason": "its loss became NaN"}
        if epoch is None
        else {"seed": seed, "status": "ok", "reason": None, "best_epoch": epoch}
        for seed, epoch in kept.items()
    ]
    content = {"architecture": name, "mode": mode, "seeds": seeds}
    return Curves(content, pl.DataFrame(rows, schema=HISTORY_SCHEMA))


TWO = epochs(42, [0.3, 0.6, 0.5]) + epochs(7, [0.2, 0.4, 0.7])


def written(folder: Path, *models: Curves) -> bytes:
    paths = []
    for each in models:
        own = folder / f"{each.model['architecture']}_{each.model['mode']}"
        paths.append(own)
        write_json(own / "model.json", each.model)
        write_parquet(own / "history.parquet", each.history)
    out = folder / "report/curves_host.svg"
    write_curves([p / "model.json" for p in paths], [p / "history.parquet" for p in paths], out)
    return out.read_bytes()


def drawn(axes: Any) -> list[tuple[list[float], list[float], str, str]]:
    """Of each line of a panel: x, y, mark and colour."""
    return [
        (
            np.asarray(line.get_xdata(), float).tolist(),
            np.asarray(line.get_ydata(), float).tolist(),
            line.get_marker(),
            line.get_color(),
        )
        for line in axes.get_lines()
    ]


def test_every_seed_has_its_curves_and_the_kept_epoch_its_mark():
    f1, loss = draw([model(TWO, {42: 2, 7: 3})]).axes
    (blue, circle), (orange, square) = SEED_STYLES[:2]
    assert drawn(f1) == [
        ([1, 2, 3], [0.3, 0.6, 0.5], "None", blue),
        ([2], [0.6], circle, blue),
        ([1, 2, 3], [0.2, 0.4, 0.7], "None", orange),
        ([3], [0.7], square, orange),
    ]
    assert [y for _, y, mark, _ in drawn(loss) if mark == "None"] == [
        [1.5, 0.75, 0.5],
        [1, 1 / 2, 1 / 3],
    ] * 2


def test_a_failed_seed_is_named_and_marked_where_it_ended():
    rows = epochs(42, [0.3, 0.6, 0.5]) + epochs(7, [0.2, 0.1])
    f1, _ = draw([model(rows, {42: 2, 7: None, 2025: None})]).axes
    assert [text.get_text() for text in f1.texts] == ["failed: 7, 2025"]
    assert [(x, y) for x, y, mark, _ in drawn(f1) if mark == "x"] == [([2], [0.1])]


def test_attempts_of_a_seed_are_curves_of_their_own():
    rows = epochs(42, [0.3, 0.1]) + epochs(42, [0.4, 0.8], attempt=2)
    f1, _ = draw([model(rows, {42: 2})]).axes
    assert [y for _, y, _, _ in drawn(f1)] == [[0.3, 0.1], [0.4, 0.8], [0.8]]


def test_modes_stand_side_by_side_and_a_model_that_was_not_asked_for_leaves_its_place_empty():
    models = [
        model(TWO, {42: 2, 7: 3}, mode="oracle"),
        model(TWO, {42: 2, 7: 3}),
        model(TWO, {42: 2, 7: 3}, name="gbt"),
    ]
    axes = draw(models).axes
    titles = ["val macro F1, realistic", "val macro F1, oracle", "loss, realistic", "loss, oracle"]
    assert [each.get_title() for each in axes] == titles + [""] * 4
    assert [bool(each.get_lines()) for each in axes] == [True] * 5 + [False, True, False]
    assert [each.get_ylabel() for each in axes][::4] == ["cnn", "gbt"]


def test_losses_of_an_architecture_share_a_scale_that_a_lost_training_stretches():
    lost = epochs(42, [0.3, 0.2], train_loss=30_000.0)
    axes = draw([model(TWO, {42: 2, 7: 3}), model(lost, {42: None}, mode="oracle")]).axes
    assert axes[2].get_ylim() == axes[3].get_ylim()
    assert axes[2].get_ylim()[1] > 30_000
    assert axes[0].get_ylim() == (0, 1)


def test_the_same_files_give_the_same_bytes_whatever_matplotlib_is_set_to(tmp_path):
    first = written(tmp_path / "a", model(TWO, {42: 2, 7: 3}))
    with mpl.rc_context({"axes.facecolor": "red", "svg.hashsalt": None, "lines.linewidth": 5}):
        assert written(tmp_path / "b", model(TWO, {42: 2, 7: 3})) == first
    assert written(tmp_path / "c", model(TWO, {42: 1, 7: 3})) != first
    assert ET.fromstring(first).tag.endswith("svg")
    assert b"<dc:date>" not in first


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    ("rows", "kept"),
    [
        ([], {42: None}),
        (epochs(42, [None, None], val_loss=None), {42: 2}),
        (epochs(42, [0.3], train_loss=math.nan, val_loss=math.inf), {42: None}),
        (epochs(42, [0.3, 0.3], train_loss=None), {42: 1}),
    ],
)
def test_what_a_history_lacks_is_no_reason_to_fail(rows, kept, tmp_path):
    assert ET.fromstring(written(tmp_path, model(rows, kept))).tag.endswith("svg")


def test_a_baseline_that_is_fitted_at_once_has_no_row_but_a_training_that_failed_has():
    at_once = model(epochs(42, [0.7]), {42: 1}, name="ridge")
    assert not at_once.has_curve
    assert model(epochs(42, [0.7, 0.8]), {42: 1}).has_curve
    assert model(epochs(42, [0.7]), {42: None}).has_curve
    assert model([], {42: None}).has_curve


def test_a_split_without_any_curve_still_has_its_picture(tmp_path):
    assert ET.fromstring(written(tmp_path, model(epochs(42, [0.7]), {42: 1}))).tag.endswith("svg")
