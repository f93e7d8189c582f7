import os
import re
import shutil
import signal
import subprocess
import time
from datetime import UTC, datetime

import polars as pl
import pytest

from cis490.files import read_json
from tests.builders import START, Store, add_to_fleet, small_fleet
from tests.conftest import ROOT
from tests.workflow.conftest import Run

pytestmark = pytest.mark.workflow

ARTEFACTS = """
    validation.parquet validation.md schema.json
    telemetry/alder-00000/proc.parquet telemetry/birch-00001/exec.parquet
    features/alder-00000.parquet tensors/alder-00000.safetensors windows/host/fit.json
    splits/host.parquet splits/host.json
    models/host/gbt_realistic/model.json models/host/mlp_realistic/weights.safetensors
    models/host/gbt_realistic/collapse_report.json models/host/mlp_realistic/training_metadata.json
    models/host/summary.json oof/host/mlp_realistic.parquet
    predictions/host/gbt_realistic.parquet
    eval/host/gbt_realistic_eval.json eval/host/metrics.parquet eval/host/pairwise.parquet
    eval/host/detection.parquet eval/host/alarms.parquet
    eval/host/calibration.parquet eval/host/reliability.parquet
    report/comparison_v2.md report/curves_host.svg
    report/index.html report/production_summary.json report/pictures/host/forest.svg
    logs/ingest/alder-00000.log benchmarks/train/host/mlp_realistic.tsv
""".split()


def test_one_command_leaves_every_stage_and_a_second_has_nothing_to_do(finished):
    missing = [name for name in ARTEFACTS if not (finished.results / name).exists()]
    assert not missing
    assert "Nothing to be done" in finished.ok()
    report = (finished.results / "report/comparison_v2.md").read_text()
    best = next(
        read_json(path)["macro_f1"]
        for path in finished.results.glob("eval/host/*_eval.json")
        if f"{read_json(path)['macro_f1']['estimate']:.3f} [" in report
    )
    assert best["low"] <= best["estimate"] <= best["high"]


def test_predictions_hold_every_window_of_val_and_test_and_no_other(finished):
    predictions = pl.read_parquet(finished.results / "predictions/host/gbt_realistic.parquet")
    split = pl.read_parquet(finished.results / "splits/host.parquet")
    features = pl.concat(
        pl.read_parquet(path, columns=["episode_id", "window", "phase"])
        for path in finished.results.glob("features/*.parquet")
    )
    wanted = features.join(
        split.filter(pl.col("part").is_in(["val", "test"])).select("episode_id", "part"),
        on="episode_id",
    )
    keys = ["episode_id", "window", "phase", "part"]
    assert predictions["seed"].unique(maintain_order=True).to_list() == [7, 42]
    for _, of_seed in predictions.group_by("seed"):
        assert of_seed.select(keys).sort(keys).equals(wanted.select(keys).sort(keys))
    phases = [f"p_{p}" for p in ("clean", "armed", "infecting", "infected_running", "dormant")]
    total = predictions.select(pl.sum_horizontal(phases)).to_series()
    assert (total - 1).abs().max() < 1e-5


def test_nothing_is_written_outside_the_working_directory(fresh):
    def times(folder):
        return {path: path.stat().st_mtime_ns for path in folder.rglob("*")}

    before = times(fresh.store.folder)
    clone = {path for path in ROOT.rglob("*") if "cache" not in str(path)}
    fresh.ok("results/validation.md")
    assert times(fresh.store.folder) == before
    assert {path for path in ROOT.rglob("*") if "cache" not in str(path)} == clone
    # Snakemake itself makes empty cache folders at home, before it reads a line of ours.
    assert not [path for path in fresh.home.rglob("*") if path.is_file()]


def test_train_and_val_are_predicted_out_of_fold_and_other_folds_train_no_model_again(run):
    table = pl.read_parquet(run.results / "oof/host/gbt_realistic.parquet")
    fit = pl.read_parquet(run.results / "splits/fit/host.parquet")
    assert (
        table.select("episode_id", "part")
        .unique()
        .sort("episode_id")
        .equals(fit.select("episode_id", "part").sort("episode_id"))
    )
    assert set(table["fold"]) == {0, 1, 2, 3, 4}
    run.settings(evaluation={"replicates": 200, "folds": 4})
    assert (run.jobs()["out_of_fold"], run.jobs()["train"]) == (2, 0)


