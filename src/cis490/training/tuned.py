"""What a search of settings left: read by the training after it, and shown for config.yaml."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from cis490.channels import MODES
from cis490.errors import Cis490Error, FormatError
from cis490.files import read_json

KIND: Final = "cis490.tuning"
VERSION: Final = 1


def read_tuning(path: Path, *, architecture: str, mode: str, fit_sha256: str) -> dict[str, Any]:
    """Read what `training.search.tune` wrote for a model.

    Args:
        fit_sha256: of the split's training and val episodes. Settings that were chosen on other
            episodes may have been chosen on what is now test.

    Raises:
        FormatError: it is of another kind or version, of another model, or of other episodes.
    """
    content = read_json(path)
    told = [content.get(key) for key in ("kind", "version", "architecture", "mode", "fit_sha256")]
    if told != [KIND, VERSION, architecture, mode, fit_sha256]:
        raise FormatError(
            f"{path} is no search of {architecture} {mode} on this split's episodes: run "
            f"`cis490 tune {architecture} {mode}` again"
        )
    return dict(content)


def advice(folder: Path) -> str:
    """What the searches of a split chose, as it would stand in config.yaml.

    An architecture has the same settings in both modes, so the first mode that was searched
    decides, realistic before oracle; what the other found is told beside it.

    Args:
        folder: results/tuning/<split>.

    Raises:
        Cis490Error: nothing was searched.
    """
    found = [read_json(path) for path in sorted(Path(folder).glob("*.json"))]
    if not found:
        raise Cis490Error(f"{folder} holds no search: run `cis490 tune` first")
    n = {part: found[0][f"n_{part}"]["val"] for part in ("windows", "episodes")}
    lines = [f"# Chosen on val, {n['windows']:,} windows of {n['episodes']:,} episodes."]
    entries = []
    for architecture in dict.fromkeys(content["architecture"] for content in found):
        own = [content for content in found if content["architecture"] == architecture]
        own.sort(key=lambda content: list(MODES).index(content["mode"]))
        lines += [f"# {_line(content)}" for content in own]
        if parameters := own[0]["chosen"]["parameters"]:
            entries.append(f"  {architecture}: {told(parameters)}")
    lines += ["architectures:", *entries] if entries else ["architectures: {}"]
    return "\n".join(lines)


def told(parameters: dict[str, Any]) -> str:
    """Settings as a mapping in one line of YAML."""
    return "{" + ", ".join(f"{name}: {value}" for name, value in parameters.items()) + "}"


def _line(content: dict[str, Any]) -> str:
    chosen = content["chosen"]
    settings = f" {told(chosen['parameters'])}" if chosen["parameters"] else ""
    name = f"{content['architecture']} {content['mode']}, {content['n_trials']} trials"
    return f"{name}:{settings} {chosen['reason']}"
