"""Who may be trained on whom: each usable episode gets one part, and never two.

The part of a training episode depends on the training episodes alone: `fit` sees nothing else, so
that new test episodes can never cause, or change, a training. Nor can, with `as_of`, any episode
that started or arrived after it, whatever the recipe.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import polars as pl

from cis490 import files
from cis490.config import as_of_ns
from cis490.errors import StoreError
from cis490.files import StrPath

PARTS: Final = ("train", "val", "test", "excluded")
CONTROL: Final = "none"
_EMBARGO: Final = "embargo before the test part"

_NAMES: Final = ("episode_id", "host_id", "profile", "sample_name")
# A training is told no more of an episode.
_FIT: Final = (*_NAMES, "part", "batch", "sha256")
# What figures are broken down by.
_KNOWN: Final = ("status", "background")
_COLUMNS: Final = (*_NAMES, *_KNOWN, "part", "reason", "batch")


def write_fit(
    verdicts: Sequence[StrPath],
    split: Mapping[str, Any],
    out: StrPath,
) -> None:
    """Write the training and val episodes of a split: all that a training may know of it.

    Args:
        verdicts: verdict files of the batches that may give training episodes.
        split: `plan.training_settings` of one of `config.splits`.
        out: Parquet file to write: episode_id, host_id, profile, sample_name, part, batch, sha256.

    Raises:
        StoreError: there is no episode to train on.
    """
    episodes = assign(_usable(verdicts), split)
    fit = episodes.filter(pl.col("part").is_in(["train", "val"])).select(_FIT)
    if fit.filter(pl.col("part") == "train").is_empty():
        raise StoreError(
            f"split by {split['recipe']}: no usable episode to train on"
            + (f", of {', '.join(split['train_hosts'])}" if split["recipe"] == "host" else "")
            + (f" by {split['as_of']}" if split.get("as_of") else "")
            + "; `cis490 validate STORE` says why episodes are not usable"
        )
    files.write_parquet(out, fit, {"kind": "cis490.fit", "sha256": split_hash(fit)})


def write_known(verdicts: Sequence[StrPath], split: Mapping[str, Any], out: StrPath) -> None:
    """Write the train, val and test episodes that started by `as_of`.

    Args:
        verdicts: verdict files of the batches of train and test that were received by `as_of`.
        split: one of `config.splits`.
        out: Parquet file to write, in the columns of `write_fit`.
    """
    usable = _usable(verdicts)
    is_later = _later(usable.select("started_wall_ns").to_dicts(), split, None)
    known = (
        assign(usable.filter(~pl.Series(is_later, dtype=pl.Boolean)), split)
        .filter(pl.col("part") != "excluded")
        .select(_FIT)
    )
    files.write_parquet(out, known, {"kind": "cis490.known", "sha256": split_hash(known)})


def write_split(
    verdicts: Sequence[StrPath],
    split: Mapping[str, Any],
    *,
    trainable: Sequence[StrPath],
    fit: StrPath,
    parquet: StrPath,
    json: StrPath,
) -> None:
    """Write each usable episode's part, and a summary of the split.

    Args:
        verdicts: verdict files of all batches.
        split: one of `config.splits`.
        trainable: those of the batches that may give training episodes, as `write_fit` read them.
        fit: what `write_fit` wrote.
        parquet: file to write: episode_id, host_id, profile, sample_name, status, background, part,
            reason, batch.
        json: file to write: name, recipe, as_of, hosts, counts by profile, untested_profiles,
            excluded (episodes by reason), n_simulated (of all usable episodes), sha256.
    """
    episodes = assign(_usable(verdicts), split, {Path(path).stem for path in trainable})
    known = files.read_parquet(fit)
    mine = episodes.filter(pl.col("part").is_in(["train", "val"])).select(_FIT)
    assert mine.sort("episode_id").equals(known.sort("episode_id")), (
        "the training part of a split must not depend on other episodes"
    )
    files.write_parquet(parquet, episodes.select(_COLUMNS), {"kind": "cis490.split"})
    n_simulated = sum(
        int(files.read_parquet_metadata(path).get("n_simulated", 0)) for path in verdicts
    )
    files.write_json(json, summary(episodes, split) | {"n_simulated": n_simulated})


def assign(
    episodes: pl.DataFrame, split: Mapping[str, Any], trainable: Collection[str] | None = None
) -> pl.DataFrame:
    """Give each episode its part.

    With `as_of` the recipe divides the episodes that had started and arrived by then, as if there
    were no others. Later ones are tested on, where they test what the recipe tests: those of test
    hosts (host), of the programs held out and a share of the controls (sample), or those of hosts
    known by then (time). The others are excluded.

    Args:
        episodes: rows of validation.parquet, usable ones, in order of first appearance.
        split: one of `config.splits`, or `plan.training_settings` of one.
        trainable: the batches that were received by `as_of`; None: all. Of hosts that are only
            tested on they make no difference.

    Returns:
        `episodes`' ids, host, profile, sample, status, background, batch and sha256 with `part`
        ("train", "val", "test" or "excluded") and `reason` (why excluded, else null), in the same
        order.
    """
    rows = episodes.select(*_NAMES, *_KNOWN, "started_wall_ns", "batch", "sha256").to_dicts()
    recipe, later_recipe = _RECIPES[split["recipe"]]
    is_later = _later(rows, split, trainable)
    early = [row for row, late in zip(rows, is_later, strict=True) if not late]
    later = [row for row, late in zip(rows, is_later, strict=True) if late]
    parts = recipe(early, split)
    if later:
        parts |= later_recipe(later, early, parts, split)
    training = [row for row in early if parts[row["episode_id"]] == ("train", None)]
    for episode_id in _one_of_each_block(training, split["val_fraction"], ("host_id", "profile")):
        parts[episode_id] = ("val", None)
    assert len(parts) == len(rows), "an episode in two parts"
    return pl.DataFrame(
        [
            {**row, "part": parts[row["episode_id"]][0], "reason": parts[row["episode_id"]][1]}
            for row in rows
        ],
        {
            **{name: pl.String() for name in (*_NAMES, "status")},
            "background": pl.List(pl.String()),
            **{name: pl.String() for name in ("part", "reason", "batch", "sha256")},
        },
    )


Row = dict[str, Any]
Parts = dict[str, tuple[str, str | None]]


def draw(episodes: pl.DataFrame, most: int) -> pl.DataFrame:
    """At most so many episodes, as many of each host and profile as its share.

    The same ones each time, by hash of their ids, whatever order they come in.

    Args:
        episodes: episode_id, host_id, profile.
        most: episodes.

    Returns:
        The rows of those drawn, in the order given.
    """
    by_hash = [hashlib.sha256(name.encode()).hexdigest() for name in episodes["episode_id"]]
    ranked = episodes.with_row_index("row").with_columns(pl.Series("hash", by_hash, pl.String))
    within = pl.col("episode_id").cum_count().over("host_id", "profile", order_by="hash") - 0.5
    place = within / pl.len().over("host_id", "profile")
    drawn = ranked.with_columns(place=place).sort("place", "hash").head(most)
    return drawn.sort("row").select(episodes.columns)


def _later(
    rows: Sequence[Row], split: Mapping[str, Any], trainable: Collection[str] | None
) -> list[bool]:
    """Of each row whether it started after `as_of`, or is of a batch that was received after it."""
    as_of = as_of_ns(split)
    if as_of is None:
        return [False] * len(rows)
    return [
        row["started_wall_ns"] > as_of or (trainable is not None and row["batch"] not in trainable)
        for row in rows
    ]


def _too_late(split: Mapping[str, Any]) -> tuple[str, str]:
    return "excluded", f"started or arrived after as_of, {split['as_of']}"


def _by_host(rows: Sequence[Row], split: Mapping[str, Any]) -> Parts:
    """Train on some hosts, test on others."""
    parts: Parts = {}
    for row in rows:
        if row["host_id"] in split["test_hosts"]:
            parts[row["episode_id"]] = ("test", None)
        elif row["host_id"] in split["train_hosts"]:
            parts[row["episode_id"]] = ("train", None)
        else:
            reason = f"host {row['host_id']} is in neither train_hosts nor test_hosts"
            parts[row["episode_id"]] = ("excluded", reason)
    return parts


def _later_by_host(
    later: Sequence[Row],
    early: Sequence[Row],  # noqa: ARG001 - one signature for all recipes
    parts: Parts,  # noqa: ARG001
    split: Mapping[str, Any],
) -> Parts:
    """Test hosts are tested on as ever."""
    return {
        episode_id: _too_late(split) if part == ("train", None) else part
        for episode_id, part in _by_host(later, split).items()
    }


def _by_sample(rows: Sequence[Row], split: Mapping[str, Any]) -> Parts:
    """Of each profile hold one program out, over all hosts; of the controls a share by episode."""
    names: dict[str, set[str]] = {}
    for row in rows:
        names.setdefault(row["profile"], set()).add(row["sample_name"])
    held_out = {
        profile: min(samples, key=lambda name: _hash(f"{profile}/{name}"))
        for profile, samples in names.items()
        if profile != CONTROL and len(samples) >= split["min_samples"]
    }
    controls = [row for row in rows if row["profile"] == CONTROL]
    tested = set(_one_of_each_block(controls, split["test_fraction"], ("host_id",)))
    parts: Parts = {}
    for row in rows:
        profile = row["profile"]
        if profile != CONTROL and profile not in held_out:
            reason = f"profile {profile} has fewer than {split['min_samples']} sample names"
            parts[row["episode_id"]] = ("excluded", reason)
        elif row["episode_id"] in tested or held_out.get(profile) == row["sample_name"]:
            parts[row["episode_id"]] = ("test", None)
        else:
            parts[row["episode_id"]] = ("train", None)
    return parts


def _later_by_sample(
    later: Sequence[Row], early: Sequence[Row], parts: Parts, split: Mapping[str, Any]
) -> Parts:
    """Of programs held out each one; of the controls the same share as before."""
    held_out = {
        (row["profile"], row["sample_name"])
        for row in early
        if row["profile"] != CONTROL and parts[row["episode_id"]][0] == "test"
    }
    controls = [row for row in later if row["profile"] == CONTROL]
    tested = set(_one_of_each_block(controls, split["test_fraction"], ("host_id",)))
    return {
        row["episode_id"]: ("test", None)
        if row["episode_id"] in tested or (row["profile"], row["sample_name"]) in held_out
        else _too_late(split)
        for row in later
    }


def _by_time(rows: Sequence[Row], split: Mapping[str, Any]) -> Parts:
    """Of each host test on the last episodes; the one before them is left out as embargo."""
    parts: Parts = {row["episode_id"]: ("train", None) for row in rows}
    for group in _groups(rows, ("host_id",)):
        ordered = sorted(group, key=lambda row: (row["started_wall_ns"], row["episode_id"]))
        n_test = round(len(ordered) * split["test_fraction"])
        for row in ordered[len(ordered) - n_test :]:
            parts[row["episode_id"]] = ("test", None)
        if 0 < n_test < len(ordered):
            embargo = ordered[len(ordered) - n_test - 1]
            parts[embargo["episode_id"]] = ("excluded", _EMBARGO)
    return parts


def _later_by_time(
    later: Sequence[Row], early: Sequence[Row], parts: Parts, split: Mapping[str, Any]
) -> Parts:
    """What started later is tested on, on hosts that were there before.

    What only arrived later lies among the episodes trained on, and tests nothing later.
    """
    as_of = as_of_ns(split)
    assert as_of is not None
    known = {row["host_id"] for row in early}
    # Hosts of so few episodes that none is tested on: the first later one is next to training.
    tested = {row["host_id"] for row in early if parts[row["episode_id"]][0] == "test"}
    found: Parts = {}
    for row in sorted(later, key=lambda row: (row["started_wall_ns"], row["episode_id"])):
        host_id, episode_id = row["host_id"], row["episode_id"]
        if host_id not in known:
            reason = f"host {host_id} has no episode up to as_of, {split['as_of']}"
            found[episode_id] = ("excluded", reason)
        elif row["started_wall_ns"] <= as_of:
            found[episode_id] = _too_late(split)
        elif host_id not in tested:
            found[episode_id] = ("excluded", _EMBARGO)
            tested.add(host_id)
        else:
            found[episode_id] = ("test", None)
    return found


# What divides the episodes, and what divides those after `as_of`.
_RECIPES: Final = {
    "host": (_by_host, _later_by_host),
    "sample": (_by_sample, _later_by_sample),
    "time": (_by_time, _later_by_time),
}


def _one_of_each_block(rows: Sequence[Row], fraction: float, by: tuple[str, ...]) -> Iterable[str]:
    """Within each group, each complete block of round(1/fraction) episodes gives the one whose id
    has the smallest hash: a new arrival never changes what an earlier block gave.
    """
    size = round(1 / fraction)
    for group in _groups(rows, by):
        for start in range(0, len(group) - size + 1, size):
            yield min((row["episode_id"] for row in group[start : start + size]), key=_hash)


def _groups(rows: Sequence[Row], by: tuple[str, ...]) -> Iterable[list[Row]]:
    groups: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        groups.setdefault(tuple(row[name] for name in by), []).append(row)
    return groups.values()


def summary(episodes: pl.DataFrame, split: Mapping[str, Any]) -> dict[str, Any]:
    """The content of splits/<split>.json; `episodes` as `assign` returns them."""
    counts: dict[str, dict[str, int]] = {}
    for profile, part in episodes.select("profile", "part").iter_rows():
        counts.setdefault(profile, dict.fromkeys(PARTS, 0))[part] += 1
    excluded = episodes.filter(pl.col("part") == "excluded")["reason"].to_list()
    by_host = split["recipe"] == "host"
    hosts = sorted(set(episodes["host_id"]))
    return {
        "kind": "cis490.split",
        "version": 1,
        "name": split["name"],
        "recipe": split["recipe"],
        "as_of": split["as_of"],
        "train_hosts": split["train_hosts"] if by_host else hosts,
        "test_hosts": split["test_hosts"] if by_host else hosts,
        "counts": counts,
        "untested_profiles": sorted(p for p, of_part in counts.items() if not of_part["test"]),
        "excluded": {reason: excluded.count(reason) for reason in sorted(set(excluded))},
        "sha256": split_hash(episodes),
    }


def split_hash(episodes: pl.DataFrame) -> str:
    """Hash of which content is in which part, in no particular order."""
    lines = sorted("\t".join(row) for row in episodes.select("episode_id", "sha256", "part").rows())
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def _usable(verdicts: Sequence[StrPath]) -> pl.DataFrame:
    rows = pl.concat([files.read_parquet(path) for path in verdicts])
    # `episodes.faults.USABLE`, but the wording of a fault must be no reason to train again.
    return rows.filter(pl.col("status").is_in(["accepted", "degraded"]))


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