def test_a_new_episode_of_a_test_host_trains_nothing(run):
    add_to_fleet(run.store, "birch", "bnew", "io-walk", "walker", 77)
    jobs = run.jobs()
    once = ("ingest", "windows", "manifest", "gather", "split", "report", "page")
    scored = ("evaluate", "detection", "calibration")
    assert jobs == {**dict.fromkeys([*once, *scored], 1), "predict": 2}
    run.ok()
    split = pl.read_parquet(run.results / "splits/host.parquet")
    assert split.filter(episode_id="bnew")["part"].to_list() == ["test"]
    assert "Nothing to be done" in run.ok()


def test_a_new_episode_of_a_training_host_decodes_only_its_batch(run):
    add_to_fleet(run.store, "alder", "anew", "io-walk", "walker", 77)
    jobs = run.jobs()
    assert (jobs["ingest"], jobs["windows"], jobs["train"]) == (1, 1, 2)


def test_a_vanished_episode_dirties_its_batch_alone_and_is_reported(run):
    (run.store.folder / "birch/b0000.tar.zst").unlink()
    jobs = run.jobs()
    assert (jobs["ingest"], jobs["windows"], jobs["train"]) == (1, 1, 0)
    run.ok("results/validation.md")
    row = pl.read_parquet(run.results / "validation.parquet").row(
        by_predicate=pl.col("episode_id") == "b0000", named=True
    )
    assert (row["status"], row["reasons"]) == ("errored", ["file_missing"])


def test_a_changed_window_decodes_nothing_again(run):
    run.settings(window={"length_s": 5, "stride_s": 5})
    jobs = run.jobs()
    assert (jobs["ingest"], jobs["windows"], jobs["train"]) == (0, 6, 2)


def test_a_run_that_ends_between_windows_and_trainings_trains_the_next_time(run):
    trained = "results/models/host/gbt_realistic/model.json"
    run.settings(window={"length_s": 5, "stride_s": 5})
    run.ok("--until", "manifest")
    assert run.jobs(trained) == {"train": 1}
    run.ok(trained)
    assert run.jobs(trained) == {}


def test_the_device_is_no_reason_to_train_again(run):
    run.settings(training={"epochs": 2, "device": "auto"})
    assert run.jobs() == {}
    run.settings(training={"epochs": 3})
    assert run.jobs()["train"] == 2


def test_what_is_only_seen_is_made_when_it_is_asked_for_and_trains_nothing_again(run):
    model = run.results / "models/host/mlp_realistic/weights.safetensors"
    before = model.read_bytes()
    run.settings(training={"epochs": 2, "rate_cache_hours": 1})
    assert run.jobs() == {}
    run.settings(training={"epochs": 2, "profile": True})
    assert run.jobs()["train"] == 2
    run.ok("--until", "train")
    assert (run.results / "profile/host/mlp_realistic").is_dir()  # too few steps for a trace
    log = (run.results / "logs/train/host/mlp_realistic.log").read_text()
    assert "too short for a profile" in log
    assert model.read_bytes() == before
    run.settings()
    assert "train" not in run.jobs()


def test_settings_of_one_architecture_train_that_one_again(run):
    run.settings(architectures={"mlp": {"width": 32}})
    jobs = run.jobs()
    assert jobs["train"] == jobs["predict"] == 1


def test_networks_ask_for_a_gpu_and_the_rest_does_not(fresh):
    fresh.settings(training={"epochs": 2, "device": "cuda"})
    blocks = [block.split("\n\n")[0] for block in re.split(r"\n(?:local)?rule ", fresh.ok("-n"))]
    asking = {block.split(":")[0]: [] for block in blocks[1:]}
    for block in blocks[1:]:
        if "gpu=1" in block:
            asking[block.split(":")[0]].append(re.search(r"architecture=(\w+)", block)[1])
    assert {rule: models for rule, models in asking.items() if models} == {
        "train": ["mlp"],
        "out_of_fold": ["mlp"],
        "predict": ["mlp"],
    }


def test_what_was_removed_by_hand_is_made_again(run):
    shutil.rmtree(run.results / "models")
    (run.results / "features/birch-00000.parquet").unlink()
    jobs = run.jobs()
    assert (jobs["train"], jobs["windows"], jobs["ingest"]) == (2, 1, 0)


def test_other_test_hosts_train_nothing_again(run):
    run.settings(split={"train_hosts": ["dogwood", "alder"], "test_hosts": []})
    jobs = run.jobs()
    assert (jobs["train"], jobs["fit"]) == (0, 0)
    assert jobs["split"] == 1


def test_a_run_says_nothing_that_is_not_its_own(fresh):
    output = fresh.ok("-n")
    assert "Error" not in output
    assert "Exception" not in output


