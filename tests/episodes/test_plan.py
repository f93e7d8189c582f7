import json
import os
from datetime import UTC, datetime, timedelta

import polars as pl
import pytest

from cis490.config import resolve, splits
from cis490.episodes.plan import Batch, batches_of, plan, read_batches, training_settings
from cis490.errors import StoreError
from cis490.files import read_json
from tests.builders import START, Store


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
    batches = run(fleet, tmp_path / "plan")
    assert {name: batch.host_id for name, batch in batches.items()} == {
        **dict.fromkeys(["alder-00000", "alder-00001", "alder-00002"], "alder"),
        **dict.fromkeys(["birch-00000", "birch-00001", "birch-00002"], "birch"),
    }
    assert read_batches(tmp_path / "plan") == batches
    manifest = read_json(tmp_path / "plan/batches/alder-00001.json")
    assert [entry["episode_id"] for entry in manifest["episodes"]] == ["alder2", "alder3"]


def test_planning_again_touches_no_file(fleet, tmp_path):
    run(fleet, tmp_path / "plan")
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "plan").rglob("*.json")}
    run(fleet, tmp_path / "plan")
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "plan").rglob("*.json")} == before


def never(*_):
    raise AssertionError("the store was planned anew")


def test_a_store_as_the_last_run_left_it_is_not_planned_anew(fleet, tmp_path, monkeypatch):
    planned = run(fleet, tmp_path / "plan")
    monkeypatch.setattr("cis490.episodes.plan.look", never)
    assert run(fleet, tmp_path / "plan") == planned


@pytest.mark.parametrize(
    ("change", "overrides"),
    [
        (lambda store, _: store.put("alder", "alder5", b"new"), {}),
        (lambda store, _: os.utime(store.folder / "birch/birch0.tar.zst", ns=(1, 1)), {}),
        (lambda store, _: (store.folder / "birch/birch0.tar.zst").unlink(), {}),
        (lambda store, _: (store.folder / "birch/stray.tar.zst").touch(), {}),
        (lambda _, folder: (folder / "batches/alder-00001.json").unlink(), {}),
        (lambda _, folder: (folder / "index.json").unlink(), {}),
        (lambda _, folder: (folder / "batches.json").write_text("{"), {}),
        (lambda _, folder: (folder / "state").unlink(), {}),
        # Another version of the code, which knows of no state, or a hand.
        (lambda _, folder: (folder / "batches/alder-00001.json").write_text("{}"), {}),
        (lambda _, folder: (folder / "index.json").write_text("{}"), {}),
        (lambda *_: None, {"batch": {"episodes": 3}}),
        (lambda *_: None, {"split": {"train_hosts": ["birch"], "test_hosts": ["alder"]}}),
    ],
)
def test_whatever_a_plan_is_made_of_has_the_store_planned_anew(
    fleet, tmp_path, monkeypatch, change, overrides
):
    run(fleet, tmp_path / "plan")
    change(fleet, tmp_path / "plan")
    with monkeypatch.context() as patch:
        patch.setattr("cis490.episodes.plan.look", never)
        with pytest.raises(AssertionError, match="planned anew"):
            run(fleet, tmp_path / "plan", **overrides)
    again = run(fleet, tmp_path / "plan", **overrides)
    assert again == run(fleet, tmp_path / "anew", **overrides)
    assert manifests(tmp_path / "plan").items() >= manifests(tmp_path / "anew").items()


def test_another_pin_has_the_store_planned_anew(fleet, tmp_path):
    pin = tmp_path / "pin.parquet"
    for pinned in (["alder0", "birch0"], ["alder0", "alder1", "birch0"]):
        records = [json.loads(line) for line in (fleet.folder / "index.jsonl").open()]
        some = [record for record in records if record["episode_id"] in pinned]
        pl.DataFrame(some).select("episode_id", "sha256").write_parquet(pin)
        run(fleet, tmp_path / "plan", store_pin=str(pin))
        manifest = read_json(tmp_path / "plan/batches/alder-00000.json")
        planned = [entry["episode_id"] for entry in manifest["episodes"]]
        assert planned == [name for name in pinned if name.startswith("alder")]


