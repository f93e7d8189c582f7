"""The page: it needs nothing else, says what its text twin says, and is legal on any results."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from collections import Counter
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from cis490.files import read_json, write_json, write_parquet
from cis490.report.headline import END_OF_HEADLINE
from cis490.report.names import split_pictures
from cis490.report.style import PALETTE
from tests.evaluation.world import SKILL, SMALL, SOME
from tests.report.fleet import STAGES, Fleet, render

COMPANY = {("minirocket", "realistic"): 0.9, ("minirocket", "oracle"): 0.9}
LARGER = {**SMALL, "test": {"birch": {"cpu-saturate": 6, "io-walk": 3, "none": 4}}}
MOST_BYTES = 5_000_000
VOID = {"meta", "br", "hr", "img", "input", "link", "path", "rect", "use"}


class Reader(HTMLParser):
    """What a page holds, and what is wrong with it."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.wrong: list[str] = []
        self.tags: Counter[str] = Counter()
        self.attributes: list[tuple[str, str, str]] = []
        self.text: list[str] = []
        self.cells: list[str] = []
        self.feed(text)
        self.close()
        self.wrong += [f"<{tag}> is never closed" for tag in self.open]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        if tag not in VOID:
            self.open.append(tag)
        if tag in ("td", "th"):
            self.cells.append("")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1
        self.attributes += [(tag, name, value or "") for name, value in attrs]

    def handle_endtag(self, tag: str) -> None:
        if tag in VOID:
            return
        if not self.open or self.open.pop() != tag:
            self.wrong.append(f"</{tag}> closes nothing at {self.getpos()}")

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.text.append(data)
        if self.open and {"td", "th"} & set(self.open):
            self.cells[-1] += data

    def values(self, name: str) -> list[str]:
        return [value for _, key, value in self.attributes if key == name]


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Fleet:
    folder = tmp_path_factory.mktemp("fleet")
    skill = {**SKILL, **COMPANY}
    return Fleet(folder, LARGER, skill, seeds=(1, 2), untested=["scan-and-dial"]).make()


@pytest.fixture(scope="module")
def path(fleet: Fleet) -> Path:
    return render(fleet)


@pytest.fixture(scope="module")
def html(path: Path) -> str:
    return path.read_text()


def plain(html: str) -> str:
    """The words of a page, without its markup."""
    return " ".join(" ".join(Reader(html).text).split())


def checked(path: Path) -> str:
    """The page, after what must hold of any page was asserted; and so of its pictures."""
    html = path.read_text()
    page = Reader(html)
    assert not page.wrong
    ids = page.values("id")
    assert len(ids) == len(set(ids))
    for place in page.values("href"):
        if place.startswith("#"):
            assert place[1:] in ids
        else:
            assert re.fullmatch(r"[\w./-]+\.svg", place)
    assert set(re.findall(r"url\(#([^)]+)\)", html)) <= set(ids)
    assert not {"script", "link", "iframe", "object", "img"} & set(page.tags)
    assert not page.values("src")
    assert not re.search(r"https?:|@import|//\w", html)
    assert len(html.encode()) < MOST_BYTES
    for picture in (path.parent / "pictures").rglob("*.svg"):
        assert ET.parse(picture).getroot().tag.endswith("svg")
        assert "var(" not in picture.read_text()
    return html


def test_the_page_needs_no_network_and_is_whole(path: Path) -> None:
    html = checked(path)
    assert html.startswith("<!doctype html>")
    assert 'name="viewport" content="width=device-width' in html
    assert "prefers-color-scheme:dark" in html
    assert "@media print" in html


def known(fleet: Fleet) -> set[tuple[str, ...]]:
    """Every figure with its interval in the tables, as any text may round it."""
    names = ("metrics", "transfer", "detection", "calibration")
    rows = [row for name in names for row in pl.read_parquet(fleet.table(name)).to_dicts()]
    found = [(row["estimate"], row["low"], row["high"]) for row in rows]
    bins = pl.read_parquet(fleet.table("reliability"))
    found += [(row["accuracy"], row["low"], row["high"]) for row in bins.to_dicts()]
    triples = [triple for triple in found if None not in triple]
    pairs = pl.read_parquet(fleet.table("pairwise")).to_dicts()
    signed = [(row["diff"], row["low"], row["high"]) for row in pairs if row["low"] is not None]
    signed += [(-diff, -high, -low) for diff, low, high in signed]
    changes = [row for row in rows if row["metric"].endswith("_change")]
    signed += [(row["estimate"], row["low"], row["high"]) for row in changes]
    hows = (".3f", ".2f", ".1f")
    shown = {tuple(f"{value:{how}}" for value in triple) for triple in triples for how in hows}
    return shown | {tuple(f"{value:+.3f}" for value in triple) for triple in signed}


