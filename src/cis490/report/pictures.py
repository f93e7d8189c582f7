"""All pictures of the report, drawn once: as files, and for the page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from cis490.report import transferred
from cis490.report.blocks import Block
from cis490.report.card import phases
from cis490.report.forest import forest
from cis490.report.matrices import confusion, profile_map
from cis490.report.names import RANKS
from cis490.report.reliability import reliability
from cis490.report.results import Results
from cis490.report.since import recall_since_infection
from cis490.report.svg import Picture, write_picture
from cis490.report.timeline import pick, timeline


@dataclass(frozen=True)
class Drawn:
    """A picture as the page shows it.

    Attributes:
        title, caption, blocks: as `Picture` has them.
        svg: an SVG document; None if there is nothing to draw, and then `caption` says why.
    """

    title: str
    caption: str
    svg: str | None
    blocks: tuple[Block, ...] = ()

    @classmethod
    def write(cls, picture: Picture, path: Path) -> Drawn:
        """Write the picture as a file; one of words, if there is nothing to draw."""
        svg = write_picture(picture, path)
        shown = svg if picture.figure is not None else None
        return cls(picture.title, picture.caption, shown, picture.blocks)


def draw_split(
    results: Results,
    predictions: Sequence[Path],
    window: Mapping[str, float],
    folder: Path,
) -> dict[str, Drawn]:
    """Draw and write the pictures of a split: `names.split_pictures`.

    Args:
        results: of the split.
        predictions: of all models of all splits, <split>/<architecture>_<mode>.parquet.
        window: length_s and stride_s.
        folder: where they go.
    """
    leader = results.leader
    said = [
        path
        for path in map(Path, predictions)
        if leader and (path.parent.name, path.stem) == (results.name, "_".join(leader))
    ]
    alarms = results.files.get("alarms")
    shown = pick(results, alarms, said[0], window) if alarms and said else {}
    found = {
        "forest": forest(results),
        "transfer": transferred.picture(results),
        "profiles": profile_map(results),
        **{f"confusion_{mode}": confusion(results, mode) for mode in results.modes},
        "since_infection": recall_since_infection(results),
        **{f"timeline_{rank}": timeline(results, rank, shown.get(rank)) for rank in RANKS},
        "reliability": reliability(results),
        "phases": phases(results),
    }
    return {name: Drawn.write(picture, folder / f"{name}.svg") for name, picture in found.items()}
