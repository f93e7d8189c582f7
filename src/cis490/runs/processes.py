"""What the jobs of a run on this machine use: memory and processor time of their processes."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import psutil

_SHARE: Final = 0.02  # of a core: what looking may cost
_PATIENCE: Final = 30  # looks at a process that holds no job's log, before it is let be


@dataclass
class Usage:
    """What a job used.

    Attributes:
        bytes: memory in RAM now, of all its processes together.
        peak_bytes: the most of it that was seen.
        cpu_seconds: of processor time so far.
    """

    bytes: int = 0
    peak_bytes: int = 0
    cpu_seconds: float = 0.0


class Processes:
    """Looks at all processes below one.

    Whose job a process is tells the log that it holds open: Snakemake says nothing of processes.

    Args:
        pid: of the process that starts jobs; of this one by default.
    """

    def __init__(self, pid: int | None = None) -> None:
        self._root = psutil.Process(pid)
        self._job_of: dict[psutil.Process, int] = {}
        self._misses: dict[psutil.Process, int] = defaultdict(int)
        self._next = 0.0
        self.usage: dict[int, Usage] = {}

    def look(self, logs: Mapping[int, Path]) -> None:
        """Bring `usage` up to date, unless looking would cost too much by now.

        Args:
            logs: number of each running job, and its log as an absolute path.
        """
        began = time.monotonic()
        if began < self._next:
            return
        for number in self.usage.keys() - logs.keys():
            del self.usage[number]
        if logs:
            for top, tree in self._trees().items():
                self._add(top, tree, logs)
        now = time.monotonic()
        self._next = now + (now - began) / _SHARE

    def _trees(self) -> dict[psutil.Process, list[psutil.Process]]:
        """All processes below the root, by the child of the root that they descend from."""
        below = {child.pid: child for child in self._root.children(recursive=True)}
        parents = {pid: _parent(child) for pid, child in below.items()}
        trees: dict[psutil.Process, list[psutil.Process]] = defaultdict(list)
        for pid, child in below.items():
            top = pid
            while parents[top] in below and parents[top] != top:
                top = parents[top]
            trees[below[top]].append(child)
        for known in (self._job_of, self._misses):
            for gone in known.keys() - trees.keys():
                del known[gone]
        return trees

    def _add(
        self, top: psutil.Process, tree: list[psutil.Process], logs: Mapping[int, Path]
    ) -> None:
        job = self._job_of.get(top)
        if job is None and self._misses[top] < _PATIENCE:
            job = self._recognise(top, tree, logs)
        if job is None or job not in logs:
            return
        in_ram, cpu = 0, 0.0
        for process in tree:
            try:
                with process.oneshot():
                    in_ram += process.memory_info().rss
                    cpu += sum(process.cpu_times()[:4])  # own and of children that have ended
            except psutil.Error:  # it ended meanwhile
                continue
        usage = self.usage.setdefault(job, Usage())
        usage.bytes = in_ram
        usage.peak_bytes = max(usage.peak_bytes, in_ram)
        usage.cpu_seconds = max(usage.cpu_seconds, cpu)

    def _recognise(
        self, top: psutil.Process, tree: list[psutil.Process], logs: Mapping[int, Path]
    ) -> int | None:
        names = {str(path): number for number, path in logs.items()}
        for process in tree:
            try:
                held = [names[file.path] for file in process.open_files() if file.path in names]
            except psutil.Error:
                continue
            if held:
                self._job_of[top] = held[0]
                return held[0]
        self._misses[top] += 1
        return None


def _parent(process: psutil.Process) -> int:
    try:
        return int(process.ppid())
    except psutil.Error:
        return 0
