from datetime import date, datetime

import pytest

from cis490.config import as_of_ns, read_yaml, resolve, splits
from cis490.errors import ConfigError
from tests.conftest import ROOT


def test_config_yaml_shows_every_setting_with_its_default():
    shown = resolve({}, default_file=ROOT / "config.yaml")
    filled = resolve({})
    assert filled["store"] == "data/sample/store"
    assert shown == filled | {"store": str(ROOT / "data/sample/store")}
    # Nothing that the schema knows is missing from the file itself.
    assert read_yaml(ROOT / "config.yaml") == filled


def test_paths_are_relative_to_the_file_that_names_them(tmp_path):
    default = tmp_path / "clone/config.yaml"
    default.parent.mkdir()
    default.write_text("store: sample\nstore_pin: pin\n")
    config = resolve({"store": "mine"}, default_file=default, working_directory=tmp_path / "work")
    assert config["store"] == str(tmp_path / "work/mine")
    assert config["store_pin"] == str(tmp_path / "clone/pin")
    assert resolve({"store": "/data/store"}, default_file=default)["store"] == "/data/store"


def test_mappings_are_merged_and_lists_replaced():
    config = resolve({"training": {"epochs": 3}, "models": ["gbt"]})
    assert (config["training"]["epochs"], config["training"]["patience"]) == (3, 8)
    assert config["models"] == ["gbt"]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"stroe": 1}, "unknown key stroe; did you mean store"),
        ({"split": {"test_host": ["a"]}}, "unknown key split.test_host; did you mean test_hosts"),
        ({"training": {"epochs": "many"}}, "training.epochs: 'many' is not of type 'integer'"),
        ({"training": {"device": "gpu"}}, "training.device"),
        ({"split": {"train_hosts": "alder"}}, "split.train_hosts"),
        ({"split": {"train_hosts": ["../x"]}}, "split.train_hosts.0"),
        ({"split": {"train_hosts": []}}, "split.train_hosts"),
        ({"split": {"test_hosts": ["alder"]}}, "split.test_hosts: alder is also in train_hosts"),
        ({"extra_splits": [{"recipe": "time"}]}, "extra_splits.0: 'name' is a required property"),
        ({"extra_splits": [{"name": "host"}]}, "extra_splits.0.name: host is taken"),
        (
            {"extra_splits": [{"name": "x", "test_hosts": ["dogwood"]}]},
            "extra_splits.0.test_hosts: dogwood is also in train_hosts",
        ),
        ({"window": {"length_s": 0.25}}, "window.length_s: 0.25 s is 2.5 steps"),
        ({"window": {"length_s": 0.2}}, "window.length_s: a window needs at least 3"),
        ({"grid": {"hz": 0}}, "grid.hz"),
        ({"seeds": []}, "seeds"),
        ({"models": ["resnet"]}, "models.0"),
        ({"models": ["minirocket"]}, "models.0"),
        ({"baselines": ["gbt"]}, "baselines.0"),
        (
            {"training": {"source_dropout": {"disk": 0.1}}},
            "unknown key training.source_dropout.disk",
        ),
        ({"window": None}, "window"),
        ({1: 2}, "unknown key 1"),
        ({"training": {"learning_rate": float("nan")}}, "training.learning_rate: nan is no number"),
        ({"training": {"weight_decay": "inf"}}, "training.weight_decay: inf is no number"),
    ],
)
def test_a_wrong_setting_is_one_line_that_names_its_key(settings, message):
    with pytest.raises(ConfigError) as caught:
        resolve(settings)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_numbers_that_snakemake_hands_on_as_text_are_read():
    config = resolve(
        {
            "training": {"epochs": "3", "learning_rate": "1e-3", "source_dropout": {"qmp": "0.5"}},
            "grid": {"max_gap_s": "null"},
            "split": {"val_fraction": "0.3", "recipe": "time"},
            "extra_splits": [{"name": "2", "test_fraction": "0.1"}],
            "seeds": ["42", "7"],
        }
    )
    assert config["training"]["epochs"] == 3
    assert config["training"]["learning_rate"] == 0.001
    assert config["training"]["source_dropout"]["qmp"] == 0.5
    assert config["grid"]["max_gap_s"] is None
    assert config["split"]["val_fraction"] == 0.3
    assert (config["extra_splits"][0]["name"], config["seeds"]) == ("2", [42, 7])
    assert config["extra_splits"][0]["test_fraction"] == 0.1


def test_a_config_file_that_is_none_is_named(tmp_path):
    for content in ("- a\n- b\n", "a: [1\n"):
        (tmp_path / "c.yaml").write_text(content)
        with pytest.raises(ConfigError, match=r"c\.yaml"):
            read_yaml(tmp_path / "c.yaml")
    with pytest.raises(ConfigError, match="cannot read"):
        read_yaml(tmp_path / "missing.yaml")


