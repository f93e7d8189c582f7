"""What lies in results/ and no current config refers to: which files, and how to be rid of them.

Only files that a stage is known to write are ever removed; a test holds the list against the rules.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from cis490 import runlock
from cis490.channels import MODES
from cis490.config import resolve, splits
from cis490.episodes.plan import read_store
from cis490.errors import Cis490Error
from cis490.robustness.conditions import conditions
from cis490.transfer import SIDES

# Every file that a stage writes and that is of a batch, a split or a model. Where the first folder
# is the name of a stage that settings can leave out, its files are referred to only with it.
KNOWN: Final = """
    plan/batches/{batch}.json
    verdicts/{batch}.parquet
    telemetry/{batch}/{table}.parquet
    features/{batch}.parquet
    tensors/{batch}.safetensors
    windows/{split}/{reach}.json
    splits/fit/{split}.parquet
    splits/known/{split}.parquet
    splits/{split}.parquet
    splits/{split}.json
    tuning/{split}/{model}.json
    models/{split}/summary.json
    models/{split}/{model}/model.json
    models/{split}/{model}/weights.safetensors
    models/{split}/{model}/history.parquet
    models/{split}/{model}/collapse_report.json
    models/{split}/{model}/training_metadata.json
    tensorboard/{split}/{model}/{anything}
    profile/{split}/{model}/{anything}
    oof/{split}/{model}.parquet
    predictions/{split}/{model}.parquet
    predictions/{split}/{model}_latency.json
    eval/{split}/{model}_eval.json
    eval/{split}/{evaluated}.parquet
    transfer/{split}/{side}/{learner}.parquet
    transfer/{split}/transfer.parquet
    probes/{split}/probes.parquet
    perturbed/{split}/episodes.parquet
    perturbed/{split}/features/{condition}.parquet
    perturbed/{split}/tensors/{condition}.safetensors
    robustness/{split}/{detector}.parquet
    robustness/{split}/robustness.parquet
    report/curves_{split}.svg
    report/pictures/{split}/{picture}.svg
    {noted}/{of_batches}/{batch}.{note}
    {noted}/{of_splits}/{split}.{note}
    {noted}/{of_models}/{split}/{model}.{note}
    {noted}/transfer/{split}/{side}/{learner}.{note}
    {noted}/manifest/{split}/{reach}.{note}
    cache/training/{split}/{model}/{state}.pt
    cache/learning_rate/{key}.json
""".split()
# What stages wrote before and no longer do: nothing refers to it.
FORMER: Final = """
    transfer/{split}/{learner}.parquet
    {noted}/transfer/{split}/{learner}.{note}
    robustness/{split}/{company}.parquet
