"""Journals made to order."""

from pathlib import Path
from typing import Any

from cis490.runs import journal
from cis490.runs.journal import Event, Journal
from cis490.runs.state import State

T0 = 1_800_000_000.0
HEADER = "s\th:m:s\tmax_rss\tmax_vms\tmax_uss\tmax_pss\tio_in\tio_out\tmean_load\tcpu_time"


def at(seconds: float, event: str, run: str = "r1", **more: Any) -> Event:
    return journal.stamped(run, {"event": event, **more}, T0 + seconds)


def started(seconds: float, jobid: int, rule: str, name: str = "", **more: Any) -> Event:
    path = f"{rule}/{name}" if name else rule
    more = {
        "log": [f"results/logs/{path}.log"],
        "benchmark": f"results/benchmarks/{path}.tsv",
        **more,
    }
    return at(seconds, "job_started", jobid=jobid, rule=rule, **more)


def planned(jobs: dict[str, int], cores: int = 2, **more: Any) -> Event:
    return at(0, "planned", jobs=jobs, room={"_cores": cores, **more.pop("room", {})}, **more)


def state_of(*events: Event) -> State:
    return State.of([at(0, "run_started"), *events])


def write(path: Path, *events: Event) -> None:
    file = Journal(path)
    for event in events:
        file.append(event)
    file.close()


def benchmark(
    results: Path,
    name: str,
    seconds: float,
    *,
    cpu: str | float = "NA",
    rss: str | float = "NA",
) -> Path:
    path = results / f"benchmarks/{name}.tsv"
    path.parent.mkdir(parents=True, exist_ok=True)
    row = [f"{seconds:.2f}", "0:00:01", str(rss), *["1"] * 3, *["0"] * 2, "50", str(cpu)]
    path.write_text(HEADER + "\n" + "\t".join(row) + "\n")
    return path
