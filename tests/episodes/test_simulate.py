import json

import pytest

from cis490 import cli
from cis490.config import resolve
from cis490.episodes.plan import read_store
from cis490.episodes.recipe import Recipe
from cis490.episodes.simulate import simulate
from cis490.episodes.store import read_index
from cis490.episodes.tarball import Limits
from cis490.episodes.validate import Entry, examine
from cis490.errors import ConfigError, StoreError
from tests.builders import Store, small_fleet


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return small_fleet(tmp_path_factory.mktemp("source") / "store", n=2).folder


def make(out, n, recipe=Recipe(), **options):  # noqa: B008
    return list(simulate(out, n, recipe, **options))


def content(store):
    return {str(p.relative_to(store)): p.read_bytes() for p in store.rglob("*") if p.is_file()}


def verdicts(store):
    config = resolve({"store": str(store)})
    entries = [Entry.from_manifest(e) for m in read_store(config)[0] for e in m["episodes"]]
    return [examine(entry, store, Limits()) for entry in entries]


def test_the_same_recipe_gives_the_same_bytes_whatever_the_number_of_processes(source, tmp_path):
    make(tmp_path / "a", 230, Recipe(seed=3), source=source, workers=1)
    make(tmp_path / "b", 230, Recipe(seed=3), source=source, workers=2)
    make(tmp_path / "c", 230, Recipe(seed=4), source=source)
    assert content(tmp_path / "a") == content(tmp_path / "b")
    assert (
        content(tmp_path / "a")
        .keys()
        .isdisjoint(content(tmp_path / "c").keys() - {"index.jsonl", "simulation.json"})
    )


def test_appending_gives_the_store_that_would_have_been_larger_from_the_start(source, tmp_path):
    recipe = Recipe(seed=5, errored=0.1, torn=0.05)
    make(tmp_path / "grown", 40, recipe, source=source)
    make(tmp_path / "grown", 25, source=source, append=True)
    make(tmp_path / "whole", 65, recipe, source=source)
    assert content(tmp_path / "grown") == content(tmp_path / "whole")


def test_clones_are_whole_episodes_of_their_own_time_and_say_that_they_are_simulated(
    source, tmp_path
):
    clean = Recipe(degraded=0, rejected=0, errored=0, torn=0, hosts=4)
    make(tmp_path / "s", 45, clean, source=source)
    found = verdicts(tmp_path / "s")
    assert {verdict.status for verdict, _ in found} == {"accepted", "degraded"}
    assert {verdict.host_id for verdict, _ in found} == {"alder", "birch", "dogwood", "alder-2"}
    for verdict, episode in found:
        assert json.loads(episode.header["meta"])["recorder"] == "simulated"
        for table in episode.tables.values():
            seconds = (table.t_wall_ns - verdict.started_wall_ns) / 1e9
            assert ((seconds >= -1) & (seconds <= 30)).all()
    starts = {verdict.started_wall_ns // 10**12 for verdict, _ in found}
    assert len(starts) > 4


def test_shares_are_about_what_was_asked_for(source, tmp_path):
    recipe = Recipe(seed=1, degraded=0.2, rejected=0.2, errored=0.2, torn=0.1)
    make(tmp_path / "s", 300, recipe, source=source)
    found = [verdict.status for verdict, _ in verdicts(tmp_path / "s")]
    assert 0.12 < found.count("rejected") / len(found) < 0.28
    assert 0.12 < found.count("errored") / len(found) < 0.28
    index = read_index(tmp_path / "s")
    assert any(torn.n_recovered for torn in index.torn)
    assert any(not torn.n_recovered for torn in index.torn)


def test_a_store_that_is_there_is_never_touched(source, tmp_path):
    store = Store(tmp_path / "real")
    store.add()
    before = content(store.folder)
    with pytest.raises(StoreError, match="holds a store already"):
        make(store.folder, 3, source=source)
    with pytest.raises(StoreError, match="only a simulated store can be appended to"):
        make(store.folder, 3, source=source, append=True)
    assert content(store.folder) == before


@pytest.mark.parametrize("wrong", [{"torn": 1.5}, {"degraded": 0.8, "errored": 0.3}, {"hosts": 0}])
def test_impossible_recipes_are_refused(wrong):
    with pytest.raises(ConfigError, match="simulate"):
        Recipe(**wrong)


def test_the_command_makes_and_grows_a_store(source, tmp_path, capsys):
    out = str(tmp_path / "s")
    cli.main(["simulate", out, "--episodes", "20", "--seed", "2", "--source", str(source)])
    cli.main(["simulate", out, "--append", "5", "--source", str(source)])
    assert "5 episodes added to" in capsys.readouterr().out
    assert len(read_index(tmp_path / "s").records) >= 20
