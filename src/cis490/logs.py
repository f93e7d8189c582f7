"""What a job says and where: all of it in its log file, its milestones on the terminal too."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cis490.errors import Cis490Error
from cis490.files import StrPath

logger = logging.getLogger("cis490")

# Between INFO (the log file) and WARNING: what somebody who watches the terminal wants to see.
MILESTONE = 25


@contextmanager
def job(log_file: StrPath) -> Iterator[logging.Logger]:
    """Run a workflow job: log to `log_file`; end with one line and exit code 1 on a known error.

    An error of our own (`Cis490Error`) is written for a person and needs no traceback; any other
    exception leaves its traceback in the log and goes on to fail the job.
    """
    Path(log_file).parent.mkdir(parents=True, exist_ok=True)
    to_file = logging.FileHandler(log_file, mode="w", encoding="utf-8")
    to_file.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    to_terminal = logging.StreamHandler()
    to_terminal.setFormatter(logging.Formatter("%(message)s"))
    to_terminal.setLevel(MILESTONE)
    logging.addLevelName(MILESTONE, "MILESTONE")
    logger.setLevel(logging.INFO)
    logger.handlers[:] = [to_file, to_terminal]
    try:
        yield logger
    except Cis490Error as error:
        logger.error("error: %s", error)
        sys.exit(1)
    except Exception:
        logger.exception("failed")
        raise
    finally:
        to_file.close()
