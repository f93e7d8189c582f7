"""Tensor shards: the grid of each episode of a batch, once; windows are cut when a model asks."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
import safetensors.numpy
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from cis490 import files
from cis490.errors import FormatError
from cis490.files import StrPath, to_compact_json
from cis490.schema import Schema
from cis490.windows import codes
from cis490.windows.codes import Codes, Floats

KIND = "cis490.tensors"
VERSION = "2"


@dataclass(frozen=True)
class TensorShard:
    """The grids of n episodes one after another; S is the sum of their steps.

    Attributes:
        episode_id: n ids.
        offset: int64 (n + 1,); episode i is rows offset[i]:offset[i + 1], a row a step.
        n_windows: int64 (n,); window k of episode i starts at offset[i] + k * stride.
        codes: int16 (S, 46), `windows.codes.MISSING` where nothing was measured.
        scale, base: float32 (n, 46), what an episode's codes mean (`windows.codes.decode`).
        phase: int8 (S,), index into `channels.PHASES` of what held in the middle of each step.
    """

    episode_id: list[str]
    offset: NDArray[np.int64]
    n_windows: NDArray[np.int64]
    codes: Codes
    scale: Floats
    base: Floats
    phase: NDArray[np.int8]

    @classmethod
    def joined(cls, shards: Sequence[TensorShard]) -> TensorShard:
        """Several shards, at least one, as if all episodes had been in one."""
        n_steps = [np.diff(shard.offset) for shard in shards]
        return cls(
            [episode_id for shard in shards for episode_id in shard.episode_id],
            np.cumsum(np.concatenate([np.zeros(1, np.int64), *n_steps])),
            *(
                np.concatenate([getattr(shard, name) for shard in shards])
                for name in ("n_windows", "codes", "scale", "base", "phase")
            ),
        )

    def decoded(self) -> Floats:
        """The grids in model space (`windows.codes`): float32 (S, 46), NaN where missing."""
        n_steps = np.diff(self.offset)
        scale, base = (np.repeat(a, n_steps, axis=0) for a in (self.scale, self.base))
        return codes.decode(self.codes, scale, base)


def write_tensors(path: StrPath, shard: TensorShard, schema: Schema) -> None:
    """Write a shard as safetensors, whole or not at all."""
    arrays: dict[str, NDArray[Any]] = {
        "offset": shard.offset,
        "n_windows": shard.n_windows,
        "codes": shard.codes,
        "scale": shard.scale,
        "base": shard.base,
        "phase": shard.phase,
    }
    metadata = {
        "kind": KIND,
        "version": VERSION,
        "schema_sha256": schema.sha256,
        "episode_id": to_compact_json(shard.episode_id),
    }
    # safetensors writes metadata in the order of a hash map; a single text keeps the bytes equal.
    text = to_compact_json(metadata)
    with files.replacing(path) as partial:
        partial.touch()
        mode = partial.stat().st_mode
        # `save` would hold a copy in memory; this one makes files that only their owner may read.
        safetensors.numpy.save_file(arrays, partial, metadata={"cis490": text})
        partial.chmod(mode)


def read_tensors(path: StrPath, schema: Schema) -> TensorShard:
    """Read a shard made under `schema`.

    Raises:
        FormatError: the file is damaged, or of another kind or version.
        SchemaMismatch: it was made under another schema.
    """
    with _opened(path, schema) as (content, episode_id):
        names = ("offset", "n_windows", "codes", "scale", "base", "phase")
        return TensorShard(episode_id, *map(content.get_tensor, names))


def read_sizes(
    path: StrPath, schema: Schema, wanted: Sequence[str]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """How many steps and windows each of some episodes has, int64 (n,) both; no grid is read.

    Raises:
        FormatError: as `read_tensors`, or the shard lacks one of them.
        SchemaMismatch: as `read_tensors`.
    """
    with _opened(path, schema) as (content, episode_id):
        rows = _rows(path, episode_id, wanted)
        n_steps: NDArray[np.int64] = np.diff(content.get_tensor("offset"))
        return n_steps[rows], content.get_tensor("n_windows")[rows]


def read_episodes(path: StrPath, schema: Schema, wanted: Sequence[str]) -> Iterator[TensorShard]:
    """Read some episodes, each as a shard of its own; the grids of the others are not read.

    The codes of an episode are good until the next one is asked for: all are read into the same few
    kilobytes, which stay near the processor, and a caller copies what it wants from there.

    Raises:
        FormatError: as `read_tensors`, or the shard lacks one of them.
        SchemaMismatch: as `read_tensors`.
    """
    with _opened(path, schema) as (content, episode_id):
        small = ("offset", "n_windows", "scale", "base", "phase")
        offset, n_windows, scale, base, phase = map(content.get_tensor, small)
        scratch = np.empty((np.diff(offset).max(initial=0), scale.shape[1]), np.int16)
        with Path(path).open("rb", buffering=0) as file:
            begin = _begin(file, "codes")
            for i in _rows(path, episode_id, wanted):
                start, stop = int(offset[i]), int(offset[i + 1])
                codes: Codes = scratch[: stop - start]
                file.seek(begin + start * scratch.itemsize * scratch.shape[1])
                if file.readinto(codes.data) != codes.nbytes:
                    raise FormatError(f"{path} ends early: remove it and run the workflow again")
                yield TensorShard(
                    episode_id=[episode_id[i]],
                    offset=np.array([0, stop - start]),
                    n_windows=n_windows[i : i + 1],
                    codes=codes,
                    scale=scale[i : i + 1],
                    base=base[i : i + 1],
                    phase=phase[start:stop],
                )


def _begin(file: IO[bytes], name: str) -> int:
    """Where an array begins in a safetensors file: after the header, at the place told there."""
    n_header = int.from_bytes(file.read(8), "little")
    header = json.loads(file.read(n_header))
    begin: int = 8 + n_header + header[name]["data_offsets"][0]
    return begin


def _rows(path: StrPath, episode_id: list[str], wanted: Sequence[str]) -> list[int]:
    place = {name: i for i, name in enumerate(episode_id)}
    if lacking := [name for name in wanted if name not in place]:
        raise FormatError(f"{path} lacks episode {lacking[0]}: run the workflow again")
    return [place[name] for name in wanted]


@contextmanager
def _opened(path: StrPath, schema: Schema) -> Iterator[tuple[Any, list[str]]]:
    """A shard's arrays, of which none is read yet, and its episodes."""
    try:
        with safe_open(os.fspath(path), framework="numpy") as content:
            metadata = json.loads((content.metadata() or {}).get("cis490", "{}"))
            if metadata.get("kind") != KIND or metadata.get("version") != VERSION:
                raise FormatError(
                    f"{path}: kind {metadata.get('kind')} version {metadata.get('version')} is not "
                    f"{KIND} version {VERSION}: remove it and run the workflow again"
                )
            schema.require(metadata["schema_sha256"], os.fspath(path))
            yield content, json.loads(metadata["episode_id"])
    except (SafetensorError, ValueError) as error:
        raise FormatError(
            f"{path}: not a readable tensor shard ({error}): remove it and run the workflow again"
        ) from None
