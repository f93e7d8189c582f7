"""Every test row perturbed: is what training leaves the same, byte for byte?

In a copy all that is known of test episodes is replaced by noise: their features, their phases and
the hashes of their files. Then what a training reads is made again, and read, and gbt is trained.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import polars as pl

from cis490.channels import PHASES
from cis490.evaluation.bootstrap import SEED
from cis490.evaluation.tables import Provenance
from cis490.files import read_parquet, read_parquet_metadata, to_compact_json, write_parquet
from cis490.probes.booster import NAME, Booster
from cis490.probes.data import NotMeasurable, of_mode, restricted
from cis490.probes.tables import Name, row
from cis490.schema import Schema, feature_names
from cis490.splits import write_fit
from cis490.training.data import load_fit
from cis490.training.provenance import data_sha256

# Far from anything that was measured, so that a trace of it shows.
_SCALE = 1e6


class Store(NamedTuple):
    """What a training's way starts from.

    Attributes:
        verdicts: verdict files of the batches that may give training episodes.
        split: settings of the split, as `splits.write_fit` takes them.
        features: a file a batch.
        schema: what features were made under.
    """

    verdicts: Sequence[Path]
    split: Mapping[str, Any]
    features: Sequence[Path]
    schema: Schema


def artefacts(store: Store, episodes: pl.Series, booster: Booster, folder: Path) -> dict[str, str]:
    """sha256 of all that a training reads and leaves, by name.

    Args:
        episodes: ids of those that are loaded.
        folder: to work in.

    Raises:
        NotMeasurable: gbt cannot be trained.
    """
    fit = folder / "fit.parquet"
    write_fit(store.verdicts, store.split, fit)
    small = restricted(fit, episodes, folder / "fit_small.parquet")
    parts = load_fit(
        small,
        schema=store.schema,
        mode="realistic",
        tabular=True,
        features=store.features,
        tensors=[],
    )
    train, val = parts["train"], parts["val"]
    assert isinstance(train.X, np.ndarray)
    assert isinstance(val.X, np.ndarray)
    model = booster.fit(train.X, train.y, of_mode("realistic"), X_val=val.X, y_val=val.y)
    description, arrays = model.state()
    return {
        "fit": _sha256(fit.read_bytes()),
        **{f"windows of {part}": data_sha256(cases) for part, cases in parts.items()},
        "model": _sha256(to_compact_json(description).encode()),
        "history": _sha256(to_compact_json(model.history).encode()),
        **{name: _sha256(array.tobytes()) for name, array in arrays.items()},
    }


def copied(
    store: Store, episodes: pl.Series, folder: Path, tested: set[str] | None = None
) -> Store:
    """Write a store of some episodes alone; what is known of the `tested` ones is noise.

    Verdicts stay whole, for they decide which episodes are val; the copy differs in what it says
    of the content of tested ones.
    """
    rng = np.random.default_rng(SEED)
    noisy = pl.col("episode_id").is_in(sorted(tested or ()))
    verdicts, features = [], []
    for path in map(Path, store.verdicts):
        told = read_parquet(path)
        other = pl.lit(_sha256(b"other content"))
        told = told.with_columns(pl.when(noisy).then(other).otherwise("sha256").alias("sha256"))
        verdicts.append(folder / "verdicts" / path.name)
        write_parquet(verdicts[-1], told, read_parquet_metadata(path))
    chosen = pl.col("episode_id").is_in(episodes.unique().to_list())
    for path in map(Path, store.features):
        rows = read_parquet(path).filter(chosen)
        features.append(folder / "features" / path.name)
        metadata = {"schema_sha256": read_parquet_metadata(path).get("schema_sha256", "(none)")}
        write_parquet(features[-1], _noise(rows, noisy, rng), metadata)
    return Store(verdicts, store.split, features, store.schema)


def changed_by_test(
    store: Store,
    episodes: pl.DataFrame,
    n_windows: int,
    booster: Booster,
    folder: Path,
    origin: Provenance,
) -> tuple[list[dict[str, Any]], list[str]]:
    """How many artefacts of training change with the test rows, which must be none.

    Args:
        store: as it is.
        episodes: columns part and episode_id, of those that take part.
        n_windows: of test episodes among them.
        folder: to work in.

    Returns:
        The row, and the names of the artefacts that changed.

    Raises:
        NotMeasurable: there is no test episode, or gbt cannot be trained.
    """
    tested = set(episodes.filter(part="test")["episode_id"])
    if not tested:
        raise NotMeasurable("there is no test episode to perturb")
    ids = episodes["episode_id"]
    as_is = artefacts(copied(store, ids, folder / "as_is"), ids, booster, folder / "as_is")
    noise = folder / "perturbed"
    after = artefacts(copied(store, ids, noise, tested), ids, booster, noise)
    changed = sorted(name for name in as_is if as_is[name] != after.get(name))
    name = Name("test", "test_perturbed", NAME, "realistic", (booster.seed,))
    told = f"|artefacts={len(as_is)}"
    found = row(
        name, "artefacts_changed", len(changed), (n_windows, len(tested)), origin, told=told
    )
    return [found], changed


def _noise(rows: pl.DataFrame, noisy: pl.Expr, rng: np.random.Generator) -> pl.DataFrame:
    n = len(rows)
    columns = [
        pl.Series(name, rng.normal(scale=_SCALE, size=n).astype(np.float32))
        for name in feature_names("oracle")
    ]
    columns.append(pl.Series("phase", rng.choice(list(PHASES), size=n)))
    return rows.with_columns(
        pl.when(noisy).then(other).otherwise(pl.col(other.name)).alias(other.name)
        for other in columns
    )


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
