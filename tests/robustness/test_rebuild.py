"""Episodes are drawn by host and profile, and their windows made by the code of the real ones."""

import polars as pl
import pytest

from cis490 import files
from cis490.errors import FormatError
from cis490.robustness.rebuild import draw
from cis490.schema import Schema
from cis490.windows.shards import read_tensors
from tests.robustness.conftest import make_fleet


def split_of(counts):
    rows = [
        (f"{host}-{profile}-{part}-{i}", host, profile, part, f"{host}-00000")
        for (host, profile, part), n in counts.items()
        for i in range(n)
    ]
    return pl.DataFrame(rows, ["episode_id", "host_id", "profile", "part", "batch"], orient="row")


def test_each_host_and_profile_gives_its_share_of_the_draw():
    counts = {("a", "none", "test"): 40, ("a", "io", "test"): 20, ("b", "io", "test"): 20}
    split = split_of(counts | {("c", "io", "train"): 9, ("c", "io", "val"): 9})
    part, drawn = draw(split, 20)
    assert part == "test"
    found = {
        (host, profile): n for host, profile, n in drawn.group_by("host_id", "profile").len().rows()
    }
    assert found == {("a", "none"): 10, ("a", "io"): 5, ("b", "io"): 5}
    assert drawn["episode_id"].is_sorted()


def test_the_draw_does_not_depend_on_the_order_of_the_split_and_takes_all_if_it_may():
    split = split_of({("a", "io", "test"): 30, ("a", "none", "test"): 7})
    _, drawn = draw(split, 10)
    assert draw(split.reverse(), 10)[1].equals(drawn)
    assert draw(split, 37)[1].equals(split.sort("episode_id"))
    assert draw(split, 1000)[1].equals(split.sort("episode_id"))


def test_val_stands_in_for_a_test_part_and_without_both_nothing_is_drawn():
    split = split_of({("a", "io", "train"): 3, ("a", "io", "val"): 2})
    part, drawn = draw(split, 10)
    assert (part, len(drawn)) == ("val", 2)
    part, drawn = draw(split.filter(part="train"), 10)
    assert (part, len(drawn)) == (None, 0)


def test_unperturbed_windows_are_the_real_ones_to_the_bit(fleet):
    schema = Schema.from_dict(files.read_json(fleet.root / "schema.json"))
    ours = files.read_parquet(fleet.paths("features", "parquet")[0])
    assert ours.equals(files.read_parquet(fleet.root / "features/birch-00000.parquet"))
    ours, theirs = (
        read_tensors(path, schema)
        for path in (
            fleet.paths("tensors", "safetensors")[0],
            fleet.root / "tensors/birch-00000.safetensors",
        )
    )
    assert ours.episode_id == theirs.episode_id
    for name in ("offset", "n_windows", "codes", "scale", "base", "phase"):
        assert getattr(ours, name).tobytes() == getattr(theirs, name).tobytes(), name


def test_it_is_told_which_episodes_a_condition_changed(fleet):
    told = files.read_parquet(fleet.episodes)
    changed = told.group_by("batch", maintain_order=True).agg(pl.col("changed").sum())
    counts = dict(changed.rows())
    infected, everyone, netflow = 4, 6, 0  # of the six, four are no controls; birch has no netflow
    assert counts == {
        "unperturbed": 0,
        **{f"without_{source}": everyone for source in ("proc", "qmp", "guest")},
        "without_netflow": netflow,
        **dict.fromkeys(("loss_0.5", "skew_2", "half_rate"), everyone),
        "lying_guest": infected,
    }
    metadata = files.read_parquet_metadata(fleet.episodes)
    assert [metadata[name] for name in ("part", "n_drawn", "n_shown")] == ["test", "6", "6"]


def test_a_draw_from_the_middle_of_a_batch_gives_those_episodes_their_own_rows(tmp_path, fleet):
    some = make_fleet(tmp_path)
    told = some.rebuild(most=2)
    drawn = set(told["episode_id"])
    assert len(drawn) == 2
    for path, whole in zip(
        some.paths("features", "parquet"), fleet.paths("features", "parquet"), strict=True
    ):
        ours = files.read_parquet(path)
        theirs = files.read_parquet(whole).filter(pl.col("episode_id").is_in(drawn))
        assert ours.equals(theirs), path.name


def test_without_an_episode_shown_every_file_is_there_and_empty(tmp_path):
    fleet = make_fleet(tmp_path)
    split = files.read_parquet(tmp_path / "split.parquet").filter(part="train")
    files.write_parquet(tmp_path / "split.parquet", split)
    assert fleet.rebuild().is_empty()
    assert all(files.read_parquet(p).is_empty() for p in fleet.paths("features", "parquet"))
    assert files.read_parquet_metadata(fleet.episodes)["n_drawn"] == "0"


def test_an_episode_without_telemetry_is_named(tmp_path):
    fleet = make_fleet(tmp_path)
    split = files.read_parquet(tmp_path / "split.parquet")
    gone = split.with_columns(pl.col("episode_id").replace("birch-4", "birch-gone"))
    files.write_parquet(tmp_path / "split.parquet", gone)
    with pytest.raises(FormatError, match="birch-gone"):
        fleet.rebuild()
