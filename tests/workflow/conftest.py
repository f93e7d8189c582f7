"""The real Snakefile on a small store, run once; each test starts from a copy of what it left."""

import fcntl
import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from tests.builders import SPLIT, Store, small_fleet
from tests.conftest import ROOT

SETTINGS = {
    "store": "store",
    "split": SPLIT,
    "models": ["gbt", "mlp"],
    "baselines": [],
    "modes": ["realistic"],
    "seeds": [42, 7],
    "batch": {"episodes": 16},
    "training": {"epochs": 2},
    "evaluation": {"replicates": 200},
    # More than half of a run's time; a test of their own turns them on.
    "transfer": {"run": False},
    "probes": False,
    "robustness": {"run": False},
}


# Each job notes at its end which packages it has imported, and the run itself how often its
# scheduler was to look again, and in how many seconds.
NOTE_IMPORTS = """
import atexit, pathlib, sys, threading, time

began, started, start = time.monotonic(), [], threading.Timer.start

def counted(timer):
    started.append(timer)
    start(timer)

threading.Timer.start = counted

@atexit.register
def note():
    if "snakemake.scheduling.job_scheduler" in sys.modules and started:
        told = f"{len(started)} {time.monotonic() - began}"
        pathlib.Path(__file__).with_name("timers").write_text(told)
    script = pathlib.Path(getattr(sys.modules["__main__"], "__real_file__", "x"))
    if ".snakemake/scripts" in str(script):
        names = sorted({name.partition(".")[0] for name in sys.modules})
        out = pathlib.Path(__file__).with_name(f"{script.stem.split('.')[-1]}.imports")
        with out.open("a") as file:
            file.write(" ".join(names) + "\\n")
"""


@dataclass
class Run:
    """A working directory with a store, a config and results."""

    folder: Path
    clone: Path = ROOT

    @property
    def store(self) -> Store:
        return Store(self.folder / "store")

    @property
    def home(self) -> Path:
        """Where things would go that ought to stay in the working directory."""
        return self.folder.with_name(f"{self.folder.name}-home")

    @property
    def results(self) -> Path:
        return self.folder / "results"

    def settings(self, *, split: Mapping[str, object] | None = None, **changes: object) -> None:
        """Write mine.yaml: what differs from SETTINGS, and of `split` what differs from SPLIT."""
        chosen = SETTINGS | changes | {"split": SPLIT | dict(split or {})}
        (self.folder / "mine.yaml").write_text(yaml.safe_dump(chosen))

    def command(self, *arguments: str, cores: int = 2) -> list[str]:
        return [
            *(sys.executable, "-m", "snakemake", *arguments),
            *("--snakefile", str(self.clone / "Snakefile")),
            *("--directory", str(self.folder), "--configfile", str(self.folder / "mine.yaml")),
            *("--cores", str(cores), "--resources", "gpu=1"),
        ]

    def snakemake(self, *arguments: str, cores: int = 2) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.command(*arguments, cores=cores),
            cwd=self.folder,
            capture_output=True,
            text=True,
            env=os.environ | {"HOME": str(self.home), "PYTHONPATH": self.python_path},
            timeout=300,
        )

    @property
    def python_path(self) -> str:
        """With a folder that may hold a sitecustomize.py for the run and its jobs."""
        return os.pathsep.join([str(self.folder / "site"), os.getenv("PYTHONPATH", "")])

    def ok(self, *arguments: str, cores: int = 2) -> str:
        done = self.snakemake(*arguments, cores=cores)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout + done.stderr

    def jobs(self, *arguments: str) -> Counter[str]:
        """How many jobs of each rule a run would have now."""
        output = self.ok("-n", *arguments)
        if "Nothing to be done" in output:
            return Counter()
        table = output[output.index("Job stats:") :].split("\n\n")[0]
        rows = re.findall(r"^(\w+) +(\d+)$", table, re.M)
        return Counter({rule: int(n) for rule, n in rows if rule not in ("total", "all")})

    def tables(self) -> dict[str, bytes]:
        """Every result that must be the same, byte for byte, however it came about."""
        paths = sorted(path for path in self.results.rglob("*") if path.is_file())
        timed = ("logs", "benchmarks", "plan", "windows", "cache")
        return {
            str(path.relative_to(self.results)): path.read_bytes()
            for path in paths
            if path.relative_to(self.results).parts[0] not in timed
            # What was measured stands in these alone: the cost of a window, and that of a training.
            and not path.name.endswith(
                ("_latency.json", "_eval.json", "training_metadata.json", "index.html")
            )
        }


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Made once, by whichever process of a session needs it first; tests only read it."""
    session = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        session = session.parent
    run = Run(session / "finished")
    with (session / "finished.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        done = session / "finished.done"
        if not done.exists():
            _finish(run)
            done.touch()
    return run


def _finish(run: Run) -> None:
    small_fleet(run.folder / "store")
    run.settings()
    (run.folder / "site").mkdir()
    (run.folder / "site/sitecustomize.py").write_text(NOTE_IMPORTS)
    run.ok()
    (run.folder / "site/sitecustomize.py").unlink()


@pytest.fixture
def run(finished: Run, tmp_path: Path) -> Run:
    """A finished run of one's own."""
    shutil.copytree(finished.folder, tmp_path / "run")
    return Run(tmp_path / "run")


@pytest.fixture
def edited(run: Run, tmp_path: Path) -> Run:
    """A finished run whose next one uses a clone that the test may edit."""
    clone = tmp_path / "clone"
    for name in ("src", "rules", "workflow", "schemas", "profiles", "envs"):
        shutil.copytree(ROOT / name, clone / name)
    for name in ("Snakefile", "config.yaml"):
        shutil.copy(ROOT / name, clone)
    return Run(run.folder, clone)


@pytest.fixture
def fresh(finished: Run, tmp_path: Path) -> Run:
    """The same store and settings, and nothing done yet."""
    folder = tmp_path / "fresh"
    shutil.copytree(finished.folder / "store", folder / "store")
    shutil.copy(finished.folder / "mine.yaml", folder)
    return Run(folder)