NUMBER = r"([-+]?\d+\.\d+) \[([-+]?\d+\.\d+), ([-+]?\d+\.\d+)\]"


def test_every_interval_on_the_page_stands_in_the_tables(fleet: Fleet, html: str) -> None:
    found = set(re.findall(NUMBER, plain(html)))
    assert len(found) > 150
    assert found <= known(fleet)


def test_every_interval_of_the_text_twin_stands_in_the_tables(fleet: Fleet, path: Path) -> None:
    found = set(re.findall(NUMBER, path.with_name("comparison_v2.md").read_text()))
    assert len(found) > 150
    assert found <= known(fleet)


def test_page_and_text_twin_say_the_same(path: Path, html: str) -> None:
    twin = path.with_name("comparison_v2.md").read_text()
    words = plain(html)
    first = twin.partition(END_OF_HEADLINE)[0]
    told = re.findall(r"^(?:- |\*\*(?:Question|Answer):\*\* )(.+)$", first, re.M)
    assert len(told) > 6
    for sentence in told:
        assert " ".join(re.sub(r"[*`]", "", sentence).split()) in words
    rows = [line for line in twin.splitlines() if line.startswith("| ")]
    cells = {cell.strip().replace("`", "") for row in rows for cell in row.strip("|").split("|")}
    on_page = {" ".join(cell.split()) for cell in Reader(html).cells}
    assert {cell for cell in cells if cell and not cell.startswith("macro_f1 unit")} <= on_page


def test_the_first_screen_has_question_answer_and_what_was_not_tested(html: str) -> None:
    header = plain(html.partition("</header>")[0])
    for words in (
        "work on a machine it has never seen (birch), and how sure are we?",
        "The best realistic detector by val, gbt, reaches macro F1 0.",
        "Not tested: scan-and-dial",
        "Downgraded host: birch lacks netflow in 13 of 13 episodes.",
        "Failed: gbt oracle",
        "infections raise an alarm",
        "false alarms an hour of clean time",
    ):
        assert words in header


def test_tiles_copy_the_figures_of_the_best_by_val(fleet: Fleet, html: str) -> None:
    of_best = {"model": "gbt", "mode": "realistic"}
    clock = {"model": "window_index", "mode": "baseline"}
    tables = ("metrics", "detection", "transfer")
    known = pl.concat([pl.read_parquet(fleet.table(name)) for name in tables])
    rows = known.filter(pl.col("seed").is_null())
    expected = []
    for metric, scope, part, name, digits in (
        ("macro_f1", "all", "test", of_best, 3),
        ("macro_f1_change", "transfer", "cross_host", of_best, 3),
        ("macro_f1", "all", "test", clock, 3),
        ("caught", "alarm", "test", of_best, 3),
        ("delay_median_s", "alarm", "test", of_best, 1),
        ("false_alarms_per_hour", "alarm", "test", of_best, 2),
    ):
        (row,) = rows.filter(metric=metric, scope=scope, key="all", part=part, **name).to_dicts()
        sign = "+" if metric.endswith("change") else ""
        shown = [f"{row[end]:{sign}.{digits}f}" for end in ("estimate", "low", "high")]
        expected.append([*(value.replace("inf", "missed") for value in shown), row["n_episodes"]])
    tile = r"<b>([^<]+)</b><span[^>]*>\[([^,]+), ([^\]]+)\]</span><span[^>]*>.*?n\W+(\d+) episodes"
    found = re.findall(tile, html.partition("</header>")[0])
    assert [[*values, int(n)] for *values, n in found] == expected


def test_every_picture_is_drawn_has_a_caption_and_the_numbers_behind_it(html: str) -> None:
    figures = re.findall(r"<figure.*?</figure>", html, re.S)
    assert len(figures) == len(split_pictures(["realistic", "oracle"])) + 2  # the store's, curves
    for figure in figures:
        page = Reader(figure)
        assert page.values("role") == ["img"]
        assert all(len(label) > 10 for label in page.values("aria-label"))
        caption = plain(figure.partition("<figcaption>")[2])
        assert re.search("interval", caption, re.I), caption
        assert re.search(r"\d+ (indexed |infected )?episode|windows|seed", caption, re.I), caption
    assert "</figure>\n<details>" in html


def test_all_colours_of_pictures_follow_the_page(html: str) -> None:
    drawn = "".join(re.findall(r"<svg.*?</svg>", html, re.S))
    assert not re.findall(r"#[0-9a-f]{6}", drawn)
    used = set(re.findall(r"var\(--([\w]+)\)", drawn))
    assert used
    assert used <= set(PALETTE)


