import json
import os

import polars as pl
import pytest

from cis490.config import resolve, splits
from cis490.episodes.plan import batches_of, plan, read_batches, training_settings
from cis490.errors import StoreError
from cis490.files import read_json
from tests.builders import Store


@pytest.fixture
def fleet(store: Store) -> Store:
    for host_id in ("alder", "birch"):
        for i in range(5):
            store.put(host_id, f"{host_id}{i}", b"content %d" % i)
    return store


def run(store, folder, **overrides):
    split = {"train_hosts": ["alder"], "test_hosts": ["birch"]}
    config = resolve(
        {"store": str(store.folder), "batch": {"episodes": 2}, "split": split} | overrides
    )
    return plan(config, folder)


def manifests(folder):
    return {path.stem: path.read_bytes() for path in sorted((folder / "batches").glob("*.json"))}


def changed(before, after):
    return {name for name in after if before.get(name) != after[name]}


def test_batches_are_of_one_host_and_in_order_of_first_appearance(fleet, tmp_path):
    assert run(fleet, tmp_path / "plan") == {
        **dict.fromkeys(["alder-00000", "alder-00001", "alder-00002"], "alder"),
        **dict.fromkeys(["birch-00000", "birch-00001", "birch-00002"], "birch"),
    }
    assert read_batches(tmp_path / "plan")["birch-00002"] == "birch"
    manifest = read_json(tmp_path / "plan/batches/alder-00001.json")
    assert [entry["episode_id"] for entry in manifest["episodes"]] == ["alder2", "alder3"]


def test_planning_again_touches_no_file(fleet, tmp_path):
    run(fleet, tmp_path / "plan")
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "plan").rglob("*.json")}
    run(fleet, tmp_path / "plan")
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "plan").rglob("*.json")} == before


def test_new_episodes_fill_the_open_batch_and_start_the_next(fleet, tmp_path):
    run(fleet, tmp_path / "plan")
    before = manifests(tmp_path / "plan")
    fleet.put("alder", "alder5", b"new")
    fleet.put("alder", "alder6", b"new")
    run(fleet, tmp_path / "plan")
    assert changed(before, manifests(tmp_path / "plan")) == {"alder-00002", "alder-00003"}


def test_a_batch_of_large_episodes_ends_before_its_packed_bytes_pass_the_limit(fleet, tmp_path):
    sizes = [400, 400, 300, 2000, 100, 900, 1]
    for i, size in enumerate(sizes):
        fleet.put("cedar", f"cedar{i}", bytes(size))
    run(fleet, tmp_path / "plan", batch={"episodes": 4, "packed_bytes": 1000})
    batches = [
        [entry["size_bytes"] for entry in json.loads(content)["episodes"]]
        for name, content in manifests(tmp_path / "plan").items()
        if name.startswith("cedar")
    ]
    assert batches == [[400, 400], [300], [2000], [100, 900], [1]]


def test_a_superseded_vanished_or_changed_episode_dirties_its_batch_alone(fleet, tmp_path):
    run(fleet, tmp_path / "plan")
    before = manifests(tmp_path / "plan")
    fleet.put("alder", "alder0", b"again")
    (fleet.folder / "birch/birch2.tar.zst").unlink()
    (fleet.folder / "birch/birch4.tar.zst").write_bytes(b"content X")
    run(fleet, tmp_path / "plan")
    after = manifests(tmp_path / "plan")
    assert changed(before, after) == {"alder-00000", "birch-00001", "birch-00002"}
    assert read_json(tmp_path / "plan/batches/birch-00001.json")["episodes"][0]["file"] is None


def test_unindexed_files_and_broken_links_are_reported_or_missing_but_never_fatal(fleet, tmp_path):
    (fleet.folder / "alder/nobody.tar.zst").write_bytes(b"")
    (fleet.folder / "alder/notes.txt").write_bytes(b"")
    (fleet.folder / "alder/link.tar.zst").symlink_to("nowhere")
    run(fleet, tmp_path / "plan")
    assert read_json(tmp_path / "plan/index.json")["unindexed"] == ["alder/nobody.tar.zst"]