""".split()
OPTIONAL: Final = ("tensorboard", "profile", "tuning", "transfer", "probes", "robustness")
_STAGE: Final = {"perturbed": "robustness"}  # of a first folder with another name

_DETECTORS, _COMPANY = (resolve({})[part] for part in ("models", "baselines"))
_WILDCARDS: Final = {
    "batch": r"[A-Za-z0-9][A-Za-z0-9._-]*-\d{5,}(?:\+\d+)?",
    "split": r"[A-Za-z0-9][A-Za-z0-9_-]*",
    "model": f"(?:{'|'.join(_DETECTORS + _COMPANY)})_(?:{'|'.join(MODES)})",
    "detector": f"(?:{'|'.join(_DETECTORS)})_(?:{'|'.join(MODES)})",
    "company": f"(?:{'|'.join(_COMPANY)})_(?:{'|'.join(MODES)})",
    "side": "|".join(SIDES),
    "reach": "fit|known|all",
    "learner": f"(?:gbt|network)_(?:{'|'.join(MODES)})",
    "table": "episodes|labels|proc|qmp|guest|netflow|exec",
    "evaluated": "metrics|pairwise|detection|alarms|calibration|reliability",
    "condition": "[a-z_]+(?:_[0-9.e+-]+)?",
    "picture": "[a-z_]+",
    "noted": "logs|benchmarks",
    "note": "log|tsv",
    "of_batches": "ingest|windows",
    "of_splits": "fit|known|split|summarise|evaluate|detection|calibration|curves|perturb|repredict"
    "|robustness|probes|transferred",
    "of_models": "tune|train|out_of_fold|predict",
    "state": "seed-[0-9]+",
    "key": "[0-9a-f]{64}",
    "anything": ".+",
}
# What a killed writer left beside a file, or within a folder of pieces (files.py).
_PIECE: Final = re.compile(r"(?:.*/)?(?:\.[^/]+\.\d+\.partial|\.pieces\.\d+\.scratch/.+)")
_PIECE_AGE_S: Final = 24 * 3600
_NAMED: Final = 4  # things that a line of the summary names
_NAMING: Final = ("batch", "model", "detector", "learner")


def _pattern(template: str) -> re.Pattern[str]:
    named: set[str] = set()
    pieces = re.split(r"\{(\w+)\}", template)
    for i in range(1, len(pieces), 2):
        name = pieces[i]
        pieces[i] = f"(?P={name})" if name in named else f"(?P<{name}>{_WILDCARDS[name]})"
        named.add(name)
    for i in range(0, len(pieces), 2):
        pieces[i] = re.escape(pieces[i])
    return re.compile("".join(pieces))


_FORMER: Final = [_pattern(template) for template in FORMER]
_PATTERNS: Final = [*(_pattern(template) for template in KNOWN), *_FORMER]


def recognise(path: str) -> dict[str, str] | None:
    """What a file of results/ is of (batch, split, model, …); None of a file that is not ours.

    Args:
        path: relative to results/.
    """
    for pattern in _PATTERNS:
        if found := pattern.fullmatch(path):
            return found.groupdict()
    return None


@dataclass(frozen=True)
class Referred:
    """What one config refers to."""

    batches: frozenset[str]
    splits: frozenset[str]
    models: frozenset[str]
    learners: frozenset[str]
    conditions: frozenset[str]
    stages: frozenset[str]
    rate_hours: float

    @classmethod
    def by(cls, config: Mapping[str, Any]) -> Referred:
        """What a resolved config refers to; its store is looked at, as for a run.

        Raises:
            StoreError: it cannot be.
        """
        modes = config["modes"]
        networks = set(config["models"]) - {"gbt"}
        learners = {f"gbt_{mode}" for mode in modes if "gbt" in config["models"]}
        learners |= {f"network_{modes[0]}"} if networks else set()
        on = {
            "tensorboard": config["training"]["tensorboard"],
            "profile": config["training"]["profile"],
            "tuning": config["tune"],
            "transfer": config["transfer"]["run"],
            "probes": config["probes"],
            "robustness": config["robustness"]["run"],
        }
        return cls(
            batches=frozenset(manifest["batch"] for manifest in read_store(config)[0]),
            splits=frozenset(split["name"] for split in splits(config)),
            models=frozenset(
                f"{name}_{mode}"
                for name in [*config["models"], *config["baselines"]]
                for mode in modes
            ),
            learners=frozenset(learners),
            conditions=frozenset(each.name for each in conditions(config["robustness"])),
            stages=frozenset(stage for stage, run in on.items() if run),
            rate_hours=config["training"]["rate_cache_hours"],
        )

    def to(self, path: str, of: Mapping[str, str], age_s: float) -> bool:
        """Whether it refers to a file.

        Args:
            path: relative to results/.
            of: what it is of, as `recognise` says.
            age_s: seconds since it was written.
        """
        top = path.partition("/")[0]
        stage = _STAGE.get(top, top)
        if stage in OPTIONAL and stage not in self.stages:
            return False
        if any(pattern.fullmatch(path) for pattern in _FORMER):
            return False
        if "key" in of:
            return age_s < self.rate_hours * 3600
        sets = {
            "batch": self.batches,
            "split": self.splits,
            "model": self.models,
            "detector": self.models,
            "learner": self.learners,
            "condition": self.conditions,
        }
        return all(of[name] in there for name, there in sets.items() if name in of)


@dataclass
class Leftovers:
    """Files below results/ that nothing refers to.

    Attributes:
        results: the folder.
        files: each path relative to it, with its bytes, in order.
        unknown: files that no stage is known to write; they stay.
    """

    results: Path
    files: dict[str, int] = field(default_factory=dict)
    unknown: list[str] = field(default_factory=list)

    @property
    def n_bytes(self) -> int:
        """Bytes of all of them."""
        return sum(self.files.values())

    def summary(self) -> list[str]:
        """A line for each kind and split: bytes, files, and what they are of."""
        groups: dict[str, list[str]] = {}
        for path in self.files:
            of = recognise(path) or {}
            parts = [path.split("/")[0], *([of["split"]] if "split" in of else [])]
            groups.setdefault("/".join(parts), []).append(path)
        lines = []
        for group, paths in groups.items():
            found = [recognise(path) or {} for path in paths]
            names = sorted(
                {next((of[name] for name in _NAMING if name in of), "") for of in found} - {""}
            )
            shown = ", ".join(names[:_NAMED])
            more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
            size = as_text(sum(self.files[path] for path in paths))
            told = f"  ({shown}{more})" if names else ""
            lines.append(f"{size:>9}  {len(paths):5,} files  {self.results / group}{told}")
        return lines


def leftovers(results: Path, configs: Sequence[Mapping[str, Any]]) -> Leftovers:
    """Find what no config refers to; nothing is removed, and links are not followed.

    Args:
        results: the folder that runs of all these configs share.
        configs: resolved configs, at least one.

    Raises:
        Cis490Error: there is no such folder, or the configs are not those that filled it.
        StoreError: the store of one cannot be read.
    """
    if not results.is_dir():
        raise Cis490Error(f"{results}: no such folder; name the one to clean with --results")
    referred = [Referred.by(config) for config in configs]
    found = Leftovers(results)
    seen: dict[str, set[str]] = {"batch": set(), "split": set()}
    now = time.time()
    for path, file in _files(results):
        status = file.stat()
        age_s = now - status.st_mtime
        if _PIECE.fullmatch(path):
            if age_s > _PIECE_AGE_S:
                found.files[path] = status.st_size
            continue
        of = recognise(path)
        if of is None:
            found.unknown.append(path)
            continue
        for name, names in seen.items():
            if name in of and path.startswith(("telemetry/", "models/")):
                names.add(of[name])
        if not any(each.to(path, of, age_s) for each in referred):
            found.files[path] = status.st_size
    _require_ours(results, seen, referred)
    return found


def _require_ours(
    results: Path, seen: Mapping[str, set[str]], referred: Sequence[Referred]
) -> None:
    """With the wrong config everything would be a leftover, and trainings are dear."""
    for name, there in (
        ("batch", {batch for each in referred for batch in each.batches}),
        ("split", {split for each in referred for split in each.splits}),
    ):
        if seen[name] and not seen[name] & there:
            raise Cis490Error(
                f"{results} holds nothing of these settings: its {name} is "
                f"{', '.join(sorted(seen[name])[:_NAMED])}, theirs is "
                f"{', '.join(sorted(there)[:_NAMED])}; name the config that made it with "
                "--configfile, or remove the folder by hand"
            )


def _files(results: Path) -> Iterator[tuple[str, Path]]:
    for folder, folders, names in os.walk(results, followlinks=False):
        folders.sort()
        for name in sorted(names):
            file = Path(folder, name)
            if file.is_file() and not file.is_symlink():
                yield str(file.relative_to(results)), file


def remove(found: Leftovers) -> int:
    """Remove leftovers and the folders that are empty then.

    Returns:
        Bytes freed.

    Raises:
        Cis490Error: a run is alive in the working directory, or a file cannot be removed.
    """
    snakemake = found.results.absolute().parent / ".snakemake"
    lock = runlock.keep_out(snakemake) if snakemake.is_dir() else None
    if snakemake.is_dir() and lock is None:
        raise Cis490Error(
            f"a run is alive in {snakemake.parent}: nothing was removed; wait for its end"
        )
    freed = 0
    try:
        for path, size in found.files.items():
            try:
                (found.results / path).unlink()
            except FileNotFoundError:
                continue
            except OSError as error:
                raise Cis490Error(
                    f"{found.results / path} cannot be removed ({error.strerror}); "
                    f"{as_text(freed)} freed before"
                ) from None
            freed += size
        _remove_empty(found.results, found.files)
    finally:
        if lock is not None:
            lock.close()
    return freed


def _remove_empty(results: Path, paths: Iterable[str]) -> None:
    folders = {parent for path in paths for parent in Path(path).parents} - {Path()}
    for folder in sorted(folders, key=lambda each: len(each.parts), reverse=True):
        try:
            (results / folder).rmdir()
        except OSError:  # not empty, or gone
            continue


def as_text(n_bytes: float) -> str:
    """Bytes for people: 12 B, 3.4 MB, in powers of 1000."""
    for unit in ("B", "kB", "MB", "GB"):
        if n_bytes < 1000:
            return f"{n_bytes:.0f} {unit}" if unit == "B" else f"{n_bytes:.1f} {unit}"
        n_bytes /= 1000
    return f"{n_bytes:.1f} TB"
