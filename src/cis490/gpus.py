"""Which card a job computes on: Snakemake counts GPUs, but it never says whose is which.

A job that was given a GPU takes a slot of a card before torch looks for one, and keeps it until its
process ends, however it ends. A slot is a name that the kernel gives to one process of the machine
at a time (an abstract Unix socket), so runs of several people in several folders share cards too,
and no file is left to be stale.
"""

from __future__ import annotations

import os
import re
import socket
import subprocess
import time
from pathlib import Path
from typing import Final

from cis490.logs import MILESTONE, logger

ON_CPU: Final = ("gbt", "logistic", "threshold")  # architectures that never use a card

_VARIABLE: Final = "CUDA_VISIBLE_DEVICES"
_PREFIX: Final = "cis490.gpu"
_POLL_S = 1.0
_LIST = ("nvidia-smi", "-L")  # names that CUDA itself takes, whatever the order of the cards
_held: list[socket.socket] = []  # for as long as the process lives


def claim(slots: int) -> str | None:
    """Take a slot of a card that has one free, and make it the only card that CUDA will see.

    Waits until there is one. To be called before torch or XGBoost first asks for a device.

    Args:
        slots: how many processes may use one card at once (`training.gpu_slots`).

    Returns:
        The card, as CUDA_VISIBLE_DEVICES has it now; None where there is nothing to choose: no
        card, or CUDA_VISIBLE_DEVICES already names a single one, as SLURM sets it.
    """
    names = cards()
    if not names:
        return None
    waiting = False
    while True:
        # The first slot of each card before the second of any: jobs spread before they share.
        for slot in range(slots):
            for name in names:
                if _take(f"{_scope()}{name}/{slot}"):
                    os.environ[_VARIABLE] = name
                    logger.info("computes on %s, slot %d of %d", name, slot + 1, slots)
                    return name
        if not waiting:
            waiting = True
            logger.log(MILESTONE, "waits for a GPU: %d, each in use by %d jobs", len(names), slots)
        time.sleep(_POLL_S)


def cards() -> list[str]:
    """The cards that this process may choose from; none where the choice is made already.

    Of several that CUDA_VISIBLE_DEVICES names, one is chosen; where it is not set, of all that the
    driver lists. Parts of a divided card (MIG) count as cards.
    """
    if (told := os.environ.get(_VARIABLE)) is not None:
        named = [name.strip() for name in told.split(",")]
        return named if len(named) > 1 else []
    try:
        listed = subprocess.run(_LIST, capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        return []
    return _names(listed.stdout)


def taken() -> list[str]:
    """The slots that are in use on this machine, `<card>/<slot>`."""
    try:
        sockets = Path("/proc/net/unix").read_text()
    except OSError:
        return []
    return sorted(set(re.findall(rf"@{re.escape(_PREFIX)}\.(\S+)", sockets)))


def _names(listed: str) -> list[str]:
    """UUIDs in the output of `nvidia-smi -L`; of a divided card those of its parts."""
    names: list[str] = []
    for kind, uuid in re.findall(r"\(UUID: (GPU|MIG)-([^)\s]+)\)", listed):
        if kind == "MIG" and names and names[-1].startswith("GPU"):
            names.pop()  # the card that it is a part of, listed just before
        names.append(f"{kind}-{uuid}")
    return names


def _scope() -> str:
    """Tells cards that are named by number apart where each SLURM job has a card 0 of its own."""
    job = os.environ.get("SLURM_JOB_ID")
    return f"{job}/" if job and _VARIABLE in os.environ else ""


def _take(name: str) -> bool:
    slot = socket.socket(socket.AF_UNIX)
    try:
        slot.bind(f"\0{_PREFIX}.{name}")
    except OSError:  # somebody has it
        slot.close()
        return False
    _held.append(slot)
    return True
