"""Probes and robustness in the report: what the tables say, and what they could not measure."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import polars as pl
import pytest

from cis490.evaluation.tables import METRICS_SCHEMA
from cis490.files import to_json, write_parquet
from cis490.report.svg import Picture, write_picture
from tests.evaluation.world import SKILL, SMALL
from tests.report.fleet import STAGES, Fleet, render
from tests.report.test_page import checked, plain

REASON = "it changes nothing in any of the 8 episodes"


def row(key: str, metric: str, estimate: float | None, **changes: Any) -> dict[str, Any]:
    ends = {"low": None, "high": None}
    if estimate is not None and metric != "p":
        ends = {"low": estimate - 0.1, "high": estimate + 0.1}
    named = {"split": "host", "model": "gbt", "mode": "realistic", "part": "test"}
    n = {"n_windows": 88, "n_episodes": 8, "n_valid_replicates": 100, "signature": f"{metric}|"}
    return named | {"key": key, "metric": metric, "estimate": estimate} | ends | n | changes


def write(path: Path, scope: str, rows: list[dict[str, Any]], told: dict[str, Any]) -> None:
    table = pl.DataFrame([each | {"scope": scope} for each in rows], schema=METRICS_SCHEMA)
    metadata = {key: v if isinstance(v, str) else to_json(v) for key, v in told.items()}
    write_parquet(path, table, metadata)


PROBES = [
    row("host", "macro_f1", 0.821, part="all"),
    row("exchanged", "p", 0.00123),
    row("exchanged_training", "macro_f1_over_null", 0.012),
    row("test_perturbed", "artefacts_changed", 0.0, low=None, high=None),
    row("split_by_window", "macro_f1_over_episodes", 0.099, part="train+val"),
    row("channel/proc.wchar", "macro_f1", 0.503),
    row("channel/proc.wchar", "macro_f1_over_clock", 0.266),
    row("channel/qmp.rd_ops", "macro_f1", 0.227),
    row("guest/io-walk", "macro_f1_over_realistic", 0.112, model="all", mode="oracle"),
    row("permuted/qmp", "macro_f1_lost", 0.371, part="val"),
    row("without/qmp", "macro_f1_change", -0.139, part="val"),
]
ABOUT = {
    "changed": [],
    "leak": False,
    "over_clock": ["proc.wchar"],
    "not_measurable": {"background_starts": "no exec.jsonl says when"},
}
WORSE = [
    row("unperturbed", "macro_f1", 0.701),
    row("lying_guest", "macro_f1", 0.601),
    row("lying_guest", "macro_f1_change", -0.101),
    row("lying_guest", "inputs_moved", 0.41, low=None, high=None),
    row("without_netflow", "macro_f1", None),
    row("without_netflow", "macro_f1_change", None),
]
DRAWN = {
    "part": "test",
    "n_drawn": "8",
    "n_shown": "8",
    "not_measurable": {"without_netflow": REASON},
}


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    fleet = Fleet(tmp_path_factory.mktemp("fleet"), SMALL, SKILL).make()
    write(fleet.table("probes"), "probe", PROBES, ABOUT)
    write(fleet.table("robustness"), "robustness", WORSE, DRAWN)
    picture = Picture("Robustness", "nothing to draw", None)
    write_picture(picture, fleet.table("robustness_picture"))
    return render(fleet, stages=(*STAGES, "probes", "robustness", "robustness_picture"))


@pytest.mark.parametrize(
    "words",
    [
        "Can gbt tell the host from the features? gbt realistic all macro f1 0.821 [0.721, 0.921]",
        "exchanged between episodes and shifted? gbt realistic test macro f1 0.0012 8",
        "shifted labels? gbt realistic test macro f1 over null +0.012 [-0.088, +0.112] 8",
        "gbt realistic train+val macro f1 over episodes +0.099 [-0.001, +0.199]",
        "with the test rows? gbt realistic test artefacts changed 0 8",
        "changed with the test rows: none. Something was learned from exchanged labels: no.",
        "Not measurable: background_starts: no exec.jsonl says when.",
        "1 channel of 2 above the clock with the whole interval, each taken by itself: proc.wchar.",
        "proc.wchar 0.503 [0.403, 0.603] +0.266 [+0.166, +0.366] 8 qmp.rd_ops 0.227",
        "io-walk all macro_f1 +0.112 [+0.012, +0.212] 8",
        "qmp permuted gbt realistic macro f1 lost +0.371",
        "qmp without gbt realistic macro f1 change -0.139 [-0.239, -0.039]",
        "8 of 8 episodes drawn; nothing is trained again",
        "unperturbed 0.701 [0.601, 0.801] - lying guest 0.601 [0.501, 0.701] -0.101",
        "without netflow not measurable not measurable",
        f"Not measurable: without netflow: {REASON}.",
        # The pitfalls that they answer.
        "0 artefacts of training changed with noise as test rows. A split by window, which leaks, "
        "would flatter gbt by +0.099 [-0.001, +0.199].",
        "gbt tells the host from the features with macro F1 0.821 [0.721, 0.921]. Against "
        "exchanged truths: p = 0.0012.",
        "A guest that lies changes gbt realistic by -0.101 [-0.201, -0.001].",
    ],
)
def test_what_probes_found_stands_on_the_page_and_in_its_twin(page: Path, words: str) -> None:
    assert words in plain(page.read_text())
    twin = page.with_name("comparison_v2.md").read_text()
    assert words in " ".join(twin.replace("|", " ").replace("**", "").split())


def test_the_page_with_all_stages_is_whole(page: Path) -> None:
    html = checked(page)
    section = html.partition('id="What-could-embarrass-them"')[2].partition("</section>")[0]
    assert section.count("<svg") == 1
    assert "results/probes/host/probes.parquet" in html
    assert "results/robustness/host/robustness.parquet" in html
