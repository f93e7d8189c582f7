"""Where the workflow's files are: at the top of a clone, or within the installed package."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from cis490.errors import Cis490Error

_PACKAGE: Final = Path(__file__).resolve().parent
_PLACES: Final = (_PACKAGE.parents[1], _PACKAGE / "_workflow")


def workflow_folder() -> Path:
    """The folder of Snakefile, rules, schemas, profiles, envs and config.yaml.

    Raises:
        Cis490Error: the installation is not whole.
    """
    for place in _PLACES:
        if (place / "rules/common.smk").exists():
            return place
    raise Cis490Error(
        f"the workflow's files are missing: looked in {' and '.join(map(str, _PLACES))}; "
        "install cis490 again"
    )
