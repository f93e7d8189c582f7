"""Settings: read, filled with defaults, checked. Every message names the key that is wrong."""

from __future__ import annotations

import copy
import difflib
import importlib.util
import math
from collections.abc import Iterator, Mapping
from contextlib import suppress
from datetime import UTC, date, datetime
from functools import cache
from pathlib import Path
from typing import Any, Final

import jsonschema
import yaml

from cis490.errors import ConfigError
from cis490.files import StrPath
from cis490.home import workflow_folder


def resolve(
    overrides: Mapping[str, Any],
    *,
    default_file: StrPath | None = None,
    working_directory: StrPath = ".",
) -> dict[str, Any]:
    """Fill in and check settings.

    Args:
        overrides: what the user says; mappings are merged into the defaults, lists replace them.
        default_file: the config.yaml beside the Snakefile; its relative paths are relative to it.
        working_directory: what relative paths in `overrides` are relative to.

    Returns:
        Every setting of schemas/config.schema.yaml, with absolute paths.

    Raises:
        ConfigError: a key is unknown, a value of the wrong type, or two settings disagree.
    """
    base: dict[str, Any] = {}
    if default_file is not None:
        base = read_yaml(default_file)
        _absolute(base, Path(default_file).resolve().parent)
    user = copy.deepcopy(dict(overrides))
    _absolute(user, Path(working_directory).resolve())
    config: dict[str, Any] = _numbers(merge(base, user), _schema())
    _times(config)
    _check_one_imbalance(config.get("training"))
    _check(config)
    _fill(config, _schema())
    _normalise_times(config)
    _check_imbalance_settings(config["training"])
    _check_architectures(config["architectures"])
    splits(config)
    _check_windows(config)
    return config


_MERGE: Final = "tag:yaml.org,2002:merge"


class _Loader(yaml.SafeLoader):
    """Refuses a key that stands twice in a mapping, of which YAML would silently drop the first."""

    def compose_mapping_node(self, anchor: str | None) -> yaml.MappingNode:
        # As it was written: merges (`<<`) come later, and may bring a key once more.
        node: yaml.MappingNode = super().compose_mapping_node(anchor)
        known: set[tuple[str, str]] = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode) or key.tag == _MERGE:
                continue
            if (key.tag, key.value) in known:
                line = key.start_mark.line + 1
                raise yaml.YAMLError(f"{key.value!r} stands twice, again in line {line}: keep one")
            known.add((key.tag, key.value))
        return node


def read_yaml(path: StrPath) -> dict[str, Any]:
    """Read a YAML mapping.

    Raises:
        ConfigError: the file is missing, is not YAML, or is not a mapping.
    """
    try:
        content = yaml.load(Path(path).read_text(), _Loader)
    except OSError as error:
        raise ConfigError(f"cannot read the config {path}: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is not text in UTF-8: {error.reason}") from None
    except yaml.YAMLError as error:
        raise ConfigError(f"{path} is not YAML: {' '.join(str(error).split())}") from None
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise ConfigError(f"{path} must hold settings (key: value), not a {type(content).__name__}")
    return content


@cache
def _schema() -> dict[str, Any]:
    return read_yaml(workflow_folder() / "schemas/config.schema.yaml")


def _absolute(config: dict[str, Any], base: Path) -> None:
    for key in ("store", "store_pin"):
        if isinstance(config.get(key), str):
            config[key] = str(base / Path(config[key]).expanduser())


def merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """`base` with what `over` says in its place; mappings are merged, lists replaced."""
    merged = copy.deepcopy(dict(base))
    for key, value in over.items():
        both = isinstance(value, Mapping) and isinstance(merged.get(key), Mapping)
        merged[key] = merge(merged[key], value) if both else copy.deepcopy(value)
    return merged


