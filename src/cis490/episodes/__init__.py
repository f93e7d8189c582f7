"""Episodes: the store and its index, verdicts, and telemetry as typed columns."""

from typing import Final

# Of an episode's file: `<host_id>/<episode_id>` and this.
SUFFIX: Final = ".tar.zst"
