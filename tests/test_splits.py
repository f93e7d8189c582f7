import hashlib

import polars as pl
import pytest

from cis490.config import resolve
from cis490.config import splits as named
from cis490.errors import StoreError
from cis490.files import read_json
from cis490.splits import assign, summary, write_fit, write_known, write_split

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
    verdicts = []
    for (batch,), rows in frame.group_by("batch", maintain_order=True):
        verdicts.append(tmp_path / f"{batch}.parquet")
        rows.write_parquet(verdicts[-1])
    write_fit(verdicts, settings, tmp_path / "fit.parquet")
    write_split(
        verdicts,
        settings,
        trainable=verdicts,
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
    with pytest.raises(StoreError, match="no usable episode to train on, of alder"):
        files(tmp_path, split(train_hosts=["alder"]), FLEET.filter(host_id="birch"))


# Of each group those from the fifth on started after it.
AS_OF = {"as_of": "1970-01-01T00:00:00.000004Z"}


def test_nothing_after_as_of_has_a_say_in_who_is_trained_on_whatever_the_recipe():
    for recipe in ("host", "sample", "time"):
        settings = split(recipe=recipe, **AS_OF)
        got = assign(FLEET, settings).with_columns(FLEET["i"])
        alone = assign(FLEET.filter(pl.col("i") <= 4), split(recipe=recipe))
        early = got.filter(pl.col("i") <= 4)
        assert early.drop("i").equals(alone), recipe
        after = got.filter(pl.col("i") > 4)
        assert "test" in set(after["part"]) <= {"test", "excluded"}, recipe
        assert parts(assign(FLEET, split(recipe=recipe))) != parts(got), "as_of changes nothing"


def test_the_host_recipe_tests_on_later_episodes_of_test_hosts_and_leaves_out_the_rest():
    got = assign(FLEET, split(**AS_OF)).with_columns(FLEET["i"]).filter(pl.col("i") > 4)
    assert set(got.filter(host_id="birch")["part"]) == {"test"}
    rest = got.filter(pl.col("host_id").is_in(["alder", "dogwood"]))
    assert set(rest["part"]) == {"excluded"}
    assert set(rest["reason"]) == {f"started or arrived after as_of, {AS_OF['as_of']}"}


def test_the_sample_recipe_tests_on_later_episodes_of_programs_held_out_and_on_some_controls():
    settings = split(recipe="sample", test_fraction=0.5, **AS_OF)
    got = assign(FLEET, settings).with_columns(FLEET["i"])
    early, after = got.filter(pl.col("i") <= 4), got.filter(pl.col("i") > 4)
    held_out = set(early.filter(part="test").filter(pl.col("profile") != "none")["sample_name"])
    tested = after.filter(part="test")
    assert set(tested.filter(pl.col("profile") != "none")["sample_name"]) == held_out
    assert not held_out & set(after.filter(part="excluded")["sample_name"])
    controls = after.filter(profile="none", host_id="alder")
    assert (controls["part"] == "test").sum() == len(controls) // 2


def test_the_time_recipe_tests_on_later_episodes_of_hosts_that_it_knows():
    new = FLEET.filter(host_id="cedar").with_columns(
        host_id=pl.lit("elm"), episode_id="elm-" + pl.col("episode_id"), i=pl.col("i") + 5
    )
    late_upload = FLEET.filter(host_id="alder", i=0).head(1)
    fleet = pl.concat([FLEET, new.with_columns(started_wall_ns=9000 + pl.col("i"))])
    fleet = fleet.with_columns(
        batch=pl.when(pl.col("episode_id") == late_upload["episode_id"][0])
        .then(pl.lit("alder-00000+1"))
        .otherwise("batch")
    )
    known = {f"{host}-00000" for host in ("alder", "dogwood", "birch", "cedar")}
    got = assign(fleet, split(recipe="time", **AS_OF), known).with_columns(fleet["i"])
    after = got.filter(pl.col("i") > 4, pl.col("host_id") != "elm")
    assert set(after["part"]) == {"test"}
    elm = set(got.filter(host_id="elm")["reason"])
    assert elm == {f"host elm has no episode up to as_of, {AS_OF['as_of']}"}
    # It was recorded among the episodes trained on: it tests nothing later.
    reason = got.filter(episode_id=late_upload["episode_id"][0])["reason"][0]
    assert reason == f"started or arrived after as_of, {AS_OF['as_of']}"


def test_the_time_recipe_keeps_an_embargo_where_as_of_left_no_test_part():
    fleet = FLEET.filter(pl.col("episode_id").str.starts_with("dogwood-scan")).with_columns(
        started_wall_ns=pl.col("started_wall_ns") + 3000
    )
    got = assign(fleet, split(recipe="time", **AS_OF))
    assert got["part"].to_list() == ["train", "train", "excluded", "test"]
    assert got["reason"][2] == "embargo before the test part"


def test_what_arrived_after_as_of_is_not_trained_on_however_early_it_started():
    batches = FLEET.with_columns(
        batch=pl.when(pl.col("i") > 2).then(pl.lit("alder-00000+1")).otherwise("batch")
    )
    got = assign(batches, split(as_of="2030-01-01T00:00:00Z"), {"alder-00000", "dogwood-00000"})
    rows = got.with_columns(FLEET["i"]).filter(pl.col("host_id").is_in(["alder", "dogwood"]))
    assert set(rows.filter(pl.col("i") > 2)["part"]) == {"excluded"}
    assert set(rows.filter(pl.col("i") <= 2)["part"]) == {"train", "val"}


def test_an_episode_that_started_at_as_of_is_trained_on():
    got = assign(FLEET, split(**AS_OF)).with_columns(FLEET["i"])
    assert "excluded" not in set(got.filter(pl.col("i") == 4, host_id="alder")["part"])


def test_known_holds_all_that_was_there_by_as_of_and_does_not_change_with_what_comes(tmp_path):
    settings = split(**AS_OF)
    early = FLEET.filter(pl.col("i") <= 4)
    for name, frame in (("early", early), ("whole", FLEET)):
        frame.write_parquet(tmp_path / f"{name}.v.parquet")
        write_known([tmp_path / f"{name}.v.parquet"], settings, tmp_path / f"{name}.parquet")
    known = pl.read_parquet(tmp_path / "whole.parquet")
    assert (tmp_path / "early.parquet").read_bytes() == (tmp_path / "whole.parquet").read_bytes()
    assert set(known["part"]) == {"train", "val", "test"}
    assert set(known["host_id"]) == {"alder", "dogwood", "birch"}
    write_known([tmp_path / "whole.v.parquet"], split(), tmp_path / "all.parquet")
    everything = pl.read_parquet(tmp_path / "all.parquet")
    assert len(everything) == len(FLEET.filter(pl.col("host_id") != "cedar"))


def test_nothing_to_train_on_by_as_of_is_said_with_the_time(tmp_path):
    with pytest.raises(StoreError, match=r"to train on, of alder, dogwood by 1969-"):
        files(tmp_path, split(as_of="1969-01-01T00:00:00Z"))


def test_a_split_tells_its_as_of(tmp_path):
    files(tmp_path, split(**AS_OF))
    told = read_json(tmp_path / "s.json")
    assert told["as_of"] == AS_OF["as_of"]
    assert f"started or arrived after as_of, {AS_OF['as_of']}" in told["excluded"]
