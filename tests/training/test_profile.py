"""`profile: true`: a trace of some steps, and what share of them is input."""

import json
import time
from dataclasses import replace

import pytest

from cis490 import files
from cis490.models import FitSettings, create
from cis490.training import batches
from cis490.training.profile import RECORDED, SKIPPED
from cis490.training.run import Run
from tests.models.problems import make_problem

SETTINGS = FitSettings(epochs=4, batch_size=16, learning_rate=0.003)  # eight steps an epoch


def trained(folder, settings=SETTINGS):
    problem = make_problem()
    model = create("mlp", 3, settings=settings)
    prepared = model.prepare(problem.X, problem.y)
    return model.fit_prepared(prepared, Run(profile=folder))


def test_some_steps_are_traced_and_their_input_is_named(tmp_path):
    trained(tmp_path)
    events = json.loads((tmp_path / "trace.json").read_text())["traceEvents"]
    names = [event.get("name") for event in events]
    assert names.count("input") >= RECORDED
    told = files.read_json(tmp_path / "profile.json")
    assert told["n_steps"] == RECORDED
    assert 0 < told["input_share"] < 1
    assert told["step_ms"] > 0


def test_a_slow_input_shows_in_its_share(tmp_path, monkeypatch):
    trained(tmp_path / "quick")

    encoded = batches._encoded

    def slow(x):
        time.sleep(0.2)
        return encoded(x)

    monkeypatch.setattr(batches, "_encoded", slow)
    trained(tmp_path / "slow")
    quick, slowed = (files.read_json(tmp_path / f"{n}/profile.json") for n in ("quick", "slow"))
    assert slowed["input_share"] > max(0.7, quick["input_share"])


def test_a_profiled_training_is_the_same_training(tmp_path):
    plain, profiled = trained(None), trained(tmp_path)
    assert plain.history == profiled.history


def test_a_training_too_short_for_a_trace_is_not_in_its_way(tmp_path):
    assert SKIPPED > 2
    trained(tmp_path, replace(SETTINGS, epochs=1, batch_size=120))
    assert not (tmp_path / "trace.json").exists()


@pytest.mark.parametrize("name", ["gbt", "minirocket"])
def test_what_is_no_network_has_no_trace(tmp_path, name):
    problem = make_problem()
    model = create(name, 3, settings=SETTINGS)
    model.fit_prepared(model.prepare(problem.X, problem.y), Run(profile=tmp_path))
    assert list(tmp_path.iterdir()) == []