def test_no_two_colours_of_the_palette_are_the_same_on_white() -> None:
    light = [colours[0] for colours in PALETTE.values()]
    assert len(light) == len(set(light))


def luminance(colour: str) -> float:
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [x / 12.92 if x <= 0.04045 else ((x + 0.055) / 1.055) ** 2.4 for x in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("which", [0, 1], ids=["light", "dark"])
@pytest.mark.parametrize(
    ("text", "behind"),
    [
        *((name, "paper") for name in ("ink", "soft", "realistic", "oracle", "alarm", "failed")),
        *((name, "faint") for name in ("ink", "soft")),
        *(("ink", f"shade{i}") for i in range(5)),
        *(("over", f"shade{i}") for i in range(5, 8)),
        *(("ink", name) for name in ("clean", "armed", "infecting", "infected", "dormant")),
    ],
)
def test_text_can_be_read_on_what_is_behind_it(text: str, behind: str, which: int) -> None:
    """Contrast as WCAG 2 defines it; 4.5 is its level AA, 3 that of large text."""
    lights = sorted(luminance(PALETTE[name][which]) for name in (text, behind))
    ratio = (lights[1] + 0.05) / (lights[0] + 0.05)
    assert ratio >= (3.8 if behind.startswith("shade") else 4.5)


def test_costs_stand_on_the_page_and_not_in_the_twin(path: Path, html: str) -> None:
    costs = plain(html.partition('id="What-they-cost"')[2].partition("</section>")[0])
    assert "1.50 2.50 10 1,000 300" in costs
    twin = path.with_name("comparison_v2.md").read_text()
    assert "p95" not in twin
    assert "peak memory" not in twin


def test_ten_pitfalls_have_an_answer_and_a_command_each(html: str) -> None:
    section = html.partition('id="The-ten-pitfalls"')[2].partition("</section>")[0]
    cells = Reader(section).cells[3:]
    rows = [cells[i : i + 3] for i in range(0, len(cells), 3)]
    assert len(rows) == 10
    for _, answer, command in rows:
        assert re.search(r"\d|Not measured|Not answered", answer)
        again, shown = command.split(" && ")
        assert shown == "cis490 report pitfalls"
        *targets, report = again.removeprefix("snakemake --cores 2 --force ").split()
        assert report == "results/report/comparison_v2.md"
        assert targets
        for target in targets:
            assert re.fullmatch(r"results/(validation|eval/host/\w+|splits/host)\.\w+", target)


def test_the_page_is_the_same_each_time(fleet: Fleet, path: Path) -> None:
    before = {file: file.read_bytes() for file in path.parent.rglob("*") if file.is_file()}
    render(fleet)
    assert {file: file.read_bytes() for file in before} == before


def test_rows_of_few_episodes_are_grey_and_say_so(html: str) -> None:
    rows = re.findall(r'<tr class="few"><th scope="row">([^<]+)</th>', html)
    assert "io-walk (few)" in rows
    assert "cpu-saturate" not in rows
    assert "fewer than 5 episodes" in plain(html)


def test_without_the_stages_that_time_and_calibrate_the_page_says_so(fleet: Fleet) -> None:
    words = plain(checked(render(fleet, stages=())))
    assert "Not computed: there is no detection.parquet" in words
    assert "Not computed: there is no calibration.parquet" in words
    assert "raise an alarm, n" not in words
    render(fleet)


def test_several_splits_stand_on_one_page(fleet: Fleet, tmp_path: Path) -> None:
    back = Fleet(tmp_path, SMALL, {("cnn", "realistic"): 0.7}, name="back").make()
    html = checked(render(fleet, back))
    section = html.partition('id="Split-back"')[2].partition("</section>")[0]
    assert "The best realistic detector by val, cnn" in plain(section)
    assert "curves_back.svg" in section
    assert section.count("<svg") == len(split_pictures(["realistic"]))
    assert (fleet.folder / "report/pictures/back/forest.svg").exists()
    assert "Split back : The best" in plain(html.partition("</header>")[0])
    render(fleet)


def without(part: str) -> dict[str, Any]:
    return {name: hosts for name, hosts in SMALL.items() if name != part}


def simulated(fleet: Fleet) -> None:
    split = fleet.path("splits", "host.json")
    write_json(split, read_json(split) | {"n_simulated": 32})


PHASES = ("clean", "armed", "infected_running")
# Name: the fleet, what is done to it, and words that its page must have.
ODD: dict[str, tuple[dict[str, Any], Callable[[Fleet], None] | None, list[str]]] = {
    "one test episode": (
        {"parts": {**SMALL, "test": {"birch": {"io-walk": 1}}}},
        None,
        ["cannot be said from 1 episode", "[no interval]", "no control episode in this part"],
    ),
    "a class missing": (
        {"phases": PHASES, "train_phases": PHASES[:2]},
        None,
        ["no window of test is infecting or dormant", "no training window is infecting,"],
    ),
    "no controls": (
        {"parts": {**SMALL, "test": {"birch": {"io-walk": 6}}}},
        None,
        ["Not measured: no control episode in this part", "of it on controls: none"],
    ),
    "controls only": (
        {"parts": {**SMALL, "test": {"birch": {"none": 6}}}},
        None,
        [
            "Cannot be said: the windows of test are all clean",
            "No episode of a profile other than the controls was scored.",
            "Not measured: test lacks clean or infected windows.",
            "No episode of test has an infection that a window sees.",
        ],
    ),
    "one host": (
        {"parts": {part: {"alder": SOME} for part in ("train", "val")}},
        None,
        ["No held-out host", "new machines are not judged"],
    ),
    "no val": (
        {"parts": without("val")},
        None,
        ["Undecided", "No detector has a figure on val, so none is the best."],
    ),
    "nothing scored": (
        {"parts": {"train": {"alder": SOME}}},
        None,
        ["Nothing could be scored", "Nothing was scored."],
    ),
    "all failed": (
        {"skill": dict.fromkeys(SKILL)},
        None,
        ["None: 4 detectors of 4 failed.", "Failed: cnn oracle"],
    ),
    "baselines only": (
        {"skill": COMPANY},
        None,
        ["None: no detector was trained, only a baseline."],
    ),
    "simulated": (
        {},
        simulated,
        ["Simulated store: no result", "32 usable episodes are clones"],
    ),
}


@pytest.mark.parametrize("name", ODD)
def test_the_page_is_legal_on(name: str, tmp_path: Path) -> None:
    changes, edit, words = ODD[name]
    parts, skill = changes.pop("parts", SMALL), changes.pop("skill", SKILL)
    fleet = Fleet(tmp_path, parts, skill, **changes).make()
    if edit:
        edit(fleet)
    page = checked(render(fleet))
    for expected in words:
        assert expected in plain(page)
    without_best = {"no val", "nothing scored", "all failed", "baselines only", "simulated"}
    assert ('class="tiles"' in page) == (name not in without_best)


HOSTILE = ["$x_1$", "<b>&amp;</b>", 'a"quote', "very-" * 60, "bell\x07", "日本"]


def test_names_from_outside_cannot_break_the_page(tmp_path: Path) -> None:
    parts = {
        part: {host: {**profiles, **dict.fromkeys(HOSTILE, 1)} for host, profiles in hosts.items()}
        for part, hosts in SMALL.items()
    }
    html = checked(render(Fleet(tmp_path, parts, {("cnn", "realistic"): 0.7}).make()))
    words = plain(html)
    for name in HOSTILE[:4]:
        assert name in words
    assert "\x07" not in html


def test_a_store_of_many_hosts_shows_the_largest_and_counts_the_others(fleet: Fleet) -> None:
    verdicts = fleet.verdicts()
    many = [
        verdicts.head(2 if i == 7 else 1).with_columns(host_id=pl.lit(f"web{i:02d}"))
        for i in range(30)
    ]
    write_parquet(fleet.folder / "validation.parquet", pl.concat(many))
    picture = (render(fleet).parent / "pictures/episodes.svg").read_text()
    shown = re.findall(r">(web\d+|\d+ others)<", picture)
    assert shown[0] == "web07"
    assert shown[-1] == "20 others"
    assert len(shown) == 11
    write_parquet(fleet.folder / "validation.parquet", verdicts)
    render(fleet)


def test_what_hosts_never_seen_cost_leads_the_page_and_names_each_host(
    fleet: Fleet, html: str
) -> None:
    table = pl.read_parquet(fleet.table("transfer")).filter(metric="macro_f1_change")
    head = plain(html.partition("</header>")[0])
    leader = table.filter(model="gbt", mode="realistic")
    assert "On hosts never seen macro F1 of gbt realistic changes by" in head
    for row in leader.to_dicts():
        low, high = row["low"], row["high"]
        assert f"{row['estimate']:+.3f} [{low:+.3f}, {high:+.3f}]" in head
        assert row["key"] == "all" or f"{row['key']} {row['estimate']:+.3f}" in head


def test_without_transfer_the_page_says_so_and_shows_val_instead(fleet: Fleet) -> None:
    words = plain(checked(render(fleet, stages=[each for each in STAGES if each != "transfer"])))
    assert "Not computed: there is no transfer.parquet" in words
    assert "On hosts never seen" not in words
    assert "on val, which chose it" in words
    render(fleet)
