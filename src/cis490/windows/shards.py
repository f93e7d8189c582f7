"""Tensor shards: the grid of each episode of a batch, once; windows are cut when a model asks."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from typing import Any

import numpy as np
import safetensors.numpy
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from cis490 import files
from cis490.errors import FormatError
from cis490.files import StrPath
from cis490.schema import Schema

KIND = "cis490.tensors"
VERSION = "1"


@dataclass(frozen=True)
class TensorShard:
    """The grids of n episodes side by side in time; S is the sum of their steps.

    Attributes:
        episode_id: n ids.
        offset: int64 (n + 1,); episode i is columns offset[i]:offset[i + 1].
        n_windows: int64 (n,); window k of episode i starts at offset[i] + k * stride.
        values: float32 (46, S), rates per second and gauges as measured, 0 where missing.
        mask: bool (46, S), True where measured.
        phase: int8 (S,), index into `channels.PHASES` of what held in the middle of each step.
    """

    episode_id: list[str]
    offset: NDArray[np.int64]
    n_windows: NDArray[np.int64]
    values: NDArray[np.float32]
    mask: NDArray[np.bool_]
    phase: NDArray[np.int8]


def write_tensors(path: StrPath, shard: TensorShard, schema: Schema) -> None:
    """Write a shard as safetensors, whole or not at all."""
    arrays: dict[str, NDArray[Any]] = {
        "offset": shard.offset,
        "n_windows": shard.n_windows,
        "values": np.ascontiguousarray(shard.values),
        "mask": np.ascontiguousarray(shard.mask),
        "phase": shard.phase,
    }
    metadata = {
        "kind": KIND,
        "version": VERSION,
        "schema_sha256": schema.sha256,
        "episode_id": json.dumps(shard.episode_id),
    }
    # safetensors writes metadata in the order of a hash map; a single text keeps the bytes equal.
    content = safetensors.numpy.save(
        arrays, metadata={"cis490": json.dumps(metadata, sort_keys=True)}
    )
    files.write_bytes(path, content)


def read_tensors(path: StrPath, schema: Schema) -> TensorShard:
    """Read a shard made under `schema`.

    Raises:
        FormatError: the file is damaged, or of another kind or version.
        SchemaMismatch: it was made under another schema.
    """
    try:
        with safe_open(os.fspath(path), framework="numpy") as content:
            metadata = json.loads((content.metadata() or {}).get("cis490", "{}"))
            if metadata.get("kind") != KIND or metadata.get("version") != VERSION:
                raise FormatError(
                    f"{path}: kind {metadata.get('kind')} version {metadata.get('version')} is not "
                    f"{KIND} version {VERSION}: remove it and run the workflow again"
                )
            schema.require(metadata["schema_sha256"], os.fspath(path))
            arrays = {name: content.get_tensor(name) for name in content.keys()}  # noqa: SIM118
    except (SafetensorError, ValueError) as error:
        raise FormatError(
            f"{path}: not a readable tensor shard ({error}): remove it and run the workflow again"
        ) from None
    return TensorShard(episode_id=json.loads(metadata["episode_id"]), **arrays)
