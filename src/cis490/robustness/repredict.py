"""What a trained model says of perturbed windows; nothing is trained."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np
import polars as pl

from cis490 import files
from cis490.channels import MODES, PHASES
from cis490.errors import Cis490Error
from cis490.files import read_json
from cis490.logs import MILESTONE, logger
from cis490.models.base import Classifier
from cis490.models.registry import get_class
from cis490.models.views import WindowView
from cis490.robustness.conditions import LYING_GUEST
from cis490.schema import Schema
from cis490.training.checkpoint import load_model, read_description
from cis490.training.data import Cases, load_split
from cis490.training.phases import PhaseFilter
from cis490.training.predict import PARTS, filter_of, predictions_of

KIND: Final = "cis490.repredicted"
VERSION: Final = "1"
# Windows compared at once.
_TOGETHER: Final = 1 << 10
_PHASE: Final = pl.Enum(PHASES)
REPREDICTED_SCHEMA: Final[dict[str, Any]] = {
    "condition": pl.String(),
    "seed": pl.Int64(),
    "episode_id": pl.String(),
    "window": pl.Int32(),
    "phase": _PHASE,
    "predicted": _PHASE,
    "moved": pl.Boolean(),
}


def repredict(
    *,
    model_dir: Path,
    schema_file: Path,
    episodes: Path,
    features: Sequence[Path],
    tensors: Sequence[Path],
    config: Mapping[str, Any],
    out: Path,
) -> None:
    """Write what each seed of a model says of every window under every condition.

    Args:
        model_dir: folder of the model, as `training.train` wrote it.
        schema_file: schema.json.
        episodes, features, tensors: as `rebuild.rebuild` wrote them.
        config: resolved settings; `training.device` is used.
        out: Parquet; REPREDICTED_SCHEMA, sorted by condition in their order, seed, episode_id and
            window. `moved` is whether the model's own input of that window differs in any bit from
            the unperturbed one; where none does, nothing is predicted anew. No rows if the
            training failed. Its metadata names the model and its weights.

    Raises:
        SchemaMismatch: the model or a file is of another schema than schema.json tells.
        FormatError: a file is damaged, or the files do not fit each other.
        Cis490Error: what only the guest says reached a model that must not see it.
    """
    schema = Schema.from_dict(read_json(schema_file))
    description = read_description(model_dir / "model.json")
    architecture, mode = description["architecture"], description["mode"]
    models = load_model(model_dir, schema, device=config["training"]["device"])
    read = partial(
        load_split,
        episodes,
        PARTS,
        schema=schema,
        mode=mode,
        tabular=get_class(architecture).tabular,
        features=features,
        tensors=tensors,
    )
    names = files.read_parquet(episodes, columns=["batch"])["batch"].unique(maintain_order=True)
    under = ((name, read(batch=name)) for name in names) if models else ()
    frames = list(_repredict(under, models, filter_of(description), mode))
    metadata = {
        "kind": KIND,
        "version": VERSION,
        "architecture": architecture,
        "mode": mode,
        "weights_sha256": description["weights_sha256"],
    }
    files.write_parquet(
        out, pl.concat([pl.DataFrame(schema=REPREDICTED_SCHEMA), *frames]), metadata
    )
    logger.log(MILESTONE, "%s %s: %d conditions", architecture, mode, len(names) if models else 0)


def _repredict(
    under: Iterable[tuple[str, Cases]],
    models: Mapping[int, Classifier],
    follows: PhaseFilter | None,
    mode: str,
) -> Iterator[pl.DataFrame]:
    """REPREDICTED_SCHEMA of each condition, of which the first is the unperturbed one, and seed."""
    before: tuple[Cases, dict[int, pl.DataFrame]] | None = None
    for name, cases in under:
        moved = moved_windows(before[0].X, cases.X) if before else np.zeros(len(cases.y), bool)
        if name == LYING_GUEST and moved.any() and "guest" not in MODES[mode]:
            raise Cis490Error(
                f"{mode}: {moved.sum()} windows moved with what the guest says, which this mode "
                "must not see: its inputs are not those that channels.py tells"
            )
        if before and not moved.any():
            said = before[1]
        else:
            said = {seed: predictions_of(m, cases, seed, follows) for seed, m in models.items()}
        before = before or (cases, said)
        for seed in sorted(said):
            yield _rows(name, said[seed], moved)


def moved_windows(before: np.ndarray | WindowView, after: np.ndarray | WindowView) -> np.ndarray:
    """(n_cases,) bool: which of the same windows differ in any bit of a model's input."""
    moved = np.zeros(len(before), bool)
    for start in range(0, len(before), _TOGETHER):
        some = slice(start, start + _TOGETHER)
        bits = [_cut(X, some).view(np.uint32) for X in (before, after)]
        differ = bits[0] != bits[1]
        moved[some] = differ.reshape(len(differ), -1).any(1)
    return moved


def _some(X: np.ndarray | WindowView, chosen: slice | np.ndarray) -> np.ndarray | WindowView:
    return X[chosen] if isinstance(X, np.ndarray) else replace(X, start=X.start[chosen])


def _cut(X: np.ndarray | WindowView, some: slice) -> np.ndarray:
    """Some windows as an array of float32, channel by channel."""
    chosen = _some(X, some)
    array = chosen if isinstance(chosen, np.ndarray) else chosen.to_array()
    return np.ascontiguousarray(array, np.float32)


def _rows(condition: str, predictions: pl.DataFrame, moved: np.ndarray) -> pl.DataFrame:
    """REPREDICTED_SCHEMA of one condition and seed, of `training.predict.PREDICTIONS_SCHEMA`."""
    said = predictions.select(f"p_{phase}" for phase in PHASES).to_numpy().argmax(1)
    frame = predictions.with_columns(
        pl.lit(condition).alias("condition"),
        pl.col("phase").cast(_PHASE),
        pl.Series("predicted", np.array(PHASES)[said], _PHASE),
        pl.Series("moved", moved),
    )
    return frame.select(list(REPREDICTED_SCHEMA))
