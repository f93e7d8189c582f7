"""The search of settings: on val alone, the same on any number of cores, and hard to fool."""

import numpy as np
import polars as pl
import pytest

from cis490 import files
from cis490.config import resolve
from cis490.errors import FormatError
from cis490.models import ARCHITECTURES, get_class
from cis490.models.base import FitSettings
from cis490.training import search
from cis490.training.settings import SETTINGS, settings_of
from cis490.training.spaces import SPACES, Times, space_of
from cis490.training.trial import Source
from cis490.training.tuned import advice, read_tuning
from tests.training.world import SCHEMA, World

optuna = pytest.importorskip("optuna")

TINY = {"rounds": (8,), "max_depth": (1, 2, 4), "eta": (0.1, 0.5), "subsample": (0.5, 0.8)}
EASY = {"epochs": 4, "batch_size": 16}


def tuned(world, architecture="gbt", *, space=TINY, trials=16, workers=1, own=None, training=EASY):
    """Search `space` and return what was written; the default is in force where it says nothing."""
    source = Source(
        architecture,
        "realistic",
        schema_file=world.root / "schema.json",
        fit_file=world.root / "fit.parquet",
        features=world.features,
        tensors=world.tensors,
        rates=world.root / "rates",
        rate_hours=1.0,
        code="code",
    )
    config = resolve(
        {
            "training": training,
            "tuning": {"trials": trials},
            "architectures": {architecture: own or {}},
        }
    )
    out = world.root / f"tuning/{architecture}_realistic.json"
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(SPACES, architecture, space)
        search.tune(source, config=config, out=out, workers=workers)
    return out


@pytest.fixture(scope="module")
def searched(tmp_path_factory):
    """A search of gbt in one process."""
    return tuned(World(tmp_path_factory.mktemp("searched")))


def test_two_workers_and_a_world_with_other_test_windows_find_the_same_bytes(searched, tmp_path):
    other = World(tmp_path, test_shift=1000.0)
    assert tuned(other, workers=2).read_bytes() == searched.read_bytes()


def test_the_file_says_what_was_tried_on_what_and_how(searched):
    content = files.read_json(searched)
    assert (content["architecture"], content["mode"]) == ("gbt", "realistic")
    assert content["schema_sha256"] == SCHEMA.sha256
    assert content["n_windows"] == {"train": 55, "val": 22}
    assert content["n_episodes"] == {"train": 5, "val": 2}
    assert content["n_trials"] == len(content["trials"]) == 16
    assert [trial["number"] for trial in content["trials"]] == list(range(16))
    assert (content["sampler"]["name"], content["pruner"]["name"]) == ("TPESampler", "MedianPruner")
    for trial in content["trials"]:
        assert all(trial["parameters"][name] in content["space"][name] for name in TINY)
    assert not {"seconds", "time", "wall_s"} & set(searched.read_text().split('"'))


def test_the_default_is_the_first_trial(searched):
    first = files.read_json(searched)["trials"][0]
    default = get_class("gbt").presets["small"]
    assert first["parameters"] == {name: default[name] for name in TINY}


def test_the_same_settings_are_tried_once(searched):
    trials = files.read_json(searched)["trials"]
    first = {}
    for trial in trials:
        earlier = first.setdefault(tuple(trial["parameters"].values()), trial["number"])
        assert trial["same_as"] == (None if earlier == trial["number"] else earlier)
    assert len(first) < len(trials)


def test_the_best_are_confirmed_with_seeds_that_no_model_is_trained_with(searched):
    content = files.read_json(searched)
    seeds = [content["seed"], *content["confirming_seeds"]]
    assert len(set(seeds)) == 4
    assert not set(seeds) & set(resolve({})["seeds"])
    done = [t for t in content["trials"][1:] if t["state"] == "complete" and t["same_as"] is None]
    best = sorted(done, key=lambda trial: -trial["val_macro_f1"])[:3]
    assert [row["trial"] for row in content["confirmed"]] == [0, *(t["number"] for t in best)]
    for row in content["confirmed"]:
        assert [each["seed"] for each in row["seeds"]] == content["confirming_seeds"]