def test_names_that_are_not_utf8_and_files_in_deep_or_odd_places_are_reported(fleet, tmp_path):
    (fleet.folder / "alder" / os.fsdecode(b"\xff.tar.zst")).write_bytes(b"")
    (fleet.folder / "top.tar.zst").write_bytes(b"")
    (fleet.folder / "alder/deep").mkdir()
    (fleet.folder / "alder/deep/x.tar.zst").write_bytes(b"")
    run(fleet, tmp_path / "plan")
    assert read_json(tmp_path / "plan/index.json")["unindexed"] == [
        "alder/\\xff.tar.zst",
        "alder/deep/x.tar.zst",
        "top.tar.zst",
    ]


def test_a_path_with_detours_finds_its_file(fleet, tmp_path):
    (fleet.folder / "alder/odd.tar.zst").write_bytes(b"odd")
    fleet.put("alder", "odd", b"odd", path="alder/./odd.tar.zst")
    run(fleet, tmp_path / "plan")
    entry = read_json(tmp_path / "plan/batches/alder-00002.json")["episodes"][1]
    assert entry["file"][0] == 3
    assert read_json(tmp_path / "plan/index.json")["unindexed"] == []


def test_only_what_decides_who_is_trained_on_is_a_reason_to_train_again():
    def settings(**split):
        return training_settings(splits(resolve({"split": split}))[0])

    base = settings(train_hosts=["a", "b"], test_hosts=["c"])
    assert settings(train_hosts=["b", "a"], test_hosts=["d"], test_fraction=0.5) == base
    assert settings(train_hosts=["a", "b"], test_hosts=["c"], val_fraction=0.5) != base
    assert settings(recipe="sample", min_samples=3) != settings(recipe="sample")
    assert settings(recipe="time", test_fraction=0.1) != settings(recipe="time")


def test_a_host_that_the_store_lacks_is_named_with_those_it_has(fleet, tmp_path):
    with pytest.raises(StoreError, match=r"no host cedar; its hosts are alder, birch"):
        run(fleet, tmp_path / "plan", split={"train_hosts": ["alder"], "test_hosts": ["cedar"]})


def test_a_pin_takes_only_its_pairs_and_reports_the_rest(fleet, tmp_path):
    run(fleet, tmp_path / "plan")
    entries = [
        entry
        for batch in read_batches(tmp_path / "plan")
        for entry in read_json(tmp_path / f"plan/batches/{batch}.json")["episodes"]
    ]
    pin = pl.DataFrame(entries).select("episode_id", "sha256")
    gone = pl.DataFrame({"episode_id": ["left"], "sha256": ["0" * 64]})
    pl.concat([pin, gone]).write_parquet(tmp_path / "pin.parquet")
    pinned = {"store_pin": str(tmp_path / "pin.parquet")}
    run(fleet, tmp_path / "pinned", **pinned)
    before = manifests(tmp_path / "pinned")
    fleet.put("alder", "alder9", b"new")
    fleet.put("alder", "alder4", b"again")
    run(fleet, tmp_path / "pinned", **pinned)
    assert "alder-00002" not in read_batches(tmp_path / "pinned")  # only alder4 was in it
    assert changed(before, manifests(tmp_path / "pinned")) == set()
    report = read_json(tmp_path / "pinned/index.json")["pin"]
    assert report == {"not_pinned": ["alder9"], "changed": ["alder4"], "gone": ["left"]}


def test_a_pin_that_is_no_validation_parquet_is_named(fleet, tmp_path):
    (tmp_path / "pin").write_text("no parquet")
    with pytest.raises(StoreError, match="store_pin"):
        run(fleet, tmp_path / "plan", store_pin=str(tmp_path / "pin"))


def test_only_the_host_recipe_knows_its_batches_before_decoding():
    batches = {"a-00000": "a", "b-00000": "b", "c-00000": "c"}
    host = {"recipe": "host", "train_hosts": ["a"], "test_hosts": ["c"]}
    assert batches_of(host, batches, ["train"]) == ["a-00000"]
    assert batches_of(host, batches, ["train", "test"]) == ["a-00000", "c-00000"]
    assert batches_of({"recipe": "time"}, batches, ["train"]) == list(batches)
