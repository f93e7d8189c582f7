import hashlib

import polars as pl
import pytest

from cis490.config import resolve
from cis490.config import splits as named
from cis490.errors import StoreError
from cis490.splits import assign, summary, write_fit, write_split

HOST = {"train_hosts": ["alder", "dogwood"], "test_hosts": ["birch"]}


def split(**settings):
    return named(resolve({"split": HOST | settings}))[0]


def episodes(*groups):
    """Rows for (host, profile, sample, n) groups, interleaved as they would arrive."""
    rows = []
    for host, profile, sample, n in groups:
        for i in range(n):
            id_ = f"{host}-{profile}-{sample}-{i}"
            rows.append(
                {
                    "episode_id": id_,
                    "host_id": host,
                    "profile": profile,
                    "sample_name": sample,
                    "started_wall_ns": 1000 * i,
                    "batch": f"{host}-00000",
                    "sha256": hashlib.sha256(id_.encode()).hexdigest(),
                    "status": "accepted",
                    "background": ["bg-idle"],
                    "i": i,
                }
            )
    return pl.DataFrame(rows).sort("i", maintain_order=True)


FLEET = episodes(
    *((h, p, f"{p}-{s}", 7) for h in ("alder", "dogwood") for p in ("beacon", "io") for s in "ab"),
    ("alder", "none", "none", 12),
    ("dogwood", "scan", "scan-a", 4),
    ("birch", "beacon", "beacon-a", 6),
    ("birch", "none", "none", 6),
    ("cedar", "io", "io-a", 3),
)


def parts(frame):
    return dict(frame.select("episode_id", "part").iter_rows())


def test_the_host_recipe_never_trains_on_a_test_host():
    got = assign(FLEET, split())
    by_host = {h: set(g["part"]) for (h,), g in got.group_by("host_id")}
    assert by_host == {
        "alder": {"train", "val"},
        "dogwood": {"train", "val"},
        "birch": {"test"},
        "cedar": {"excluded"},
    }
    reasons = set(got.filter(part="excluded")["reason"])
    assert reasons == {"host cedar is in neither train_hosts nor test_hosts"}


def test_each_complete_block_of_a_host_and_profile_gives_one_to_val():
    got = assign(FLEET, split(val_fraction=0.25))
    counts = got.group_by("host_id", "profile").agg(
        n=pl.len(), val=(pl.col("part") == "val").sum(), test=(pl.col("part") == "test").any()
    )
    for row in counts.filter(pl.col("host_id").is_in(HOST["train_hosts"])).iter_rows(named=True):
        assert row["val"] == row["n"] // 4, row


def test_new_arrivals_never_flip_an_old_episodes_part():
    whole = FLEET.filter(pl.col("host_id").is_in(["alder", "dogwood"]))
    final = parts(assign(whole, split()))
    for n in range(1, whole.height):
        flipped = {
            id_: (part, final[id_])
            for id_, part in parts(assign(whole.head(n), split())).items()
            # An episode of an open block may still be given to val when the block completes.
            if part != final[id_] and part == "val"
        }
        assert not flipped


def test_test_episodes_have_no_say_in_the_training_part():
    alone = assign(FLEET.filter(pl.col("host_id").is_in(["alder", "dogwood"])), split())
    among = assign(FLEET, split())
    assert parts(alone).items() <= parts(among).items()


def test_the_sample_recipe_holds_one_program_of_each_profile_out_over_all_hosts():
    got = assign(FLEET, split(recipe="sample", test_fraction=0.5))
    for profile in ("beacon", "io"):
        tested = got.filter(profile=profile, part="test")["sample_name"].unique().to_list()
        trained = set(got.filter(profile=profile).filter(pl.col("part") != "test")["sample_name"])
        assert len(tested) == 1
        assert tested[0] not in trained
    assert set(got.filter(profile="scan")["part"]) == {"excluded"}
    assert "fewer than 2 sample names" in got.filter(profile="scan")["reason"][0]
    assert set(got.filter(profile="none")["part"]) == {"train", "val", "test"}
    assert summary(got, split(recipe="sample"))["untested_profiles"] == ["scan"]


def test_the_time_recipe_tests_on_the_last_of_each_host_behind_an_embargo():
    got = assign(FLEET, split(recipe="time", test_fraction=0.25))
    starts = FLEET.select("episode_id", "started_wall_ns")
    for (host,), rows in got.join(starts, on="episode_id").group_by("host_id"):
        rows = rows.sort("started_wall_ns", "episode_id")
        n_test = round(rows.height * 0.25)
        assert rows["part"].to_list()[-n_test:] == ["test"] * n_test, host
        assert rows["part"].to_list()[-n_test - 1] == "excluded"
        assert rows["reason"][-n_test - 1] == "embargo before the test part"
        assert (rows["part"] == "excluded").sum() == 1


@pytest.mark.parametrize("recipe", ["host", "sample", "time"])
def test_no_episode_is_in_two_parts_and_none_is_lost(recipe):
    got = assign(FLEET, split(recipe=recipe))
    assert got["episode_id"].to_list() == FLEET["episode_id"].to_list()
    assert got["episode_id"].is_unique().all()


def test_untested_profiles_are_those_without_a_test_episode():
    content = summary(assign(FLEET, split()), split())
    assert content["untested_profiles"] == ["io", "scan"]
    assert content["counts"]["beacon"] == {"train": 24, "val": 4, "test": 6, "excluded": 0}
    assert content["excluded"] == {"host cedar is in neither train_hosts nor test_hosts": 3}


def test_the_hash_of_a_split_follows_content_and_part_but_not_order():
    def digest(frame, **settings):
        return summary(assign(frame, split(**settings)), split(**settings))["sha256"]

    base = digest(FLEET)
    assert digest(FLEET.with_columns(pl.lit("0" * 64).alias("sha256"))) != base
    assert digest(FLEET, val_fraction=0.25) != base
    assert digest(FLEET, test_hosts=["cedar"]) != base


def files(tmp_path, settings, frame=FLEET):
    frame.write_parquet(tmp_path / "v.parquet")
    write_fit([tmp_path / "v.parquet"], settings, tmp_path / "fit.parquet")
    write_split(
        [tmp_path / "v.parquet"],
        settings,
        fit=tmp_path / "fit.parquet",
        parquet=tmp_path / "s.parquet",
        json=tmp_path / "s.json",
    )
    return pl.read_parquet(tmp_path / "fit.parquet"), pl.read_parquet(tmp_path / "s.parquet")


def test_unusable_episodes_take_no_part(tmp_path):
    frame = FLEET.with_columns(
        status=pl.when(pl.col("i") == 0).then(pl.lit("rejected")).otherwise(pl.lit("degraded"))
    )
    fit, whole = files(tmp_path, split(), frame)
    assert not whole["episode_id"].str.ends_with("-0").any()
    assert set(fit["part"]) == {"train", "val"}


def test_a_split_knows_what_figures_are_broken_down_by_and_a_training_does_not(tmp_path):
    fit, whole = files(tmp_path, split())
    assert set(whole["status"]) == {"accepted"}
    assert whole["background"].to_list() == [["bg-idle"]] * len(whole)
    assert not {"status", "background", "reason"} & set(fit.columns)


def test_nothing_to_train_on_is_said_with_the_hosts(tmp_path):
    with pytest.raises(StoreError, match="no usable episode to train on on alder"):
        files(tmp_path, split(train_hosts=["alder"]), FLEET.filter(host_id="birch"))
