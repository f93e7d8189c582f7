import os

import polars as pl
import pytest

from cis490 import cli
from cis490.evaluation.tables import METRICS_SCHEMA
from cis490.files import read_json, write_parquet
from cis490.logs import logger
from tests.builders import SPLIT, members_of, pack, small_fleet
from tests.conftest import SAMPLE_STORE


def run(*arguments):
    cli.main([str(argument) for argument in arguments])


def test_validate_judges_a_store_that_no_config_knows(store, tmp_path, capsys):
    store.add("cedar", "e1")
    store.put("cedar", "e2", b"junk")
    run("validate", store.folder, "--out", tmp_path / "v.parquet")
    shown = capsys.readouterr().out
    assert "2 indexed episodes, 1 usable" in shown
    assert "`cedar/e2` errored: not_zstd" in shown
    assert pl.read_parquet(tmp_path / "v.parquet")["status"].to_list() == ["accepted", "errored"]


def test_inspect_shows_phases_and_channels_and_draws_them(tmp_path, capsys):
    episode = next((SAMPLE_STORE / "alder").glob("16e0*"))
    run("inspect", episode, "--plot", tmp_path / "out.png")
    shown = capsys.readouterr().out
    assert "Verdict: accepted" in shown
    assert "| infected_running |" in shown
    assert shown.count("| netflow.") == 10
    assert (tmp_path / "out.png").read_bytes().startswith(b"\x89PNG")


def test_inspect_of_a_lone_file_needs_no_store_around_it(tmp_path, capsys):
    path = tmp_path / "anything.tar.zst"
    path.write_bytes(pack(members_of(netflow=False)))
    run("inspect", path)
    assert "Verdict: degraded" in capsys.readouterr().out