def test_an_extra_split_takes_what_it_leaves_out_from_the_primary_one():
    config = resolve(
        {
            "split": {"val_fraction": 0.25, "train_hosts": ["a", "b"], "test_hosts": ["c"]},
            "extra_splits": [
                {"name": "back", "train_hosts": ["c"], "test_hosts": ["a"]},
                {"name": "later", "recipe": "time"},
            ],
        }
    )
    primary, back, later = splits(config)
    assert primary["name"] == "host"
    assert (back["recipe"], back["val_fraction"], back["train_hosts"]) == ("host", 0.25, ["c"])
    assert (later["recipe"], later["name"]) == ("time", "later")


def test_what_is_one_for_all_architectures_cannot_be_set_for_one():
    with pytest.raises(ConfigError, match=r"architectures\.cnn\.threads .*: set training\.threads"):
        resolve({"architectures": {"cnn": {"threads": 2}}})
    resolve({"architectures": {"cnn": {"epochs": 2, "depth": 4}}})


def test_auto_or_a_number_and_nothing_else():
    def rate(value):
        return resolve({"training": {"learning_rate": value}})["training"]["learning_rate"]

    assert (rate("auto"), rate(0.5), rate("1e-3")) == ("auto", 0.5, 0.001)
    with pytest.raises(ConfigError, match=r"training\.learning_rate: .*'auto' was expected"):
        rate("fast")
    for wrong in (0, -1, None):
        with pytest.raises(ConfigError, match=r"training\.learning_rate: "):
            rate(wrong)


def test_options_that_snakemake_hands_on_as_text_are_read():
    own = {"cnn": {"depth": "4", "learning_rate": "auto", "epochs": "5"}}
    assert resolve({"architectures": own})["architectures"]["cnn"] == {
        "depth": 4,
        "learning_rate": "auto",
        "epochs": 5,
    }


def as_of(value, **extra):
    config = resolve({"split": {"as_of": value}} | extra)
    return [split["as_of"] for split in splits(config)]


def test_as_of_is_the_same_moment_however_it_is_written(tmp_path):
    (tmp_path / "c.yaml").write_text(
        "split: {as_of: 2026-11-01T07:00:00+01:00}\n"
        "extra_splits:\n"
        "  [{name: b, as_of: 2026-11-01T06:00:00Z}, {name: c, as_of: null}, {name: d}]\n"
    )
    config = resolve(read_yaml(tmp_path / "c.yaml"))
    utc = "2026-11-01T06:00:00Z"
    assert [split["as_of"] for split in splits(config)] == [utc, utc, None, utc]
    assert as_of("2026-11-01T07:00+01:00") == [utc]
    assert as_of("null") == as_of(None) == [None]
    ns = as_of_ns({"as_of": "1970-01-02T00:00:00.000001Z"})
    assert ns == 86_400_000_001_000
    assert as_of_ns({"as_of": None}) is None


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("2026-11-01T06:00:00", "2026-11-01T06:00:00 names no time zone: write it such as 2026-"),
        (date(2026, 11, 1), "2026-11-01 names no time zone"),
        (datetime(2026, 11, 1, 6), "2026-11-01T06:00:00 names no time zone"),
        ("yesterday", "'yesterday' is no time in ISO 8601"),
        ("", "'' is no time in ISO 8601"),
        ("0001-01-01T00:00:00+14:00", "is no time in ISO 8601"),
        (2026, "2026 is not of type 'string', 'null'"),
    ],
)
def test_an_as_of_that_is_no_moment_is_named_with_its_key(value, message):
    with pytest.raises(ConfigError) as caught:
        as_of(value)
    assert "split.as_of" in str(caught.value)
    assert message in str(caught.value)
    with pytest.raises(ConfigError, match=r"extra_splits\.0\.as_of"):
        as_of(None, extra_splits=[{"name": "x", "as_of": value}])


def test_a_key_that_stands_twice_is_refused_with_its_line(tmp_path):
    file = tmp_path / "c.yaml"
    for text, says in (
        ("seeds: [1]\nmodels: [gbt]\nseeds: [2]\n", "'seeds' stands twice, again in line 3"),
        ("split:\n  recipe: host\n  recipe: time\n", "'recipe' stands twice, again in line 3"),
    ):
        file.write_text(text)
        with pytest.raises(ConfigError, match=says):
            read_yaml(file)
    file.write_text("a: &a {x: 1, y: 2}\nb: &b {<<: *a, x: 3}\nc: {<<: *b, x: 4}\n")
    assert read_yaml(file)["c"] == {"x": 4, "y": 2}  # a merge is no second time
    file.write_bytes(b"store: \xff\n")
    with pytest.raises(ConfigError, match="is not text in UTF-8"):
        read_yaml(file)