def test_a_plan_that_was_cut_short_is_not_taken_for_whole(fleet, tmp_path, monkeypatch):
    def killed(*_):
        raise KeyboardInterrupt

    run(fleet, tmp_path / "plan")
    with monkeypatch.context() as patch:
        patch.setattr("cis490.files.write_if_changed", killed)
        with pytest.raises(KeyboardInterrupt):
            run(fleet, tmp_path / "plan", batch={"episodes": 3})
    monkeypatch.setattr("cis490.episodes.plan.look", never)
    with pytest.raises(AssertionError, match="planned anew"):
        run(fleet, tmp_path / "plan")


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
    night = {"as_of": "2026-11-01T06:00:00Z"}
    assert settings(train_hosts=["a", "b"], test_hosts=["c"], **night) != base
    assert "as_of" not in base, "to know the setting is no reason to train again"


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
    batches = {f"{host}-00000": Batch(host, 1) for host in "abc"}
    host = {"recipe": "host", "train_hosts": ["a"], "test_hosts": ["c"]}
    assert batches_of(host, batches, ["train"]) == ["a-00000"]
    assert batches_of(host, batches, ["train", "test"]) == ["a-00000", "c-00000"]
    assert batches_of({"recipe": "time"}, batches, ["train"]) == list(batches)


DAY = 86_400