@pytest.fixture(scope="module")
def troubled(tmp_path_factory):
    """What a search wrote of networks that are too large, learn nothing, or explode."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(search, "PRUNER", {"n_startup_trials": 1, "n_min_trials": 1})
        out = tuned(
            World(tmp_path_factory.mktemp("troubled")),
            "mlp",
            space={
                "learning_rate": (0.01, 1e-7, 1e30),
                "width": Times((1, 40)),
                "head_dropout": (0.1, 0.3, 0.5),
                "weight_decay": (0.1,),
            },
            trials=14,
            training={**EASY, "epochs": 8, "learning_rate": 0.01},
            own={"weight_decay": 0.02},
        )
    return files.read_json(out)


def test_what_the_user_sets_wins_and_is_not_searched(troubled):
    assert "weight_decay" not in troubled["space"]
    assert not any("weight_decay" in trial["parameters"] for trial in troubled["trials"])
    assert troubled["set_by_user"] == {"weight_decay": 0.02}
    config = resolve({"architectures": {"gbt": {"max_depth": 3}}})
    _, made = settings_of(config, "gbt", {"max_depth": 5, "eta": 0.5})
    assert made["options"] == {"max_depth": 3, "eta": 0.5}


def test_a_trial_that_fails_is_recorded_and_ends_nothing(troubled):
    small = [trial for trial in troubled["trials"] if trial["parameters"]["width"] < 1000]
    exploding = [trial for trial in small if trial["parameters"]["learning_rate"] == 1e30]
    assert exploding
    for trial in exploding:
        assert (trial["state"], trial["val_macro_f1"]) == ("failed", None)
        assert trial["reason"]
    assert exploding[0]["number"] < troubled["n_trials"] - 1 == 13


def test_a_trial_that_lags_is_pruned_and_says_at_which_epoch(troubled):
    small = [trial for trial in troubled["trials"] if trial["parameters"]["width"] < 1000]
    lagging = [trial for trial in small if trial["parameters"]["learning_rate"] == 1e-7]
    assert "pruned" in {trial["state"] for trial in lagging}
    for trial in small:
        if trial["state"] == "pruned":
            assert 3 <= trial["epochs"] < 8  # a quarter of the epochs is left to catch up
            assert f"at epoch {trial['epochs']}" in trial["reason"]
            assert trial["val_macro_f1"] is None


def test_a_network_that_is_too_large_is_not_tried(troubled):
    large = [trial for trial in troubled["trials"] if trial["parameters"]["width"] > 1000]
    assert large
    for trial in large:
        assert (trial["state"], trial["epochs"]) == ("pruned", 0)
        assert "at most 150,000 are tried" in trial["reason"]


def test_a_size_that_the_user_sets_is_tried_whatever_it_is(world):
    own = {"width": 1000}
    content = files.read_json(
        tuned(world, "mlp", space={"depth": (1, 2, 3)}, trials=1, own=own, training=EASY)
    )
    assert [trial["state"] for trial in content["trials"]] == ["complete"]


def test_without_val_nothing_is_tried_and_the_default_stays(world):
    fit = pl.read_parquet(world.root / "fit.parquet").filter(part="train")
    files.write_parquet(world.root / "fit.parquet", fit)
    content = files.read_json(tuned(world))
    assert (content["n_trials"], content["chosen"]["parameters"]) == (0, {})
    assert "nothing to try" in content["chosen"]["reason"]


def counts(right, *, windows=20):
    """(n_seeds, n_episodes, K, K) of two phases, `right` windows of each predicted right."""
    table = np.zeros((*np.shape(right), search.K, search.K), np.int64)
    for phase in (0, 1):
        table[..., phase, phase] = right
        table[..., phase, 1 - phase] = windows - np.asarray(right)
    return table


def test_the_difference_is_of_means_over_seeds_and_its_error_of_episodes_and_seeds():
    ours, theirs = counts([[18, 12, 15], [18, 12, 15]]), counts([[10, 10, 10], [10, 10, 10]])
    gained, error = search.difference(ours, theirs)
    assert gained == pytest.approx(15 / 20 - 10 / 20)
    # Shares of equal episodes are means, so the jackknife is the error of a mean; no seed differs.
    assert error == pytest.approx(np.std([0.9, 0.6, 0.75], ddof=1) / np.sqrt(3))
    ours = counts([[18, 18], [12, 12]])
    assert search.difference(ours, counts([[10, 10]] * 2))[1] == pytest.approx(
        np.std([0.9, 0.6], ddof=1) / np.sqrt(2)
    )
    assert search.difference(counts([[18], [12]]), counts([[10], [10]]))[1] is None


TRIALS = [{"number": i, "parameters": {"eta": eta, "rounds": 9}} for i, eta in enumerate((1, 2, 3))]


def compared(*rows):
    names = ("trial", "mean", "difference", "standard_error")
    return [dict(zip(names, row, strict=True)) for row in rows]


@pytest.mark.parametrize(
    ("rows", "trial", "reason"),
    [
        ([(0, 0.7, None, None), (2, 0.8, 0.1, 0.039), (1, 0.75, 0.05, 0.001)], 2, "+0.100"),
        ([(0, 0.7, None, None), (2, 0.8, 0.1, 0.041)], 0, "the default stays"),
        ([(0, 0.7, None, None), (2, 0.6, -0.1, 0.001)], 0, "the default stays"),
        ([(0, 0.7, None, None), (2, 0.8, 0.1, None)], 0, "standard error unknown"),
        ([(0, 0.7, None, None), (2, None, None, None)], 0, "no other trial came to its end"),
        ([(0, None, None, None), (2, 0.1, None, None)], 2, "the default failed"),
        ([], 0, "no other trial came to its end"),
    ],
)
def test_the_default_stays_unless_another_is_better_by_more_than_the_noise(rows, trial, reason):
    chosen = search._choose(TRIALS, compared(*rows))
    assert chosen["trial"] == trial
    assert chosen["parameters"] == ({"eta": trial + 1} if trial else {})
    assert reason in chosen["reason"]


def simulated(rng, gain):
    """The tables of a search of 24 settings on 15 episodes; of those gained, 3 truly are better.

    Whether a window is told right hangs on itself, on its episode, on how a setting takes both,
    and on the seed; the shares give standard errors and seeds like the sample store's.
    """
    n_windows, phases = 11, search.K
    truth = np.sort(rng.integers(0, phases, (15, n_windows)), axis=1)
    hard = rng.normal(size=truth.shape) + rng.normal(0, 0.5, (15, 1))
    own = rng.normal(0, 0.2, (24, 15, 1)) + rng.normal(0, 0.3, (24, *truth.shape))
    skill = np.where(np.isin(np.arange(24), (1, 2, 3)), 0.9 + 2.5 * gain, 0.9)

    def run(setting):
        luck = rng.normal(0, 0.3, truth.shape)
        right = hard + own[setting] + luck < skill[setting]
        predicted = (truth + np.where(right, 0, rng.choice([1, phases - 1], truth.shape))) % phases
        episode = np.repeat(np.arange(15), n_windows)
        return search.confusion(truth.ravel(), predicted.ravel(), episode, 15)

    first = [search._f1(run(setting).sum(0)) for setting in range(24)]
    best = sorted(range(1, 24), key=lambda setting: -first[setting])[: search.CONFIRMED]
    again = {setting: np.stack([run(setting) for _ in range(3)]) for setting in (0, *best)}
    rows = [(0, search._f1(again[0].sum(1)).mean(), None, None)]
    for setting in best:
        figures = search.difference(again[setting], again[0])
        rows.append((setting, search._f1(again[setting].sum(1)).mean(), *figures))
    return compared(*rows)


@pytest.mark.parametrize(("gain", "least", "most"), [(0.0, 0, 10), (0.2, 90, 100)])
def test_of_equal_settings_the_default_stays_and_a_large_gain_is_found(gain, least, most):
    rng = np.random.default_rng(0)
    trials = [{"number": i, "parameters": {"eta": i}} for i in range(24)]
    chosen = [search._choose(trials, simulated(rng, gain))["trial"] for _ in range(100)]
    assert least <= np.count_nonzero(chosen) <= most


@pytest.mark.parametrize("name", SPACES)
@pytest.mark.parametrize("preset", ["small", "large"])
def test_every_setting_of_a_space_exists_and_every_value_is_taken(name, preset):
    kind = get_class(name)
    config = resolve({"training": {"preset": preset}})
    settings, _ = settings_of(config, name)
    default = {**vars(settings), **kind.presets[preset]}
    for setting, values in space_of(name, default, ()).items():
        assert setting in SETTINGS | kind.presets[preset].keys()
        assert values[0] == default[setting]
        assert len(values) > 1, "there is nothing to search"
        for value in values:
            changed = resolve({"architectures": {name: {setting: value}}})
            settings, made = settings_of(changed, name)
            kind(5, settings=settings, **made)


def test_every_architecture_has_a_space():
    assert list(SPACES) == list(ARCHITECTURES)


def test_a_training_takes_what_a_search_chose(world, searched):
    content = files.read_json(searched)
    content["chosen"] |= {"parameters": {"max_depth": 2}, "trial": 1}
    files.write_json(world.root / "tuning.json", content)
    model = files.read_json(world.train("gbt", tuning=world.root / "tuning.json") / "model.json")
    assert model["seeds"][0]["model"]["options"]["max_depth"] == 2
    assert (model["tuning"]["n_trials"], model["tuning"]["parameters"]) == (16, {"max_depth": 2})
    untuned = files.read_json(world.train("gbt") / "model.json")
    assert untuned["tuning"] is None
    assert untuned["seeds"][0]["model"]["options"]["max_depth"] == 4


def test_a_search_of_other_episodes_or_of_another_model_is_refused(searched):
    told = {"architecture": "gbt", "mode": "realistic"}
    fit = files.read_json(searched)["fit_sha256"]
    assert read_tuning(searched, **told, fit_sha256=fit)["n_trials"] == 16
    for change in ({"fit_sha256": "other"}, {"mode": "oracle"}, {"architecture": "mlp"}):
        with pytest.raises(FormatError, match="run `cis490 tune"):
            read_tuning(searched, **{**told, "fit_sha256": fit, **change})


def test_advice_is_yaml_that_the_settings_take_and_realistic_decides(tmp_path):
    searches = {"realistic": {"eta": 0.3, "max_depth": 2}, "oracle": {"eta": 0.03}}
    for mode, parameters in searches.items():
        content = {
            "architecture": "gbt",
            "mode": mode,
            "n_trials": 24,
            "n_windows": {"val": 22},
            "n_episodes": {"val": 2},
            "chosen": {"parameters": parameters, "reason": "why"},
        }
        files.write_json(tmp_path / f"gbt_{mode}.json", content)
    (tmp_path / "mine.yaml").write_text(advice(tmp_path))
    import yaml

    told = yaml.safe_load(advice(tmp_path))
    assert resolve(told)["architectures"]["gbt"] == searches["realistic"]
    assert "{eta: 0.03}" in advice(tmp_path)


def test_defaults_of_a_space_are_those_in_force():
    own = FitSettings(weight_decay=0.07)
    assert space_of("mlp", {**vars(own), **get_class("mlp").presets["large"]}, ())["width"] == [
        1024,
        512,
        1536,
    ]
