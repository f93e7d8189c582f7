"""A working directory to run on one's own episodes, with nothing of the workflow in it to edit."""

from __future__ import annotations

import shutil
from collections import Counter
from pathlib import Path
from typing import Any, Final

import yaml

from cis490 import files
from cis490.episodes.store import read_index
from cis490.errors import Cis490Error
from cis490.home import workflow_folder

_SNAKEFILE: Final = '''\
"""The workflow of the cis490 that is installed beside snakemake, on what config.yaml says."""

from cis490.home import workflow_folder


configfile: "config.yaml"


include: str(workflow_folder() / "Snakefile")


rule everything:
    default_target: True
    input:
        rules.all.input,
'''
_HEADER: Final = """\
# What this folder runs on. Set what has no # before it: the store, and which hosts are trained and
# tested on. Below and between them stands every other setting with its default and why; to change
# one, remove the # before it and before the name it belongs to.
# Paths are relative to this folder.
"""
_TO_SET: Final = ("store", "split", "train_hosts", "test_hosts")


def init(folder: Path, store: Path | None = None) -> dict[str, Any]:
    """Set up a working directory: config.yaml, Snakefile and profiles.

    Args:
        folder: is made if need be; may hold other files.
        store: goes into config.yaml; the hosts too then: of several, the one with the fewest
            episodes is held out, as a first guess.

    Returns:
        What was set: store, train_hosts and test_hosts.

    Raises:
        Cis490Error: a file to be written is there already; then nothing is written. Or the folder
            cannot be written to.
        StoreError: `store` is none.
    """
    for name in ("Snakefile", "config.yaml", "profiles"):
        if (folder / name).exists():
            raise Cis490Error(
                f"{folder / name} is there already, and is not overwritten: choose another folder, "
                "or remove it"
            )
    chosen = _chosen(store)
    defaults = (workflow_folder() / "config.yaml").read_text()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copytree(workflow_folder() / "profiles", folder / "profiles")
        files.write_text(folder / "config.yaml", settings(defaults, chosen))
        files.write_text(folder / "Snakefile", _SNAKEFILE)
    except OSError as error:
        raise Cis490Error(
            f"{folder} cannot be set up ({error.strerror}): choose another folder"
        ) from None
    return chosen


def settings(defaults: str, chosen: dict[str, Any]) -> str:
    """The text of config.yaml with all settings as comments but those that must be set.

    Args:
        defaults: the text of the default config.yaml.
        chosen: values of store, train_hosts and test_hosts.
    """
    header, _, body = defaults.partition("\n\n")
    if not all(line.startswith("#") for line in header.splitlines()):
        body = defaults
    return f"{_HEADER}\n" + "\n".join(_line(line, chosen) for line in body.splitlines()) + "\n"


def _line(line: str, chosen: dict[str, Any]) -> str:
    key, colon, _ = line.partition(":")
    name = key.strip()
    if not line.strip() or name.startswith("#"):
        return line
    if not colon or name not in _TO_SET:
        return f"#{line}"
    if name not in chosen:
        return line
    value = yaml.safe_dump(chosen[name], default_flow_style=True, width=10**6).split("\n...")[0]
    comment = line.partition(" # ")[2]
    return f"{key}: {value.strip()}{f' # {comment}' if comment else ''}"


def _chosen(store: Path | None) -> dict[str, Any]:
    if store is None:
        return {"store": "/path/to/episodes", "train_hosts": [], "test_hosts": []}
    records = [record for record in read_index(store).records if record.problem is None]
    counts = Counter(record.content["host_id"] for record in records)
    hosts = [host_id for host_id, _ in sorted(counts.items(), key=lambda item: (-item[1], item[0]))]
    n_held_out = 1 if len(hosts) > 1 else 0
    return {
        "store": str(store.resolve()),
        "train_hosts": sorted(hosts[: len(hosts) - n_held_out]),
        "test_hosts": hosts[len(hosts) - n_held_out :],
    }