def noon(day):
    """Noon of a day, as a setting."""
    return (datetime.fromtimestamp(START // 10**9, UTC) + timedelta(days=day, hours=12)).isoformat()


@pytest.fixture
def nights(store: Store) -> Store:
    """Three episodes of each host arrive each night."""
    for day in range(4):
        for i in range(3):
            for host_id in ("alder", "birch"):
                arrive(store, host_id, f"{host_id}{day}{i}", day, i)
    return store


def arrive(store, host_id, episode_id, day, i=0, content=None):
    received = START + (day * DAY + i) * 10**9
    store.put(host_id, episode_id, content or episode_id.encode(), received_wall_ns=received)


def split_as_of(day, **more):
    hosts = {"train_hosts": ["alder"], "test_hosts": ["birch"]}
    return {"split": {**hosts, "as_of": day if day is None else noon(day)}, **more}


def contents(folder):
    """The episodes of each batch."""
    return {
        batch: [e["episode_id"] for e in read_json(folder / f"batches/{batch}.json")["episodes"]]
        for batch in read_batches(folder)
    }


def training(folder, settings):
    return batches_of(splits(resolve(settings))[0], read_batches(folder), ["train"])


def test_a_batch_that_as_of_would_divide_is_cut_and_arrivals_touch_nothing_trained_on(
    nights, tmp_path
):
    settings = split_as_of(1, batch={"episodes": 4})
    run(nights, tmp_path / "plan", **settings)
    batches = contents(tmp_path / "plan")
    assert batches["alder-00001"] == ["alder11", "alder12"]
    assert batches["alder-00001+1"] == ["alder20", "alder21"]
    assert training(tmp_path / "plan", settings) == ["alder-00000", "alder-00001"]
    before = manifests(tmp_path / "plan")
    for i in range(9):
        arrive(nights, "alder", f"new{i}", 4, i)
        run(nights, tmp_path / "plan", **settings)
        assert training(tmp_path / "plan", settings) == ["alder-00000", "alder-00001"]
    touched = changed(before, manifests(tmp_path / "plan"))
    assert touched == {"alder-00003", "alder-00004", "alder-00005"}


def test_an_open_batch_of_a_training_host_is_closed_at_as_of(nights, tmp_path):
    settings = split_as_of(3)
    run(nights, tmp_path / "plan", batch={"episodes": 512}, **settings)
    before = manifests(tmp_path / "plan")
    arrive(nights, "alder", "new", 4)
    run(nights, tmp_path / "plan", batch={"episodes": 512}, **settings)
    assert changed(before, manifests(tmp_path / "plan")) == {"alder-00000+1"}
    assert training(tmp_path / "plan", settings) == ["alder-00000"]


def test_as_of_moved_changes_two_batches_of_a_host_and_to_drop_it_one(nights, tmp_path):
    size = {"batch": {"episodes": 4}}
    plans = {}
    for day in (None, 0, 2):
        run(nights, tmp_path / str(day), **split_as_of(day), **size)
        plans[day] = {k: v for k, v in contents(tmp_path / str(day)).items() if "alder" in k}
    assert list(plans[None]) == ["alder-00000", "alder-00001", "alder-00002"]

    def differ(a, b):
        return {
            k.partition("+")[0] for k in plans[a] | plans[b] if plans[a].get(k) != plans[b].get(k)
        }

    assert differ(0, 2) == {"alder-00000", "alder-00002"}
    assert differ(None, 2) == {"alder-00002"}
    whole = training(tmp_path / "2", split_as_of(2, **size))
    assert whole == ["alder-00000", "alder-00001", "alder-00002"]


def test_splits_with_an_as_of_of_their_own_train_on_their_own_batches(nights, tmp_path):
    extra = [
        {"name": "old", "as_of": noon(0)},
        {"name": "all", "as_of": None},
        {"name": "later", "recipe": "time"},
    ]
    settings = split_as_of(1, extra_splits=extra)
    run(nights, tmp_path / "plan", batch={"episodes": 512}, **settings)
    batches = read_batches(tmp_path / "plan")
    assert [name for name in batches if "alder" in name] == [
        *("alder-00000", "alder-00000+1", "alder-00000+2")
    ]
    read = {
        split["name"]: {
            "train": batches_of(split, batches, ["train"]),
            "known": batches_of(split, batches, ["train", "test"], known=True),
            "both": batches_of(split, batches, ["train", "test"]),
        }
        for split in splits(resolve(settings))
    }
    a, b = ([f"{host}-00000", f"{host}-00000+1", f"{host}-00000+2"] for host in ("alder", "birch"))
    assert read == {
        "host": {"train": a[:2], "known": a[:2] + b[:2], "both": a[:2] + b},
        "old": {"train": a[:1], "known": a[:1] + b[:1], "both": a[:1] + b},
        "all": {"train": a, "known": a + b, "both": a + b},
        "later": {"train": a[:2] + b[:2], "known": a[:2] + b[:2], "both": a + b},
    }


def test_the_same_content_sent_again_stays_where_it_was(nights, tmp_path):
    settings = split_as_of(1)
    run(nights, tmp_path / "plan", batch={"episodes": 512}, **settings)
    before = contents(tmp_path / "plan")
    arrive(nights, "alder", "alder00", 4)
    run(nights, tmp_path / "plan", batch={"episodes": 512}, **settings)
    assert contents(tmp_path / "plan") == before
    arrive(nights, "alder", "alder00", 5, content=b"other")
    run(nights, tmp_path / "plan", batch={"episodes": 512}, **settings)
    assert "alder00" in contents(tmp_path / "plan")["alder-00000+1"]


def test_what_does_not_tell_when_it_was_received_counts_as_later(nights, tmp_path):
    nights.put("alder", "odd", b"odd", received_wall_ns="yesterday")
    settings = split_as_of(9)
    run(nights, tmp_path / "plan", batch={"episodes": 512}, **settings)
    assert contents(tmp_path / "plan")["alder-00000+1"] == ["odd"]
    assert training(tmp_path / "plan", settings) == ["alder-00000"]


def test_an_as_of_before_all_that_was_received_is_named(nights, tmp_path):
    with pytest.raises(StoreError, match=r"split host: as_of: .* no episode of alder by "):
        run(nights, tmp_path / "plan", **split_as_of(-1))