def test_inspect_says_what_is_wrong_and_exits_with_1(tmp_path, capsys):
    path = tmp_path / "bad.tar.zst"
    path.write_bytes(pack(members_of())[:-50])
    with pytest.raises(SystemExit) as done:
        run("inspect", path)
    assert done.value.code == 1
    assert "cut_short" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["validate", "nowhere"], "no such folder"),
        (["inspect", "nowhere.tar.zst"], "no such file"),
        (["train", "gbt", "realistic"], "holds no plan: run `cis490 ingest` first"),
        (["out-of-fold", "gbt", "realistic"], "holds no plan: run `cis490 ingest` first"),
        (["evaluate"], "holds no model"),
        (["report"], "run the workflow first"),
        (["train", "gbt", "oracle", "--split", "x"], "no split x; there are host"),
        (["ingest", "--configfile", "nowhere.yaml"], "cannot read the config"),
    ],
)
def test_a_known_error_is_one_line_and_exit_code_1(arguments, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as done:
        run(*arguments)
    assert str(done.value.code).startswith("error: ")
    assert message in str(done.value.code)
    assert "\n" not in str(done.value.code)


def ingested(folder, monkeypatch):
    """A small store, ingested in a folder that is the working directory from here on."""
    small_fleet(folder / "store")
    monkeypatch.chdir(folder)
    (folder / "mine.yaml").write_text(
        f"store: store\nsplit: {SPLIT}\ntraining: {{epochs: 2}}\nevaluation: {{replicates: 200}}\n"
    )
    with_config = ("--configfile", "mine.yaml")
    run("ingest", *with_config)
    return with_config


def test_the_steps_by_hand_lead_to_a_report(tmp_path, monkeypatch, capsys):
    with_config = ingested(tmp_path, monkeypatch)
    with pytest.raises(SystemExit, match="cis490 tune"):
        run("tuned", *with_config)
    run("train", "gbt", "realistic", *with_config)
    run("train", "mlp", "oracle", *with_config)
    run("out-of-fold", "gbt", "realistic", *with_config)
    assert capsys.readouterr().out.endswith("results/oof/host/gbt_realistic.parquet\n")
    assert "fold" in pl.read_parquet("results/oof/host/gbt_realistic.parquet").columns
    run("evaluate", *with_config)
    shown = capsys.readouterr().out
    assert "| gbt" in shown
    assert "| window_index" in shown
    run("report")
    assert capsys.readouterr().out.strip() in shown


def test_evaluating_by_hand_says_which_models_were_trained_otherwise(tmp_path, monkeypatch, caplog):
    with_config = ingested(tmp_path, monkeypatch)
    run("train", "gbt", "realistic", *with_config)
    run("train", "threshold", "realistic", *with_config)
    for told in ("curves.write_curves", "page.write_page", "comparison.write_comparison"):
        monkeypatch.setattr(f"cis490.report.{told}", lambda *_, **__: None)
    monkeypatch.setattr("cis490.cli._show_report", lambda _: None)

    def warnings():
        caplog.clear()
        logger.handlers[:] = []
        run("evaluate", *with_config)
        return [each.getMessage() for each in caplog.records if each.levelname == "WARNING"]

    assert not any("otherwise" in said for said in warnings())
    settings = (tmp_path / "mine.yaml").read_text().replace("epochs: 2", "epochs: 3")
    settings += "seeds: [1]\narchitectures: {gbt: {max_depth: 3}}\n"
    (tmp_path / "mine.yaml").write_text(settings)
    gbt, threshold = (said for said in warnings() if "otherwise" in said)
    assert gbt.startswith("gbt realistic was trained otherwise than the config says now: epochs 2")
    assert "epochs 2, now 3; options {}, now {'max_depth': 3}; seeds [42, 2025, 7], now [1]" in gbt
    assert gbt.endswith("cis490 train gbt realistic does it")
    assert threshold.startswith("threshold realistic")
    assert "options" not in threshold
    write_parquet(
        "results/splits/fit/host.parquet",
        pl.read_parquet("results/splits/fit/host.parquet").head(3),
        {"kind": "x", "version": "1"},
    )
    assert "; the episodes to train on; " in next(s for s in warnings() if "otherwise" in s)


def test_settings_are_searched_printed_and_trained_with_by_hand(tmp_path, monkeypatch, capsys):
    pytest.importorskip("optuna")
    small_fleet(tmp_path / "store")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.yaml").write_text(
        f"store: store\nsplit: {SPLIT}\ntune: true\ntuning: {{trials: 2}}\n"
    )
    with_config = ("--configfile", "mine.yaml")
    run("ingest", *with_config)
    with pytest.raises(SystemExit, match=r"gbt_realistic\.json is missing"):
        run("train", "gbt", "realistic", *with_config)
    run("tune", "gbt", "realistic", "--workers", "1", *with_config)
    capsys.readouterr()
    run("tuned", *with_config)
    assert "# gbt realistic, 2 trials: " in capsys.readouterr().out
    run("train", "gbt", "realistic", *with_config)
    model = read_json(tmp_path / "results/models/host/gbt_realistic/model.json")
    assert model["tuning"]["n_trials"] == 2


def test_evaluating_by_hand_keeps_what_transfer_found(tmp_path, monkeypatch):
    with_config = ingested(tmp_path, monkeypatch)
    run("train", "gbt", "realistic", *with_config)
    given = []
    monkeypatch.setattr(
        "cis490.report.page.write_page", lambda **files: given.append(files["stages"]["transfer"])
    )
    run("evaluate", *with_config)
    table = tmp_path / "results/transfer/host/transfer.parquet"
    table.parent.mkdir(parents=True)
    metadata = {"kind": "x", "version": "1"}
    write_parquet(table, pl.DataFrame(schema=METRICS_SCHEMA), metadata)
    monkeypatch.setattr("cis490.report.comparison.write_comparison", lambda **_: None)
    run("evaluate", *with_config)
    os.utime(table, (0, 0))  # of other models
    run("evaluate", *with_config)
    assert [[path.name for path in each] for each in given] == [[], ["transfer.parquet"], []]
