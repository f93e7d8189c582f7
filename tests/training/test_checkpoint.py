import hashlib
import json

import numpy as np
import pytest
import safetensors.numpy

from cis490 import files
from cis490.errors import FormatError, SchemaMismatch
from cis490.models import ARCHITECTURES, FitSettings, create, get_class
from cis490.schema import Schema
from cis490.training.checkpoint import KIND, VERSION, load_model, read_description, save_model
from tests.models.problems import make_problem
from tests.training.world import SCHEMA

OTHER = Schema(hz=2, max_gap_s=1.0, length_s=10.0, stride_s=5.0)


def save(folder, name="mlp"):
    """A trained model of any array at all, saved."""
    problem = make_problem(n=40)
    model = create(name, 3, seed=7, settings=FitSettings(epochs=1)).fit(problem.X, problem.y)
    description = {
        "status": "ok",
        "reason": None,
        "architecture": name,
        "mode": "realistic",
        "schema_sha256": SCHEMA.sha256,
        "fit_sha256": "f",
        "n_windows": {"train": 40, "val": 0},
        "best_seed": 7,
        "settings": {"threads": 1},
        "seeds": [
            {"seed": 7, "status": "ok"},
            {"seed": 8, "status": "failed", "reason": "bad luck"},
        ],
    }
    save_model(folder, description, {7: model}, [])
    return model, problem.X_val


def edit(folder, **changes):
    """Change model.json as somebody would who knows that it holds its own hash."""
    content = files.read_json(folder / "model.json") | changes
    del content["sha256"]
    own = hashlib.sha256(files.to_json(content).encode()).hexdigest()
    files.write_json(folder / "model.json", content | {"sha256": own})


@pytest.mark.parametrize(
    "changes", [{"phases": ["a"]}, {"mode": "oracle"}, {"seeds": []}, {"more": 1}]
)
def test_a_description_that_was_changed_is_refused(tmp_path, changes):
    save(tmp_path, "mlp")
    content = files.read_json(tmp_path / "model.json")
    files.write_json(tmp_path / "model.json", content | changes)
    with pytest.raises(FormatError, match="was changed after it was written"):
        load_model(tmp_path, SCHEMA)


@pytest.mark.parametrize("name", ["model.json", "weights.safetensors"])
def test_a_file_that_is_missing_is_named(tmp_path, name):
    save(tmp_path, "mlp")
    (tmp_path / name).unlink()
    with pytest.raises(FormatError, match=name):
        load_model(tmp_path, SCHEMA)


def test_weights_of_another_architecture_are_refused(tmp_path):
    save(tmp_path, "mlp")
    edit(tmp_path, architecture="gru")
    with pytest.raises(FormatError):
        load_model(tmp_path, SCHEMA)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_a_loaded_model_predicts_and_embeds_the_same(tmp_path, name):
    model, X = save(tmp_path, name)
    loaded = load_model(tmp_path, SCHEMA)
    assert list(loaded) == [7]
    assert np.array_equal(loaded[7].predict_proba(X), model.predict_proba(X))
    assert np.array_equal(loaded[7].embed(X), model.embed(X))


def test_the_weights_are_plain_arrays_that_anybody_can_read(tmp_path):
    save(tmp_path, "gbt")
    arrays = safetensors.numpy.load_file(tmp_path / "weights.safetensors")
    assert arrays["7/booster"].dtype == np.uint8
    assert all(name.startswith("7/") for name in arrays)


def test_another_schema_is_refused_with_both_hashes_and_what_to_do(tmp_path):
    save(tmp_path)
    with pytest.raises(SchemaMismatch) as caught:
        load_model(tmp_path, OTHER)
    for part in (SCHEMA.sha256, OTHER.sha256, "run the workflow again"):
        assert part in str(caught.value)


@pytest.mark.parametrize("name", ["gbt", "cnn"])
@pytest.mark.parametrize(
    "damage", [lambda b: b[:-1], lambda b: b[:-9] + b"\x01" + b[-8:], lambda _: b""]
)
def test_tampered_weights_are_refused(tmp_path, name, damage):
    save(tmp_path, name)
    weights = tmp_path / "weights.safetensors"
    weights.write_bytes(damage(weights.read_bytes()))
    with pytest.raises(FormatError, match=r"weights\.safetensors is not the file .* train again"):
        load_model(tmp_path, SCHEMA)


@pytest.mark.parametrize("name", ["gbt", "cnn"])
def test_weights_that_do_not_fit_the_description_are_refused(tmp_path, name):
    save(tmp_path, name)
    other = tmp_path / "other"
    save(other, "gru" if name == "gbt" else "lstm")
    weights = (other / "weights.safetensors").read_bytes()
    (tmp_path / "weights.safetensors").write_bytes(weights)
    edit(tmp_path, weights_sha256=files.read_json(other / "model.json")["weights_sha256"])
    with pytest.raises(FormatError):
        load_model(tmp_path, SCHEMA)


def test_a_booster_that_is_none_is_refused(tmp_path):
    import hashlib

    save(tmp_path, "gbt")
    weights = tmp_path / "weights.safetensors"
    arrays = safetensors.numpy.load(weights.read_bytes())
    arrays["7/booster"] = np.zeros(64, np.uint8)
    weights.write_bytes(safetensors.numpy.save(arrays))
    edit(tmp_path, weights_sha256=hashlib.sha256(weights.read_bytes()).hexdigest())
    with pytest.raises(FormatError, match="XGBoost"):
        load_model(tmp_path, SCHEMA)


@pytest.mark.parametrize("change", [{"version": 99}, {"kind": "something.else"}])
def test_an_unknown_kind_or_version_says_what_to_do(tmp_path, change):
    save(tmp_path)
    edit(tmp_path, **change)
    with pytest.raises(FormatError, match=f"reads {KIND}, version {VERSION}.*train again"):
        read_description(tmp_path / "model.json")


@pytest.mark.parametrize("text", ["", "{", "[]", '"model"', "\xff"])
def test_a_damaged_description_is_refused(tmp_path, text):
    (tmp_path / "model.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(FormatError, match="train again"):
        load_model(tmp_path, SCHEMA)


def test_the_description_alone_tells_how_to_rebuild_the_model(tmp_path):
    save(tmp_path, "cnn")
    content = json.loads((tmp_path / "model.json").read_text())
    assert content["seeds"][0]["model"] == {
        "n_classes": 3,
        "input_shape": [7, 33],
        "options": dict(get_class("cnn").presets["small"]),
    }
    assert content["seeds"][1] == {
        "seed": 8,
        "status": "failed",
        "reason": "bad luck",
        "model": None,
    }