def test_numbers_on_the_command_line_are_numbers(run):
    jobs = run.jobs("--config", "evaluation={replicates: 300}")
    scored = ("evaluate", "detection", "calibration")
    assert jobs == dict.fromkeys([*scored, "report", "page"], 1)


def edit(run, file, old, new):
    path = run.clone / "src/cis490" / file
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


def test_a_comment_is_no_reason_to_do_anything_and_neither_is_another_clone(edited):
    edit(edited, "windows/grid.py", "class Steps:", "# A comment.\nclass Steps:")
    edit(edited, "episodes/ingest.py", "def ingest(", "\n\ndef ingest(")
    assert edited.jobs() == {}


def test_changed_code_reruns_what_it_decides_and_what_follows(edited):
    edit(edited, "windows/grid.py", "_COMPLETE: Final = 0.95", "_COMPLETE: Final = 0.9")
    jobs = edited.jobs()
    assert (jobs["ingest"], jobs["windows"], jobs["train"]) == (0, 6, 2)


def test_changed_code_of_the_report_rewrites_the_report_alone(edited):
    edit(edited, "report/text.py", "FEW_HOSTS: Final = 10", "FEW_HOSTS: Final = 9")
    assert edited.jobs() == {"report": 1, "page": 1}


def test_an_unindexed_file_changes_the_page_on_the_store_and_trains_nothing(run):
    (run.store.folder / "alder/stray.tar.zst").write_bytes(b"")
    assert run.jobs() == {"gather": 1, "report": 1, "page": 1}


def test_extra_splits_stand_beside_the_primary_one_and_retrain_nothing_of_it(run):
    back = {"name": "back", "train_hosts": ["birch"], "test_hosts": ["alder"]}
    run.settings(models=["gbt"], extra_splits=[back])
    jobs = run.jobs()
    assert (jobs["ingest"], jobs["windows"], jobs["train"], jobs["fit"]) == (0, 0, 1, 1)
    run.ok()
    report = (run.results / "report/comparison_v2.md").read_text()
    assert "back" in report
    split = read_json(run.results / "splits/back.json")
    assert (split["train_hosts"], split["test_hosts"]) == (["birch"], ["alder"])


