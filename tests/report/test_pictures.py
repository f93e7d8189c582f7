"""Pictures: what is drawn is what the tables say, and names cannot break them."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from cis490.files import write_parquet
from cis490.report.forest import forest
from cis490.report.matrices import confusion, profile_map
from cis490.report.matrix import Cell, Column, Row, draw
from cis490.report.reliability import reliability
from cis490.report.results import Detector, Results, read_results
from cis490.report.since import recall_since_infection
from cis490.report.style import FAINT, PALETTE, SHADES, drawing, mode_colour, spread, text_width
from cis490.report.svg import Picture, inline_svg, to_svg
from cis490.report.timeline import RANKS, pick, timeline
from tests.evaluation.world import SKILL, SMALL
from tests.report.fleet import STAGES, WINDOW, Fleet

FEW = {**SMALL, "test": {"birch": {"cpu-saturate": 6, "io-walk": 3, "none": 4}}}


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Fleet:
    folder = tmp_path_factory.mktemp("fleet")
    return Fleet(folder, FEW, SKILL, seeds=(1, 2), untested=["scan-and-dial"]).make()


@pytest.fixture(scope="module")
def results(fleet: Fleet) -> Results:
    files = fleet.arguments()
    (found,) = read_results(
        [files["split_json"]],
        [files["metrics"]],
        [files["pairwise"]],
        [fleet.path("models", "host", "summary.json")],
        files["evals"],
        {stage: [fleet.table(stage)] for stage in STAGES},
    )
    return found


def points(picture: Picture, colour: str) -> list[tuple[float, float]]:
    """Where the marks of a colour stand in the first axes."""
    assert picture.figure is not None
    lines = picture.figure.axes[0].lines
    marks = [line for line in lines if line.get_marker() == "o" and line.get_color() == colour]
    return [(float(line.get_xdata()[0]), float(line.get_ydata()[0])) for line in marks]


def words(picture: Picture) -> list[str]:
    """All text of a picture, in the order in which it was drawn."""
    root = ET.fromstring(to_svg(picture))
    return ["".join(text.itertext()).strip() for text in root.iter() if text.tag.endswith("}text")]


def test_the_forest_has_a_mark_at_each_estimate_and_a_line_over_each_interval(
    results: Results,
) -> None:
    picture = forest(results)
    for mode in results.modes:
        figures = [results.figure(Detector(name, mode), "macro_f1") for name in ("gbt", "cnn")]
        known = [figure for figure in figures if figure]
        assert sorted(x for x, _ in points(picture, mode_colour(mode))) == sorted(
            figure["estimate"] for figure in known
        )
        assert picture.figure is not None
        drawn = [
            tuple(line.get_xdata())
            for line in picture.figure.axes[0].lines
            if line.get_color() == mode_colour(mode) and len(line.get_xdata()) == 2
        ]
        assert sorted(drawn) == sorted((figure["low"], figure["high"]) for figure in known)


def test_the_forest_names_the_best_by_val_and_those_that_failed(results: Results) -> None:
    text = words(forest(results))
    assert text.count("best by val") == 1
    assert "failed" in text
    assert "window index alone" in text
    assert "window index alone" in forest(results).caption


def test_the_map_of_profiles_has_the_tables_numbers_and_greys_few_episodes(
    results: Results,
) -> None:
    picture = profile_map(results)
    assert picture.figure is not None
    axes = picture.figure.axes[0]
    faint = tuple(int(FAINT[i : i + 2], 16) / 255 for i in (1, 3, 5))
    first = zip(axes.texts, axes.patches, strict=True)
    for profile, few in (("cpu-saturate", False), ("io-walk", True)):
        figure = results.figure(results.detectors[0], "macro_f1", "profile", profile)
        text, patch = next(first)
        assert figure is not None
        assert text.get_text() == f"{figure['estimate']:.2f}"
        assert (patch.get_facecolor()[:3] == pytest.approx(faint)) == few
    text = words(picture)
    assert text.count("n=6") == text.count("n=3") == text.count("n=0") == 1
    assert "Fewer than 5 episodes, so greyed: io-walk." in picture.caption
    assert "Not tested: scan-and-dial." in picture.caption


def test_confusion_counts_are_those_of_eval_json(results: Results) -> None:
    content = results.summary(Detector("cnn", "oracle"))["confusion"]
    numbers = [
        text for text in words(confusion(results, "oracle")) if re.fullmatch(r"[\d,]+|·", text)
    ]
    counts = [n for row in content["counts"] for n in row]
    assert [int(each.replace("·", "0").replace(",", "")) for each in numbers] == counts


def test_recall_since_infection_is_drawn_as_the_table_has_it(results: Results) -> None:
    picture = recall_since_infection(results)
    rows = results.metrics.filter(
        pl.col("seed").is_null(),
        scope="since_infection",
        model="gbt",
        mode="realistic",
        part="test",
    )
    drawn = sorted(y for _, y in points(picture, mode_colour("realistic")))
    assert drawn == sorted(rows["estimate"].to_list())
    assert len(drawn) > 3
    assert picture.figure is not None
    lines = [line for line in picture.figure.axes[0].lines if len(line.get_xdata()) > 2]
    (own,) = (line for line in lines if line.get_color() == mode_colour("realistic"))
    assert sorted(own.get_ydata()) == drawn


def test_labels_keep_their_order_and_room_and_stay_in_the_panel() -> None:
    ends = [(0.5, "b"), (0.5, "a"), (0.51, "c"), (0.99, "e"), (1.0, "d"), (0.0, "f")]
    placed = spread(ends, 0.08)
    assert [name for _, name in placed] == ["f", "a", "b", "c", "e", "d"]
    places = np.array([y for y, _ in placed])
    assert np.diff(places).min() >= 0.08 - 1e-9
    assert places.min() >= 0
    assert places.max() <= 1
    assert abs(places[1:4].mean() - 0.503) < 0.01
    assert places[0] == 0
    assert spread([], 0.08) == []


def test_reliability_is_drawn_before_and_after_its_temperature(results: Results) -> None:
    picture = reliability(results)
    assert picture.figure is not None
    assert results.reliability is not None
    bins = results.reliability.filter(pl.col("n_windows") > 0, model="gbt", mode="realistic")
    panels = picture.figure.axes[::2]
    for axes, scaled in zip(panels, (False, True), strict=True):
        drawn = [line for line in axes.lines if line.get_marker() == "o"]
        accuracy = [float(line.get_ydata()[0]) for line in drawn]
        assert accuracy == bins.filter(scaled=scaled).sort("bin")["accuracy"].to_list()


def alarms(fleet: Fleet, first_alarm_s: list[float | None]) -> Path:
    """A table with these alarms for the infected test episodes, in the order of their ids."""
    table = pl.read_parquet(fleet.table("alarms"))
    own = table.filter(model="gbt", mode="realistic", seed=1, part="test").drop_nulls("onset_s")
    own = own.sort("episode_id").head(len(first_alarm_s))
    path = fleet.path("alarms.parquet")
    write_parquet(path, own.with_columns(onset_s=10.0, first_alarm_s=pl.Series(first_alarm_s)))
    return path


@pytest.mark.parametrize(
    ("first_alarm_s", "places"),
    [
        ([30.0, 20.0, None, 25.0, 20.0], {"best": 1, "median": 3, "worst": 2}),
        ([20.0], {"best": 0, "median": 0, "worst": 0}),
        ([None, None], {"best": 0, "median": 0, "worst": 1}),
    ],
)
def test_episodes_are_picked_by_their_delay_with_missed_ones_last(
    fleet: Fleet, results: Results, first_alarm_s: list[float | None], places: dict[str, int]
) -> None:
    path = alarms(fleet, first_alarm_s)
    ids = pl.read_parquet(path)["episode_id"].to_list()
    picked = pick(results, path, fleet.path("predictions", "host", "gbt_realistic.parquet"), WINDOW)
    assert {
        rank: ids.index(episode.row["episode_id"]) for rank, episode in picked.items()
    } == places
    for rank, place in places.items():
        alarm = first_alarm_s[place]
        assert picked[rank].delay_s == (None if alarm is None else alarm - 10)
        caption = timeline(results, rank, picked[rank]).caption
        missed = "the infection is missed"
        assert (missed if alarm is None else f"an alarm {alarm - 10:.1f} s after") in caption


def test_an_infection_that_no_window_can_see_is_no_episode_to_show(
    fleet: Fleet, results: Results
) -> None:
    table = pl.read_parquet(alarms(fleet, [20.0, None, 30.0]))
    late = table.with_columns(onset_s=pl.Series([10.0, 61.0, 10.0]))
    path = fleet.path("alarms.parquet")
    write_parquet(path, late)
    predictions = fleet.path("predictions", "host", "gbt_realistic.parquet")
    picked = pick(results, path, predictions, WINDOW)
    assert {episode.n for episode in picked.values()} == {2}
    assert picked["worst"].row["episode_id"] == table["episode_id"][2]


def test_a_timeline_shows_scores_phases_and_alarms_of_the_exported_seed(
    fleet: Fleet, results: Results
) -> None:
    predictions = fleet.path("predictions", "host", "gbt_realistic.parquet")
    picked = pick(results, fleet.table("alarms"), predictions, WINDOW)
    assert tuple(picked) == RANKS
    threshold = results.threshold(Detector("gbt", "realistic"))["rule"]["threshold"]
    for episode in picked.values():
        rows = pl.read_parquet(predictions).filter(
            seed=results.trained(Detector("gbt", "realistic"))["best_seed"],
            episode_id=episode.row["episode_id"],
        )
        score = 1 - rows.select("p_clean", "p_armed").sum_horizontal()
        assert episode.score == pytest.approx(score.to_numpy(), abs=1e-5)
        assert episode.phase == rows["phase"].to_list()
        assert list(episode.end_s) == [10.0 + 5 * i for i in range(len(rows))]
        assert all(episode.alarm[episode.score >= threshold])
        if (first := episode.row["first_alarm_s"]) is not None:
            assert episode.alarm[list(episode.end_s).index(first)]


def test_names_are_text_and_never_formulas_and_are_cut_where_too_long() -> None:
    names = ["$x^{2", "a_b", "<i>", "w" * 200, "bell\x07"]
    figure = draw([Column(name) for name in names], [Row("$y$", [Cell("1")] * 5)]).figure
    text = words(Picture("$t", "\x00 c", figure))
    assert {"$x^{2", "$y$", "<i>", "w" * 23 + "…"} <= set(text)


def test_a_picture_of_nothing_is_a_picture_of_the_reason() -> None:
    reason = "Not measured: " + "no infection is seen by any window at all " * 4
    text = words(Picture("Nothing", reason, None))
    assert " ".join(text).split() == reason.split()
    assert len(text) > 2


def test_an_inlined_picture_keeps_its_shape_and_takes_the_pages_colours() -> None:
    with drawing():
        figure = draw([Column("a")], [Row("b", [Cell("1", share=0.99)])]).figure
    svg = to_svg(Picture("t", "c", figure))
    assert SHADES[-1] in svg
    element = ET.fromstring(inline_svg(svg, "mine", 'a "label" & more'))
    assert element.attrib["aria-label"] == 'a "label" & more'
    assert element.attrib["viewBox"] == ET.fromstring(svg).attrib["viewBox"]
    text = ET.tostring(element, encoding="unicode")
    assert "var(--shade7)" in text
    assert "font-family" not in text
    assert "http" not in text
    assert all(place.startswith("#mine-") for place in re.findall(r'href="([^"]*)"', text))


def test_marks_are_where_they_were_after_numbers_are_shortened() -> None:
    from matplotlib.figure import Figure

    with drawing():
        figure = Figure(figsize=(2, 2))
        figure.add_axes((0, 0, 1, 1)).plot([0.123456, 0.654321], [0, 1], "o", color=SHADES[0])
    svg = to_svg(Picture("t", "c", figure))
    places = [
        re.findall(r'<use [^>]*x="([\d.]+)"', text) for text in (svg, inline_svg(svg, "p", "l"))
    ]
    assert len(places[0]) > 1
    assert [float(x) for x in places[1]] == pytest.approx([float(x) for x in places[0]], abs=0.006)


def test_text_is_as_wide_as_its_letters() -> None:
    assert text_width("mmm") > 2 * text_width("iii")
    assert text_width("abc", weight="bold") > text_width("abc")


def test_the_curves_use_colours_that_the_page_knows(fleet: Fleet) -> None:
    colours = set(re.findall(r"#[0-9a-f]{6}", fleet.curves.read_text()))
    assert colours <= {light for light, _ in PALETTE.values()}
