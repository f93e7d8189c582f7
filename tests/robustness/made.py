"""Episodes made to order, as telemetry."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import polars as pl

from cis490.channels import SAMPLED, of_source
from cis490.episodes import tarball
from cis490.episodes.telemetry import Episode, collect
from cis490.episodes.validate import examine_file
from tests.builders import Members, lines, members_of, pack

PHASES = ((0, "clean"), (4, "armed"), (10, "infecting"), (14, "infected_running"))


def lively(members: Members) -> Members:
    """Rates and levels that rise in the course of the episode, where the builders' are constant."""
    changed = dict(members)
    for source in SAMPLED:
        rows = [json.loads(line) for line in members[f"{source}.jsonl"].splitlines()]
        for j, row in enumerate(rows):
            for channel in of_source(source):
                row[channel.name] += j * j
        changed[f"{source}.jsonl"] = lines(rows)
    return changed


def episodes_of(folder: Path, *episodes: dict[str, Any]) -> list[Episode]:
    """Decoded episodes, each as `builders.members_of` is told, or of `members`."""
    found = []
    for told in episodes:
        options = {"phases": PHASES, "duration_s": 30.0, **told}
        members = options.pop("members", None) or lively(members_of(**options))
        path = folder / "store" / options.get("host_id", "alder") / f"{told['episode_id']}.tar.zst"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(pack(members))
        verdict, episode = examine_file(path, tarball.Limits())
        assert episode is not None, verdict.faults
        found.append(episode)
    return found


def telemetry_of(folder: Path, *episodes: dict[str, Any]) -> dict[str, pl.DataFrame]:
    """Telemetry of such episodes."""
    return collect(episodes_of(folder, *episodes))