@pytest.mark.parametrize("delay_s", [2.5, 6.0, 11.0])
def test_a_run_killed_at_any_moment_goes_on_to_the_same_bytes_on_another_number_of_cores(
    request, finished, fresh, delay_s
):
    if delay_s != 6.0 and not request.config.getoption("--long"):
        pytest.skip("a minute each: --long")
    process = subprocess.Popen(
        fresh.command(),
        cwd=fresh.folder,
        start_new_session=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    time.sleep(delay_s)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    fresh.ok(cores=1)
    expected, got = finished.tables(), fresh.tables()
    assert expected.keys() == got.keys()
    assert [name for name in expected if expected[name] != got[name]] == []


def test_a_second_run_beside_a_live_one_is_refused(fresh):
    process = subprocess.Popen(
        fresh.command(),
        cwd=fresh.folder,
        start_new_session=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    locks = fresh.folder / ".snakemake/locks"
    while process.poll() is None and not (locks.exists() and any(locks.iterdir())):
        time.sleep(0.05)
    second = fresh.snakemake()
    fresh.ok("-n")
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert second.returncode != 0
    assert "lock" in (second.stdout + second.stderr).lower()


def assert_stops_with(run, *parts):
    done = run.snakemake()
    output = done.stdout + done.stderr
    assert done.returncode == 1, output
    assert "Traceback" not in output
    (line,) = [line for line in output.splitlines() if line.startswith("error: ")]
    for part in parts:
        assert part in line


def test_an_empty_store_stops_with_a_line_and_exit_code_1(fresh):
    (fresh.folder / "store").rename(fresh.folder / "full")
    assert_stops_with(fresh, "no such folder")
    Store(fresh.folder / "store")
    assert_stops_with(fresh, "empty: index.jsonl holds no record")


@pytest.mark.parametrize(
    ("settings", "parts"),
    [
        ({"split": {"test_hosts": ["cedar"]}}, ["no host cedar", "alder, birch, dogwood"]),
        (
            {"split": {"test_hosts": ["alder"]}},
            ["split.test_hosts", "alder is also in train_hosts"],
        ),
        ({"trainning": {}}, ["unknown key trainning", "did you mean training"]),
        ({"training": {"epochs": "x"}}, ["training.epochs"]),
        ({"store_pin": "nothing.parquet"}, ["store_pin"]),
    ],
)
def test_a_bad_setting_stops_with_one_line_that_names_its_key(fresh, settings, parts):
    fresh.settings(**settings)
    assert_stops_with(fresh, *parts)


def test_no_held_out_host_gives_a_report_on_val_that_says_so(fresh):
    fresh.settings(models=["gbt"], split={"test_hosts": []})
    fresh.ok()
    report = (fresh.results / "report/comparison_v2.md").read_text()
    assert report.startswith("# No held-out host")


@pytest.mark.parametrize("recipe", ["sample", "time"])
def test_other_recipes_run_to_a_report(fresh, recipe):
    fresh.settings(models=["gbt"], split={"recipe": recipe})
    fresh.ok()
    parts = pl.read_parquet(fresh.results / f"splits/{recipe}.parquet")["part"]
    assert {"train", "val", "test"} <= set(parts)
    assert (fresh.results / f"eval/{recipe}/metrics.parquet").exists()


def test_a_training_that_fails_is_shown_and_leaves_the_others_standing(fresh):
    """Two hosts that are clean throughout hold one class: no detector can be trained on that."""
    store = Store(fresh.folder / "controls")
    for i in range(6):
        for host_id in ("alder", "dogwood", "birch"):
            add_to_fleet(store, host_id, f"{host_id}{i}", "none", "none", i)
    add_to_fleet(store, "birch", "infected", "io-walk", "walker", 3)
    fresh.settings(store="controls")
    fresh.ok()
    report = (fresh.results / "report/comparison_v2.md").read_text()
    assert "failed" in report.lower()
    statuses = {read_json(path)["status"] for path in fresh.results.glob("models/*/*/model.json")}
    assert statuses == {"failed"}


def test_a_trained_baseline_is_added_without_training_again_and_is_no_detector(run):
    run.settings(baselines=["minirocket"])
    once = ("train", "out_of_fold", "predict", "evaluate", "detection", "calibration")
    assert run.jobs() == dict.fromkeys([*once, "summarise", "curves", "report", "page"], 1)
    run.ok()
    report = (run.results / "report/comparison_v2.md").read_text()
    assert report.startswith("# Malware phases, 2 detectors compared")
    assert re.search(r"^\| minirocket realistic +\|", report, re.M)
    metrics = pl.read_parquet(run.results / "eval/host/metrics.parquet")
    assert set(metrics.filter(model="minirocket")["mode"]) == {"realistic"}


def test_tune_searches_settings_first_and_the_models_are_trained_with_them(run):
    pytest.importorskip("optuna")
    run.settings(models=["gbt"], tune=True, tuning={"trials": 2})
    jobs = run.jobs()
    assert jobs["tune"] == jobs["train"] == jobs["report"] == 1
    trained = "results/models/host/gbt_realistic/model.json"
    run.ok(trained)
    tuning = read_json(run.results / "tuning/host/gbt_realistic.json")
    model = read_json(run.folder / trained)
    assert model["tuning"] == {"n_trials": 2, **tuning["chosen"]}
    assert run.jobs(trained) == {}
    run.settings(models=["gbt"])
    assert (run.jobs()["tune"], run.jobs()["train"]) == (0, 1)


def test_tune_without_optuna_stops_with_one_line_that_says_what_to_install(fresh, monkeypatch):
    (fresh.folder / "sitecustomize.py").write_text("import sys; sys.modules['optuna'] = None\n")
    monkeypatch.setenv("PYTHONPATH", str(fresh.folder), prepend=os.pathsep)
    fresh.settings(tune=True)
    assert_stops_with(fresh, "tune is true", "pip install 'cis490[tune]'")


def test_a_pinned_run_stays_as_it_was_while_the_store_grows(run):
    (run.results / "validation.parquet").rename(run.folder / "pin.parquet")
    run.settings(store_pin="pin.parquet")
    run.ok()
    add_to_fleet(run.store, "alder", "anew", "io-walk", "walker", 77)
    assert run.jobs() == {"gather": 1, "report": 1, "page": 1}
    run.ok()
    assert "`anew`: in the store but not in the pin" in (run.results / "validation.md").read_text()
    assert pl.read_parquet(run.results / "validation.parquet").filter(episode_id="anew").is_empty()


def test_a_nights_arrivals_after_as_of_are_predicted_and_train_nothing_until_it_is_moved(tmp_path):
    pytest.importorskip("optuna")
    run = Run(tmp_path / "nights")
    small_fleet(run.folder / "store")

    def settings(k):
        moment = datetime.fromtimestamp(START // 10**9 + 100 * k, UTC).isoformat()
        run.settings(
            models=["gbt"],
            split={"as_of": moment},
            tune=True,
            tuning={"trials": 2},
            transfer={"run": True},
        )

    settings(2500)
    run.ok()
    before = run.tables()
    learned = {
        name: content
        for name, content in before.items()
        if name.split("/")[0] in ("models", "oof", "tuning")
        or name.startswith(
            ("transfer/host/in_host", "transfer/host/cross_host", "splits/fit", "splits/known")
        )
    }
    assert len(learned) > 6
    for host_id, name in (("alder", "anight"), ("dogwood", "dnight"), ("birch", "bnight")):
        add_to_fleet(run.store, host_id, name, "io-walk", "walker", 3000)
    once = ("manifest", "gather", "split", "predict", "evaluate", "detection", "calibration")
    night = {
        **dict.fromkeys([*once, "transferred", "report", "page"], 1),
        "ingest": 3,
        "windows": 3,
    }
    assert run.jobs() == night
    run.ok()
    after = run.tables()
    assert [name for name in learned if after[name] != learned[name]] == []
    split = pl.read_parquet(run.results / "splits/host.parquet")
    parts = dict(split.select("episode_id", "part").iter_rows())
    assert (parts["anight"], parts["dnight"], parts["bnight"]) == ("excluded", "excluded", "test")
    predicted = pl.read_parquet(run.results / "predictions/host/gbt_realistic.parquet")
    assert {"bnight"} <= set(predicted["episode_id"])
    assert not {"anight", "dnight"} & set(predicted["episode_id"])
    assert "started or arrived after as_of" in (run.results / "report/index.html").read_text()
    # The night after they fill what the first night began.
    add_to_fleet(run.store, "alder", "anext", "cpu-saturate", "miner", 3100)
    seen = {rule: n for rule, n in night.items() if rule not in ("ingest", "windows", "manifest")}
    assert run.jobs() == {**seen, "ingest": 1, "windows": 1}
    settings(3050)
    jobs = run.jobs()
    assert (jobs["tune"], jobs["train"], jobs["out_of_fold"], jobs["transfer"]) == (1, 1, 1, 2)
    # Of alder what was cut at the old time and is at the new one; of the others what was cut.
    assert (jobs["ingest"], jobs["windows"]) == (4, 4)


def test_snakemakes_own_report_can_be_made(run):
    run.ok("--report", "report.html")
    report = (run.folder / "report.html").read_text()
    assert "forest.svg" in report
    assert "Macro F1 of every detector, realistic beside oracle" in report


def test_transfer_probes_and_robustness_are_made_for_what_is_trained_and_stand_in_the_report(run):
    run.settings(transfer={"run": True}, probes=True, robustness={"run": True, "episodes": 6})
    jobs = run.jobs()
    assert jobs == {
        **dict.fromkeys(("probes", "perturb", "repredict", "robustness"), 1),
        **dict.fromkeys(("known", "manifest", "transferred", "report", "page"), 1),
        "transfer": 4,
    }
    run.ok()
    assert len(pl.read_parquet(run.results / "probes/host/probes.parquet"))
    assert len(pl.read_parquet(run.results / "robustness/host/robustness.parquet"))
    transfer = pl.read_parquet(run.results / "transfer/host/transfer.parquet")
    assert set(transfer["part"]) == {"in_host", "cross_host"}
    page = (run.results / "report/index.html").read_text()
    assert "Robustness of split host" in page
    assert "cross-host - in-host" in page
    assert run.jobs() == {}


def test_a_job_that_uses_a_gpu_gets_a_card_of_its_own_before_torch_looks_for_one(run):
    card = "GPU-5c9a2f8e-0000-4000-8000-000000000001"
    smi = run.folder / "bin/nvidia-smi"
    smi.parent.mkdir()
    smi.write_text(f"#!/bin/sh\necho 'GPU 0: Some card (UUID: {card})'\n")
    smi.chmod(0o755)
    run.settings(training={"epochs": 2, "device": "cuda"})
    target = "results/predictions/host/{}_realistic.parquet"
    done = subprocess.run(
        run.command("--force", target.format("mlp"), target.format("gbt"), "--keep-going"),
        cwd=run.folder,
        capture_output=True,
        env={k: v for k, v in os.environ.items() if k != "CUDA_VISIBLE_DEVICES"}
        | {"HOME": str(run.home), "PATH": f"{smi.parent}:{os.environ['PATH']}"},
        timeout=300,
    )
    logs = run.results / "logs/predict/host"
    assert f"computes on {card}" in (logs / "mlp_realistic.log").read_text()
    assert "computes on" not in (logs / "gbt_realistic.log").read_text()
    if done.returncode:  # where there is no such card
        assert "finds no CUDA device" in (logs / "mlp_realistic.log").read_text()