def _numbers(value: Any, schema: Mapping[str, Any]) -> Any:
    """Read text as a number, or as true or false, where only that will do.

    Snakemake hands on what stands inside braces as text: `--config 'training={epochs: 3}'`.
    """
    parts = _parts(schema)
    if isinstance(value, dict):
        known = {k: inner for part in parts for k, inner in part.get("properties", {}).items()}
        others = [part.get("additionalProperties") for part in parts]
        other: Mapping[str, Any] = next((o for o in others if isinstance(o, dict)), {})
        return {k: _numbers(v, known.get(k, other)) for k, v in value.items()}
    if isinstance(value, list):
        items: Mapping[str, Any] = next((p["items"] for p in parts if "items" in p), {})
        return [_numbers(item, items) for item in value]
    types = {kind for part in parts for kind in _as_list(part.get("type", []))}
    if types == {"boolean"} and value in ("true", "True", "false", "False"):
        return value in ("true", "True")
    if not isinstance(value, str) or not types or not types <= {"number", "integer", "null"}:
        return value
    if value == "null" and "null" in types:
        return None
    for number in (int, float):
        with suppress(ValueError):
            return number(value)
    return value


def _parts(schema: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """A schema and what it refers to by $ref, allOf and anyOf, as far as our own one uses them."""
    found = [schema]
    for part in found:
        if "$ref" in part:
            found.append(_schema()["$defs"][part["$ref"].removeprefix("#/$defs/")])
        found.extend((*part.get("allOf", ()), *part.get("anyOf", ())))
    return found


def _as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _check(config: Mapping[str, Any]) -> None:
    _check_finite(config, "")
    validator = jsonschema.Draft202012Validator(_schema())
    errors = sorted(validator.iter_errors(config), key=lambda error: list(map(str, error.path)))
    if not errors:
        return
    error = jsonschema.exceptions.best_match(errors)
    where = ".".join(map(str, error.absolute_path)) or "config"
    if error.validator == "additionalProperties":
        known = sorted(error.schema["properties"])
        unknown = next(str(key) for key in error.instance if key not in known)
        key = unknown if where == "config" else f"{where}.{unknown}"
        close = difflib.get_close_matches(unknown, known, n=1)
        hint = f"did you mean {close[0]}?" if close else f"known here: {', '.join(known)}"
        raise ConfigError(f"config: unknown key {key}; {hint}")
    reasons = [each.message for each in error.context] or [error.message]
    raise ConfigError(f"config: {where}: {'; '.join(reasons)}")


def _check_one_imbalance(training: Any) -> None:
    told = training.get("imbalance") if isinstance(training, Mapping) else None
    if isinstance(told, list | Mapping):
        raise ConfigError(
            f"config: training.imbalance: {', '.join(map(str, told))}: choose one; each makes up "
            "for rare phases by itself, and two together would do so twice"
        )


# Settings that belong to one way of treating imbalance, with that way's name.
_OF_IMBALANCE = {"focal_gamma": "focal", "label_smoothing": "smoothing"}


def _check_imbalance_settings(training: Mapping[str, Any]) -> None:
    defaults = _schema()["properties"]["training"]["properties"]
    for key, way in _OF_IMBALANCE.items():
        if training["imbalance"] != way and training[key] != defaults[key]["default"]:
            raise ConfigError(
                f"config: training.{key} is of imbalance: {way}, but training.imbalance is "
                f"{training['imbalance']}: choose one, for two together would count twice"
            )


def _check_architectures(architectures: Mapping[str, Any]) -> None:
    """Refuse settings that are one for all; the architectures themselves check their options."""
    own = _schema()["$defs"]["architecture"]["properties"]
    shared = set(_schema()["properties"]["training"]["properties"]) - set(own)
    for name, settings in architectures.items():
        for key in sorted(shared & set(settings)):
            raise ConfigError(
                f"config: architectures.{name}.{key} is one for all architectures: set "
                f"training.{key}"
            )


def _check_finite(value: Any, where: str) -> None:
    if isinstance(value, float) and not math.isfinite(value):
        raise ConfigError(f"config: {where.lstrip('.')}: {value} is no number")
    inner = value.items() if isinstance(value, Mapping) else ()
    for key, item in inner if not isinstance(value, list) else enumerate(value):
        _check_finite(item, f"{where}.{key}")


def _fill(value: Any, schema: Mapping[str, Any]) -> None:
    """Fill defaults in place."""
    for part in _parts(schema):
        for key, inner in part.get("properties", {}).items():
            if not isinstance(value, dict):
                continue
            if key not in value and "default" in inner:
                value[key] = copy.deepcopy(inner["default"])
            # An extra split takes what it leaves out from `split`, so its items are not filled.
            if key in value and key != "extra_splits":
                _fill(value[key], inner)


def _times(config: Mapping[str, Any]) -> None:
    """Write in place a time that YAML has read as text again, and a null that is text as none."""
    for _, split in _named_splits(config):
        value = split.get("as_of")
        if isinstance(value, date):  # a datetime is one too
            split["as_of"] = value.isoformat()
        elif value == "null":
            split["as_of"] = None


def _normalise_times(config: Mapping[str, Any]) -> None:
    """Check each `as_of` and write it in UTC: the same moment otherwise written changes nothing."""
    for where, split in _named_splits(config):
        text = split.get("as_of")
        if text is None:
            continue
        example = "2026-11-01T06:00:00Z or 2026-11-01T07:00:00+01:00"
        try:
            time = datetime.fromisoformat(text)
            utc = time.astimezone(UTC)
        except (ValueError, OverflowError):
            raise ConfigError(
                f"config: {where}.as_of: {text!r} is no time in ISO 8601, such as {example}"
            ) from None
        if time.tzinfo is None:
            raise ConfigError(
                f"config: {where}.as_of: {text} names no time zone: write it such as {example}"
            )
        split["as_of"] = utc.isoformat().replace("+00:00", "Z")


def _named_splits(config: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    extra = config.get("extra_splits")
    listed = enumerate(extra) if isinstance(extra, list) else ()
    named = [("split", config.get("split")), *((f"extra_splits.{i}", each) for i, each in listed)]
    yield from ((where, split) for where, split in named if isinstance(split, dict))


def as_of_ns(split: Mapping[str, Any]) -> int | None:
    """The time (Unix, ns) after which episodes are not trained on; None: there is no such time.

    Args:
        split: one of `splits`; it may lack the setting.
    """
    if split.get("as_of") is None:
        return None
    since = datetime.fromisoformat(split["as_of"]) - datetime(1970, 1, 1, tzinfo=UTC)
    return ((since.days * 86400 + since.seconds) * 10**6 + since.microseconds) * 1000


def require_optuna(config: Mapping[str, Any]) -> None:
    """Check that what `tune` asks for is installed.

    Raises:
        ConfigError: it is not.
    """
    if config["tune"] and importlib.util.find_spec("optuna") is None:
        raise ConfigError(
            "config: tune is true, but Optuna is not installed here: "
            "pip install 'cis490[tune]', or set tune to false"
        )


def splits(config: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The primary split and the extra ones, complete and each with its name.

    Raises:
        ConfigError: a host is both trained and tested on, or two splits share a name.
    """
    named: list[dict[str, Any]] = []
    for i, extra in enumerate([{}, *config["extra_splits"]]):
        split = {**config["split"], **extra}
        split["name"] = split["name"] or split["recipe"]
        where = "split" if i == 0 else f"extra_splits.{i - 1}"
        if split["recipe"] == "host":
            both = sorted(set(split["train_hosts"]) & set(split["test_hosts"]))
            if both:
                raise ConfigError(
                    f"config: {where}.test_hosts: {both[0]} is also in train_hosts; "
                    "a host is trained on or tested on, never both"
                )
        if split["name"] in [earlier["name"] for earlier in named]:
            raise ConfigError(f"config: {where}.name: {split['name']} is taken by another split")
        named.append(split)
    return named


def _check_windows(config: Mapping[str, Any]) -> None:
    hz = config["grid"]["hz"]
    for key in ("length_s", "stride_s"):
        steps = config["window"][key] * hz
        if steps < 1 or abs(steps - round(steps)) > 1e-9:
            raise ConfigError(
                f"config: window.{key}: {config['window'][key]} s is {steps:g} steps at "
                f"grid.hz {hz}; it must be a whole number of steps"
            )
    if config["window"]["length_s"] * hz < 3:
        raise ConfigError("config: window.length_s: a window needs at least 3 grid steps")
