"""Each host predicted twice: by models that know other episodes of it, and by models that do not.

What a detector loses on a machine it has never seen is the difference of the two on the same
episodes. A single test host cannot tell it: it may be harder than the others for everyone.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import polars as pl

from cis490 import splits
from cis490.errors import FormatError
from cis490.files import read_json, read_parquet, to_compact_json, write_parquet
from cis490.schema import Schema
from cis490.training.checkpoint import read_description
from cis490.training.data import load_split
from cis490.training.folds import (
    OUT_OF_FOLD_SCHEMA,
    Fold,
    Learner,
    assign_folds,
    folds_of,
    predict_folds,
)
from cis490.training.summary import best_by_val
from cis490.transfer import IN_HOST, SIDES

KIND: Final = "cis490.transfer"
VERSION: Final = 2

TRANSFER_SCHEMA: Final = pl.Schema(
    {
        **OUT_OF_FOLD_SCHEMA,
        "side": pl.Enum(SIDES),
        "host_id": pl.String(),
        "profile": pl.String(),
    }
)
ALONE: Final = 10  # hosts at most that are held out each alone, a training for each
_EPISODE: Final = ["episode_id", "host_id", "profile"]


def transfer(
    mode: str,
    side: str,
    *,
    model_files: Sequence[Path],
    schema_file: Path,
    split_file: Path,
    features: Sequence[Path],
    tensors: Sequence[Path],
    config: Mapping[str, Any],
    code: str,
    out: Path,
) -> None:
    """Predict episodes of each host of a split by models that know the host, or that do not.

    In-host: folds by episode over all hosts, as out of fold. Cross-host: hosts are held out, each
    alone unless there are more than `ALONE`, then in `evaluation.folds` groups; the first fold by
    episode of the other hosts tells when to stop. Each training uses the first seed, and settings,
    learning rate and micro batch of the split's own model of the architecture: nothing is chosen
    from what is found here. Episodes of test hosts are learned from, by these models alone.

    Args:
        mode: a name in `channels.MODES`.
        side: one of `SIDES`.
        model_files: model.json of the candidates, of which the best by val is taken (a tie goes to
            the first name); those that failed are passed over.
        schema_file: schema.json.
        split_file: splits/known/<split>.parquet, so that what arrives after `as_of` trains nothing;
            at most `transfer.episodes` of its train, val and test episodes are drawn
            (`splits.draw`).
        features, tensors: a file for each batch of those parts.
        config: resolved settings; `seeds`, `training`, `architectures`, `evaluation.folds` and
            `transfer`.
        code: hash of the code that decides what is learned.
        out: Parquet; columns `TRANSFER_SCHEMA`, sorted by part, episode_id, window. Its metadata
            are kind, version, architecture (empty: every candidate failed), mode, side, seed,
            n_drawn and n_usable (episodes), sha256 of the episodes drawn and of the schema, code,
            and `folds`, JSON: what `folds.predict_folds` tells.

    Raises:
        SchemaMismatch: a file was made under another schema than schema.json tells.
        ConfigError: no such mode, no such device here, or no such option.
        FormatError: a file is damaged, or a model is of another mode.
    """
    schema = Schema.from_dict(read_json(schema_file))
    usable = read_parquet(split_file).filter(pl.col("part") != "excluded")
    drawn = splits.draw(usable, config["transfer"]["episodes"])
    trained = _best([read_description(path) for path in model_files], mode)
    table, entries = pl.DataFrame(schema=TRANSFER_SCHEMA), list[dict[str, Any]]()
    if trained is not None:
        found, entries = _predicted(
            trained, side, drawn, schema, split_file, features, tensors, config
        )
        known = found.join(drawn.select(_EPISODE), on="episode_id", maintain_order="left")
        here = known.with_columns(side=pl.lit(side, TRANSFER_SCHEMA["side"]))
        table = here.select(list(TRANSFER_SCHEMA))
    metadata = {
        **{"kind": KIND, "version": str(VERSION), "mode": mode, "side": side},
        "seed": str(config["seeds"][0]),
        "architecture": trained["architecture"] if trained else "",
        **{"n_drawn": str(len(drawn)), "n_usable": str(len(usable))},
        "episodes_sha256": hashlib.sha256(drawn.select(_EPISODE).write_csv().encode()).hexdigest(),
        **{"schema_sha256": schema.sha256, "code": code, "folds": to_compact_json(entries)},
    }
    write_parquet(out, table, metadata)


def _best(models: Sequence[dict[str, Any]], mode: str) -> dict[str, Any] | None:
    """The best by val; None if all failed or there is no val."""
    if other := {model["mode"] for model in models} - {mode}:
        raise FormatError(f"models of mode {', '.join(sorted(other))} where {mode} is asked for")
    best = best_by_val(models)
    return next((model for model in models if model["architecture"] == best), None)


def _predicted(
    trained: Mapping[str, Any],
    side: str,
    drawn: pl.DataFrame,
    schema: Schema,
    split_file: Path,
    features: Sequence[Path],
    tensors: Sequence[Path],
    config: Mapping[str, Any],
) -> tuple[pl.DataFrame, list[dict[str, Any]]]:
    """Predictions of a side, in `OUT_OF_FOLD_SCHEMA`, and what became of its trainings."""
    learner = Learner.of(trained, config)
    cases = load_split(
        split_file,
        ("train", "val", "test"),
        schema=schema,
        mode=learner.mode,
        tabular=learner.kind.tabular,
        features=features,
        tensors=tensors,
        jitter=True,
        episodes=drawn["episode_id"],
    )
    n_folds = config["evaluation"]["folds"]
    dealt = drawn.select(_EPISODE).join(assign_folds(drawn, n_folds), on="episode_id")
    of = cases.rows.join(dealt, on="episode_id", how="left", maintain_order="left")
    fold, host = of["fold"].to_numpy(), of["host_id"].to_numpy()

    each = folds_of(fold) if side == IN_HOST else hosts_held_out(host, fold, n_folds)
    name = f"{trained['architecture']} {learner.mode}, {side.replace('_', '-')}"
    return predict_folds(learner.create, cases, each, name, learner.follow)


def hosts_held_out(host: np.ndarray, fold: np.ndarray, n_groups: int) -> Iterator[Fold]:
    """Hosts held out, each alone, or of more than `ALONE` in groups, dealt in order of their names.

    Args:
        host: (n_cases,) the host of each case.
        fold: (n_cases,) the fold by episode of each; the lowest that the other hosts have tells
            when to stop, unless they have no other.
        n_groups: of many hosts.

    Yields:
        Nothing of a single host.
    """
    names, of = np.unique(host, return_inverse=True)
    n_held_out = len(names) if len(names) <= ALONE else min(n_groups, len(names))
    for number in range(n_held_out if len(names) > 1 else 0):
        held_out = of % n_held_out == number
        folds = np.unique(fold[~held_out])
        val = ~held_out & (fold == folds[0]) & (len(folds) > 1)
        yield Fold(number, ~held_out & ~val, val, held_out)
