"""The report for people: its numbers are the files' numbers, and it says what is not known."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from cis490.errors import Cis490Error
from cis490.evaluation.tables import SILENT
from cis490.files import read_json, write_json, write_parquet
from cis490.report.comparison import write_comparison
from cis490.report.headline import END_OF_HEADLINE
from cis490.report.printed import first_page, sections_about
from cis490.report.text import FEW_MARK
from tests.evaluation.world import SKILL, SMALL, SOME, World

NUMBER = r"(?<![-+])(\d\.\d{3}) \[(\d\.\d{3}), (\d\.\d{3})\]"  # without a sign: no difference


def validation(world: World, *, without_netflow: Sequence[str] = ()) -> pl.DataFrame:
    episodes = world.windows.unique("episode_id", maintain_order=True)
    lacking = pl.col("host_id").is_in(without_netflow)
    reasons = pl.when(lacking).then(pl.lit(["no_netflow"])).otherwise(pl.lit([]))
    return episodes.select(
        "episode_id",
        "host_id",
        "profile",
        status=pl.when(lacking).then(pl.lit("degraded")).otherwise(pl.lit("accepted")),
        reasons=reasons.cast(pl.List(pl.String)),
        started_wall_ns=pl.int_range(pl.len()).over("host_id") * 90 * 10**9,
        duration_s=pl.lit(60.0),
    )


def report(*worlds: World, **options: Any) -> Path:
    folder = worlds[0].folder
    write_parquet(folder / "validation.parquet", validation(worlds[0], **options))
    files = [world.arguments() for world in worlds]
    path = folder / "report" / "comparison_v2.md"
    write_comparison(
        validation=folder / "validation.parquet",
        splits=[each["split_json"] for each in files],
        metrics=[each["metrics"] for each in files],
        pairwise=[each["pairwise"] for each in files],
        trainings=[world.write_summary() for world in worlds],
        evals=[name for each in files for name in each["evals"]],
        curves=[path.with_name(f"curves_{world.name}.svg") for world in worlds],
        out=path,
    )
    return path


LARGER = {**SMALL, "test": {"birch": {"cpu-saturate": 9, "io-walk": 9, "none": 6}}}


def made(folder: Path, parts: Mapping[str, Any] = SMALL, **options: Any) -> World:
    skill = options.pop("skill", SKILL)
    return World(folder, parts, skill, **options).write().evaluate()


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return made(tmp_path_factory.mktemp("fleet"), untested=["scan-and-dial"])


@pytest.fixture(scope="module")
def text(world: World) -> str:
    return report(world, without_netflow=["birch"]).read_text()


def tables(text: str) -> list[list[list[str]]]:
    """All Markdown tables, as rows of cells, the header first."""
    found: list[list[list[str]]] = []
    before = ""
    for line in text.splitlines():
        if line.startswith("|"):
            if not before.startswith("|"):
                found.append([])
            found[-1].append([cell.strip() for cell in line.strip("|").split("|")])
        before = line
    return [[table[0], *table[2:]] for table in found]


def section(text: str, heading: str) -> str:
    return text.split(f"### {heading}")[1].split("\n### ")[0].split("\n## ")[0]


def row_of(world: World, model: str, mode: str, **key: str) -> dict[str, Any]:
    wanted = {"scope": "all", "metric": "macro_f1", "part": "test", **key}
    rows = world.metrics.filter(pl.col("seed").is_null(), model=model, mode=mode, **wanted)
    assert len(rows) == 1
    return rows.to_dicts()[0]


def written(row: Mapping[str, Any]) -> str:
    return f"{row['estimate']:.3f} [{row['low']:.3f}, {row['high']:.3f}]"


def test_the_page_shows_the_training_curves_of_each_split(world: World, tmp_path: Path) -> None:
    back = made(tmp_path, name="back")
    text = report(world, back).read_text()
    assert re.findall(r"!\[.*\]\((.*)\)", text) == ["curves_host.svg", "curves_back.svg"]


def test_the_headline_table_has_the_numbers_of_the_metrics_file(world: World, text: str) -> None:
    header, *rows = tables(text)[0]
    columns = ["detector", "realistic, test", "oracle, test", "realistic, val", "clears the clock"]
    assert header == columns
    cells = {row[0]: row[1:] for row in rows}
    assert set(cells) == {"gbt (best by val)", "cnn"}
    for name, model in (("cnn", "cnn"), ("gbt (best by val)", "gbt")):
        assert cells[name][0] == written(row_of(world, model, "realistic"))
        assert cells[name][2] == written(row_of(world, model, "realistic", part="val"))
    assert cells["cnn"][1] == written(row_of(world, "cnn", "oracle"))
    assert cells["gbt (best by val)"][1] == "failed"
    estimates = [float(row[1].split()[0]) for row in rows]
    assert estimates == sorted(estimates, reverse=True)


def test_every_interval_in_the_report_stands_in_the_files(world: World, text: str) -> None:
    known = {
        (f"{row['estimate']:.3f}", f"{row['low']:.3f}", f"{row['high']:.3f}")
        for row in world.metrics.filter(pl.col("low").is_not_null()).to_dicts()
    }
    found = re.findall(NUMBER, text)
    assert len(found) > 60
    assert set(found) <= known


def test_breakdowns_have_the_numbers_of_the_metrics_file(world: World, text: str) -> None:
    for heading, scope, metric in (
        ("By phase", "phase", "f1"),
        ("By profile", "profile", "macro_f1"),
        ("By host", "host", "macro_f1"),
    ):
        header, *rows = tables(section(text, heading))[0]
        company = [row[0] for row in tables(text)[1][1:]]
        shown = ["gbt realistic", "cnn oracle", *company]
        assert header[1:] == ["windows", "episodes", "replicates", *shown]
        for key, windows, episodes, valid, *cells in rows:
            if key == "scan-and-dial":
                continue
            for name, cell in zip(shown, cells, strict=True):
                model, mode = [*name.split(), "baseline"][:2]
                name = key.removesuffix(FEW_MARK)
                row = row_of(world, model, mode, scope=scope, key=name, metric=metric)
                assert cell == written(row)
                assert windows == str(row["n_windows"])
                assert episodes == str(row["n_episodes"])
                assert valid == str(row["n_valid_replicates"])
                assert (name != key) == (row["n_episodes"] < 5)


def test_the_comparison_has_the_numbers_of_the_pairwise_file(world: World, text: str) -> None:
    _, *rows = tables(section(text, "What is significant"))[0]
    assert len(rows) == 5
    for a, b, difference, _, _, single, holm in rows:
        names = [tuple([*name.split(), "baseline"][:2]) for name in (a, b)]
        first, second = sorted(names)
        row = world.pairwise.filter(
            model_a=first[0], mode_a=first[1], model_b=second[0], mode_b=second[1]
        ).to_dicts()[0]
        sign = 1 if names[0] == first else -1
        assert float(difference.split()[0]) == pytest.approx(sign * row["diff"], abs=6e-4)
        assert single == ("yes" if row["significant_95"] else "no")
        assert holm == ("yes" if row["significant_holm"] else "no")


def test_the_first_screen_names_all_that_is_missing(text: str) -> None:
    first = text.partition(END_OF_HEADLINE)[0]
    assert "(alder and dogwood) work on a machine it has never seen (birch)" in first
    assert "**Not tested:** scan-and-dial" in first
    assert "**Downgraded host:** birch lacks netflow in 8 of 8 episodes." in first
    assert "**Failed:** gbt oracle: loss became NaN at epoch 3" in first
    assert "**Conditional on these hosts:**" in first
    assert re.search(
        r"population: \d+% on test \(8 episodes\) and \d+% on val \(8 episodes\)", first
    )
    assert "**Trained once:** with seed 42." in first
    assert "No held-out host" not in text


def test_untested_profiles_stand_in_the_profile_table(text: str) -> None:
    _, *rows = tables(section(text, "By profile"))[0]
    assert ["scan-and-dial", "0", "0", "0", *["-"] * 5] in rows


def test_the_first_page_ends_after_the_company_of_baselines(world: World, text: str) -> None:
    top = first_page(world.folder / "report" / "comparison_v2.md")
    assert top.startswith("# ")
    assert text.startswith(top)
    assert {row[0] for row in tables(top)[-1][1:]} == {
        "window_index",
        "majority",
        "always_infected",
    }
    assert "<!--" not in top


def test_a_report_that_is_not_there_is_said_to_be_missing(tmp_path: Path) -> None:
    with pytest.raises(Cis490Error, match="run the workflow first"):
        first_page(tmp_path / "comparison_v2.md")
    with pytest.raises(Cis490Error, match="run the workflow first"):
        sections_about(tmp_path / "comparison_v2.md", "pitfalls")


def test_a_section_is_shown_with_what_stands_below_its_heading(world: World, text: str) -> None:
    path = world.folder / "report" / "comparison_v2.md"

    def headings(asked: str) -> list[str]:
        return re.findall("^#+ .*", sections_about(path, asked), re.M)

    after = text.partition("## The ten pitfalls\n")[2].partition("\n## ")[0]
    assert sections_about(path, "Pitfalls") == f"## The ten pitfalls\n{after}".rstrip()
    detail = headings("split host in detail")
    assert [line for line in detail if line.startswith("## ")] == ["## Split `host` in detail"]
    assert len(detail) > 5
    assert headings("by p") == ["### By profile", "### By phase"]
    assert "<!--" not in sections_about(path, "headline")


def test_a_section_that_is_not_there_names_those_that_are(tmp_path: Path, text: str) -> None:
    path = tmp_path / "comparison_v2.md"
    path.write_text(text)
    with pytest.raises(Cis490Error, match=r"'pitfal1s' in it; there are: .*; The ten pitfalls;"):
        sections_about(path, "pitfal1s")


def test_each_pitfall_is_an_item_with_its_answer_and_its_command(text: str) -> None:
    items = re.findall(
        r"^- \*\*(.+)\*\*\n  - what answers it here: .+\n  - command: `snakemake .+`$",
        text.partition("## The ten pitfalls")[2].partition("## Data")[0],
        re.M,
    )
    assert len(items) == len(set(items)) == 10


def test_the_report_is_the_same_each_time(text: str, tmp_path: Path) -> None:
    again = made(tmp_path, untested=["scan-and-dial"])
    assert report(again, without_netflow=["birch"]).read_text() == text


def test_latency_is_no_part_of_the_report(text: str, tmp_path: Path) -> None:
    slow = World(tmp_path, SMALL, SKILL, untested=["scan-and-dial"]).write()
    for path in slow.arguments()["latencies"]:
        write_json(path, {"p50_ms": 99.0, "bytes_on_disk": 1000, "n_parameters": 10})
    assert report(slow.evaluate(), without_netflow=["birch"]).read_text() == text


def test_the_best_is_the_best_by_val_even_where_test_says_otherwise(tmp_path: Path) -> None:
    skill = {("cnn", "realistic"): (0.9, 0.4), ("gbt", "realistic"): (0.5, 0.95)}
    world = made(tmp_path, skill=skill)
    text = report(world).read_text()
    cnn = written(row_of(world, "cnn", "realistic"))
    assert f"The best realistic detector by val, cnn, reaches macro F1 {cnn} on test" in text
    assert [row[0] for row in tables(text)[0][1:]] == ["gbt", "cnn (best by val)"]


def test_a_model_below_the_clock_is_said_to_show_nothing(tmp_path: Path) -> None:
    skill = {("cnn", "realistic"): 0.2, ("cnn", "oracle"): 1.0}
    text = report(made(tmp_path, LARGER, skill=skill)).read_text()
    assert "no evidence that it reads more than the clock" in text
    assert tables(text)[0][1][-1] == "oracle"


def test_from_few_episodes_no_verdict_is_given(tmp_path: Path) -> None:
    text = report(made(tmp_path)).read_text()
    assert "cannot be said from 8 episodes." in text
    assert {row[-1] for row in tables(text)[0][1:]} == {"-"}
    assert "From 8 episodes that is no verdict" in section(text, "What is significant")


def test_phases_that_were_not_tested_or_never_trained_stand_on_the_first_screen(
    tmp_path: Path,
) -> None:
    phases = ("clean", "armed", "infected_running")
    world = World(tmp_path, SMALL, SKILL, phases=phases, train_phases=phases[:2]).write()
    world.evaluate()
    first = report(world).read_text().partition(END_OF_HEADLINE)[0]
    assert "over 3 of 5 phases: no window of test is infecting or dormant." in first
    assert "no training window is infecting, infected_running and dormant." in first


def test_a_test_host_with_controls_only_gets_no_answer_and_no_verdict(tmp_path: Path) -> None:
    parts = {**SMALL, "test": {"birch": {"none": 30}}}
    first = report(made(tmp_path, parts)).read_text().partition(END_OF_HEADLINE)[0]
    assert "**Answer:** Cannot be said: the windows of test are all clean" in first
    assert "more than the clock" not in first


def test_controls_without_a_test_episode_are_named_in_words(tmp_path: Path) -> None:
    test = {"birch": {"cpu-saturate": 3, "io-walk": 3}}
    world = made(tmp_path, {**SMALL, "test": test}, untested=["none"])
    assert "**Not tested:** controls (profile none): no test" in report(world).read_text()


def test_without_a_held_out_host_the_title_says_so(tmp_path: Path) -> None:
    parts = {part: hosts for part, hosts in SMALL.items() if part != "test"}
    text = report(made(tmp_path, parts)).read_text()
    assert text.startswith("# No held-out host")
    assert "Early stopping and the choice have seen val: new machines are not judged." in text
    assert "more than the clock" not in text.partition(END_OF_HEADLINE)[0]
    assert tables(text)[0][0] == [
        "detector",
        "realistic, val",
        "oracle, val",
        "clears the clock",
    ]


def test_one_test_episode_says_what_cannot_be_said(tmp_path: Path) -> None:
    text = report(made(tmp_path, {**SMALL, "test": {"birch": {"io-walk": 1}}})).read_text()
    assert "[no interval]" in tables(text)[0][1][1]
    assert "cannot be said from 1 episode." in text
    assert "Nothing can be said: too few episodes to resample." in text
    assert "A single episode of io-walk" in text
    assert "no control episode in this part" in text


def test_all_models_failed(tmp_path: Path) -> None:
    text = report(made(tmp_path, skill=dict.fromkeys(SKILL))).read_text()
    assert "**Answer:** None: 4 detectors of 4 failed." in text
    assert text.count("**Failed:**") == 4
    assert [row[1:3] for row in tables(text)[0][1:]] == [["failed"] * 2] * 2


def test_nothing_scored(tmp_path: Path) -> None:
    world = made(tmp_path, {"train": {"alder": SOME}})
    assert "Nothing could be scored" in report(world).read_text()


def test_without_val_no_detector_is_called_best(tmp_path: Path) -> None:
    parts = {part: hosts for part, hosts in SMALL.items() if part != "val"}
    text = report(made(tmp_path, parts)).read_text()
    assert "Undecided" in text
    assert "best by val" not in text.partition(END_OF_HEADLINE)[0]


def test_a_rate_too_small_to_measure_is_printed_as_such(tmp_path: Path) -> None:
    text = report(made(tmp_path, skill={("cnn", "realistic"): 0.97})).read_text()
    rows = {row[0]: row[-1] for row in tables(section(text, "False alarms on controls"))[0]}
    assert re.fullmatch(r"not measurable: 1 of 22 windows, \[0\.000, 0\.\d+\]", rows["cnn"])
    assert rows["majority"] == "not measurable: 0 of 22 windows, too few episodes for a bound"
    assert rows["always_infected"].startswith("1.000 [")


def test_a_reason_with_line_breaks_and_pipes_breaks_no_line(tmp_path: Path) -> None:
    world = World(tmp_path, SMALL, SKILL).write()
    path = next(path for path in world.arguments()["models"] if "gbt_oracle" in str(path))
    write_json(path, read_json(path) | {"reason": "a\n| b"})
    assert "**Failed:** gbt oracle: a | b\n" in report(world.evaluate()).read_text()


def test_extra_splits_get_a_section_each_after_the_primary(tmp_path: Path) -> None:
    first = made(tmp_path)
    second = made(tmp_path, name="reverse")
    text = report(first, second).read_text()
    top = text.partition(END_OF_HEADLINE)[0]
    assert "**Split `reverse`:** The best realistic detector by val" in top
    assert text.index("## Split `host` in detail") < text.index("## Split `reverse`: ")
    assert text.count("### By phase") == 2


def test_each_seed_is_shown_when_there_are_several(tmp_path: Path) -> None:
    world = made(tmp_path, skill={("cnn", "realistic"): 0.6}, seeds=(1, 2))
    _, *rows = tables(section(report(world).read_text(), "Each seed alone"))[0]
    assert [row[2] for row in rows] == ["1", "2"]


def test_a_failed_seed_is_named_beside_those_that_were_trained(tmp_path: Path) -> None:
    world = made(tmp_path, skill={("cnn", "realistic"): 0.6}, seeds=(1, 2, 3), lost=(2,))
    text = report(world).read_text()
    assert "**Failed:** cnn realistic, seed 2: loss became NaN at epoch 3" in text
    assert tables(text)[0][1][1] == written(row_of(world, "cnn", "realistic"))


def test_episodes_are_counted_by_host_and_verdict(text: str) -> None:
    _, *rows = next(table for table in tables(text) if table[0][:2] == ["host", "accepted"])
    assert rows == [
        ["alder", "16", "0", "0", "0"],
        ["birch", "0", "8", "0", "0"],
        ["dogwood", "8", "0", "0", "0"],
    ]


def test_tables_are_aligned_for_a_terminal(text: str) -> None:
    for block in re.findall(r"(?:^\|.*\n)+", text, flags=re.MULTILINE):
        assert len({len(line) for line in block.splitlines()}) == 1
    widths = [len(line) for line in text.partition(END_OF_HEADLINE)[0].splitlines() if "|" in line]
    assert max(widths) <= 120


def test_a_report_on_clones_has_a_banner_and_no_headline(tmp_path: Path) -> None:
    world = made(tmp_path)
    split = world.path("splits", "host.json")
    write_json(split, read_json(split) | {"n_simulated": 32})
    first = report(world).read_text().partition(END_OF_HEADLINE)[0]
    assert first.startswith("# Simulated store: no result")
    assert "32 usable episodes are clones" in first
    assert "macro F1" not in first


COMPANY = {("minirocket", "realistic"): 0.97, ("minirocket", "oracle"): 0.95}


@pytest.fixture(scope="module")
def accompanied(tmp_path_factory: pytest.TempPathFactory) -> World:
    return made(tmp_path_factory.mktemp("accompanied"), skill={**SKILL, **COMPANY}, seeds=(1, 2))


def test_a_trained_baseline_is_company_and_never_a_detector(accompanied: World) -> None:
    text = report(accompanied).read_text()
    assert text.startswith("# Malware phases, 4 detectors compared")
    assert "The best realistic detector by val, gbt, reaches" in text
    detectors, company = tables(text)[:2]
    assert {row[0] for row in detectors[1:]} == {"gbt (best by val)", "cnn"}
    cells = {row[0]: row[1:] for row in company}
    for model, mode in COMPANY:
        own = cells[f"{model} {mode}"]
        assert own[0] == written(row_of(accompanied, model, mode))
        assert own[1] == written(row_of(accompanied, model, mode, part="val"))
    worth = tables(section(text, "What is significant"))[1]
    assert [row[0] for row in worth[1:]] == ["cnn oracle"]
    assert "minirocket oracle" in {
        row[1] for row in tables(section(text, "What is significant"))[0]
    }


def test_a_trained_baselines_size_and_seeds_are_shown(accompanied: World) -> None:
    text = report(accompanied).read_text()
    sizes = {
        tuple(row[:2]): row[-1]
        for row in tables(section(text, "Macro recall, accuracy and size"))[0]
    }
    assert sizes["minirocket", "oracle"] == "1,000"
    seeds = [
        row[2] for row in tables(section(text, "Each seed alone"))[0] if row[0] == "minirocket"
    ]
    assert seeds == ["1", "2"] * 2


def test_a_trained_baseline_that_failed_is_told_and_not_counted(tmp_path: Path) -> None:
    skill = dict.fromkeys([*SKILL, *COMPANY])
    text = report(made(tmp_path, skill=skill)).read_text()
    assert "**Answer:** None: 4 detectors of 4 failed." in text
    assert "**Failed:** minirocket oracle: loss became NaN" in text


def test_a_trained_baseline_alone_gives_no_answer(tmp_path: Path) -> None:
    text = report(made(tmp_path, skill=COMPANY)).read_text()
    assert "**Answer:** None: no detector was trained, only a baseline." in text
    assert tables(text)[1][1][0] == "minirocket realistic"


def test_seeds_that_differ_much_are_flagged_and_how_each_model_was_trained_is_told(
    tmp_path: Path,
) -> None:
    seeds = {"seeds": (1, 2, 3), "lost": (3,)}
    world = World(tmp_path, LARGER, {**SKILL, ("gbt", "realistic"): 1.0}, **seeds)
    text = report(world.write().evaluate()).read_text()
    spread = world.metrics.filter(metric="macro_f1_sd", part="test")
    by_name = {(row["model"], row["mode"]): row["estimate"] for row in spread.to_dicts()}
    unstable = [f"{m} {mode} {sd:.3f}" for (m, mode), sd in by_name.items() if sd > 0.05]
    for told in unstable:
        assert told in text.partition(END_OF_HEADLINE)[0]
    assert ("**Unstable:**" in text) == bool(unstable)
    section = text.partition("### How the seeds were trained")[2].partition("\n###")[0]
    rows = {
        tuple(c.strip() for c in line.split("|")[1:3]): line
        for line in section.splitlines()
        if line.startswith("|")
    }
    cells = [cell.strip() for cell in rows["gbt", "realistic"].split("|")[3:-1]]
    assert cells == ["2 of 3", "0.995", "0.007", "0.000", "1", "0.003", "3"]
    assert rows["gbt", "oracle"].split("|")[3].strip() == "0 of 3"


def test_seeds_above_the_bound_are_flagged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(tmp_path, LARGER, SKILL, seeds=(1, 2)).write().evaluate()
    (sd,) = world.metrics.filter(metric="macro_f1_sd", part="test", model="cnn", mode="oracle")[
        "estimate"
    ]
    for module in ("results", "trained"):
        monkeypatch.setattr(f"cis490.report.{module}.UNSTABLE", sd - 1e-6)
    assert f"cnn oracle {sd:.3f}" in report(world).read_text()
    for module in ("results", "trained"):
        monkeypatch.setattr(f"cis490.report.{module}.UNSTABLE", 1.0)
    assert "nstable" not in report(world).read_text()


def test_the_report_says_which_settings_were_searched_and_how(text: str, tmp_path: Path) -> None:
    assert "no detector's settings were searched" in section(text, "Search of settings")
    assert "**Searched:**" not in text
    reason = "it differs from the default by +0.040 macro F1 on val, standard error 0.010"
    tuning = {"n_trials": 24, "trial": 3, "parameters": {"eta": 0.3}, "reason": reason}
    world = made(tmp_path, tuning=tuning)
    found = report(world).read_text()
    names = [list(detector) for detector in sorted(world.skill)]
    (rows,) = tables(section(found, "Search of settings"))
    assert rows[1:] == [[*name, "24", "eta 0.3", reason] for name in names]
    n = len(names)
    assert f"the settings of {n} of {n} detectors were chosen on val among 24 trials" in found


def test_a_baseline_that_is_surely_better_is_told_on_the_first_screen(tmp_path: Path) -> None:
    worse = {("cnn", "realistic"): 0.5, ("minirocket", "realistic"): 0.9}
    for name, skill, told in (
        ("worse", worse, True),
        ("equal", dict.fromkeys(worse, 0.6), False),
        ("other mode", {("cnn", "realistic"): 0.5, ("minirocket", "oracle"): 0.9}, False),
    ):
        world = World(tmp_path / name, LARGER, skill).write().evaluate()
        first = report(world).read_text().partition(END_OF_HEADLINE)[0]
        assert ("**A baseline is better:** minirocket realistic reaches 0." in first) == told, name


def test_episodes_of_test_hosts_recorded_beside_training_ones_are_counted(tmp_path: Path) -> None:
    world = World(tmp_path, SMALL, SKILL).write().evaluate()
    text = report(world).read_text()
    verdicts = validation(world)
    split = read_json(world.arguments()["split_json"])
    began = {
        part: verdicts.filter(pl.col("host_id").is_in(split[f"{part}_hosts"]))["started_wall_ns"]
        for part in ("train", "test")
    }
    beside = [any(abs(a - b) < 60 * 10**9 for b in began["train"]) for a in began["test"]]
    told = f"{sum(beside)} of {len(beside)} episodes of test hosts were recorded while one"
    assert told in text
    assert sum(beside) > 0


def test_a_source_that_is_there_but_says_nothing_is_told_unless_it_is_lacking(
    tmp_path: Path,
) -> None:
    world = World(tmp_path, SMALL, SKILL).write().evaluate()
    silent = [
        {"host_id": "birch", "source": "qmp", "n_silent": 8, "n_episodes": 8},
        {"host_id": "birch", "source": "netflow", "n_silent": 8, "n_episodes": 8},
        {"host_id": "alder", "source": "qmp", "n_silent": 1, "n_episodes": 40},
    ]
    path = world.arguments()["metrics"]
    write_parquet(path, pl.read_parquet(path), {SILENT: json.dumps(silent)})
    text = report(world, without_netflow=["birch"]).read_text()
    assert "**Silent source:** qmp of birch is there but has no value in 8 of 8 episodes." in text
    assert text.count("Silent source") == 1
