"""What a job says and where: all of it in its log file, its milestones on the terminal too."""

from __future__ import annotations

import logging
import math
import os
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from cis490.errors import Cis490Error
from cis490.files import StrPath

logger = logging.getLogger("cis490")

# Between INFO (the log file) and WARNING: what somebody who watches the terminal wants to see.
MILESTONE: Final = 25
logging.addLevelName(MILESTONE, "MILESTONE")

# Set where a live view shows the last line of each job's log, so that jobs need not.
WATCHED: Final = "CIS490_WATCHED"

_QUIET_S = 5.0
_ERASE: Final = "\x1b[K"  # from the cursor to the end of the line


class Terminal(logging.StreamHandler):
    """Shows milestones, and of the rest one line each few seconds, so that long work is seen.

    Under a live view of the run, milestones alone.

    Args:
        job: whose lines they are, told for jobs that run side by side.
    """

    def __init__(self, job: str) -> None:
        super().__init__()
        self.job = job
        self._quiet_s = math.inf if os.environ.get(WATCHED) else _QUIET_S
        self._next = time.monotonic() + self._quiet_s

    def emit(self, record: logging.LogRecord) -> None:
        """Write the record if it is a milestone, or if nothing was written for a while."""
        now = time.monotonic()
        if record.levelno >= MILESTONE or now >= self._next:
            self._next = now + self._quiet_s
            super().emit(record)

    def format(self, record: logging.LogRecord) -> str:
        """The message; what is no milestone says whose it is, for jobs run side by side."""
        text = record.getMessage()
        return text if record.levelno >= MILESTONE else f"{self.job}: {text}"


class LiveTerminal(logging.StreamHandler):
    """Shows milestones, and under them the latest of all other messages, on one line rewritten.

    For a terminal that no other job writes to; `close` takes the line away.
    """

    _shown = False  # whether the line is there

    def emit(self, record: logging.LogRecord) -> None:
        """Write a milestone to stay, anything else until the next record comes."""
        self._clear()
        text = record.getMessage()
        if record.levelno >= MILESTONE:
            self.stream.write(f"{text}\n")
        else:
            self.stream.write(text[: shutil.get_terminal_size().columns - 1])
            self._shown = True
        self.flush()

    def close(self) -> None:
        """Take the line away."""
        self._clear()
        super().close()

    def _clear(self) -> None:
        if self._shown:
            self.stream.write(f"\r{_ERASE}")
            self.flush()
            self._shown = False


@contextmanager
def job(log_file: StrPath) -> Iterator[logging.Logger]:
    """Run a workflow job: log to `log_file`; end with one line and exit code 1 on a known error.

    An error of our own (`Cis490Error`) is written for a person and needs no traceback; any other
    exception leaves its traceback in the log and goes on to fail the job. A job that Snakemake
    counts as one that uses a GPU begins when it has a card.
    """
    path = Path(log_file)
    path.parent.mkdir(parents=True, exist_ok=True)
    to_file = logging.FileHandler(path, mode="w", encoding="utf-8")
    to_file.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    logger.setLevel(logging.INFO)
    logger.handlers[:] = [to_file, Terminal("/".join(path.with_suffix("").parts[-2:]))]
    try:
        _claim_card()
        yield logger
    except Cis490Error as error:
        logger.error("error: %s", error)
        sys.exit(1)
    except Exception:
        logger.exception("failed")
        raise
    finally:
        to_file.close()


def _claim_card() -> None:
    # Snakemake puts `snakemake` into the script that it runs. Taken from there, because a script's
    # text counts as code of what it makes: to hand it on there would train every model again.
    told = getattr(sys.modules["__main__"], "snakemake", None)
    if told is not None and told.resources.get("gpu", 0):
        from cis490 import gpus

        gpus.claim(told.config["training"]["gpu_slots"])
