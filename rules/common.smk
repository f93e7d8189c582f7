"""What the rules share: settings, the plan of batches, and which code decides what each rule makes.

Needs: config.yaml beside the Snakefile, overridden by --configfile and --config.
Makes: results/plan/, in the main process only, before any job.
"""

import os
import sys
from pathlib import Path

REPOSITORY = Path(workflow.basedir).resolve()
SOURCE = REPOSITORY / "src"

# The code that the params hash is the code that runs, whatever else is installed; and the clone is
# only read: nothing compiled is left in it. Jobs run side by side, each with the threads that its
# rule names.
sys.path.insert(0, str(SOURCE))
sys.dont_write_bytecode = True
os.environ.update(
    PYTHONPATH=os.pathsep.join(filter(None, [str(SOURCE), os.getenv("PYTHONPATH")])),
    PYTHONDONTWRITEBYTECODE="1",
    POLARS_MAX_THREADS="1",
)

from cis490.code import code_hash
from cis490.config import resolve, splits
from cis490.episodes.plan import batches_of, plan, read_batches, training_settings
from cis490.errors import Cis490Error
from cis490.hardware import may_use_gpu
from cis490.runlock import claim

try:
    config.update(resolve(config, default_file=REPOSITORY / "config.yaml"))
    SPLITS = {split["name"]: split for split in splits(config)}
    if workflow.is_main_process:
        RUN_LOCK = claim(Path(".snakemake"))
        plan(config, "results/plan")
    BATCHES = read_batches("results/plan")
except Cis490Error as error:
    sys.exit(f"error: {error}")

MODELS = [f"{model}_{mode}" for model in config["models"] for mode in config["modes"]]
TABLES = ["episodes", "labels", "proc", "qmp", "guest", "netflow", "exec"]

# Which parts of src/cis490 decide what a rule makes; a test holds this against the imports.
VERDICTS = [
    "channels.py",
    "compiled.py",
    *(
        f"episodes/{name}.py"
        for name in "faults kernel parse strict tarball telemetry validate".split()
    ),
    "episodes/_rows.c",
]
LEARNING = ["channels.py", "compiled.py", "schema.py", "models", "training", "windows"]
CODE = {
    "ingest": [*VERDICTS, "episodes/ingest.py"],
    "gather": [*VERDICTS, "episodes/summary.py", "markdown.py"],
    "schema": ["channels.py", "schema.py"],
    "windows": [
        *("channels.py", "compiled.py", "schema.py"),
        *("windows", "episodes/telemetry.py"),
    ],
    "fit": ["splits.py"],
    "split": ["splits.py"],
    "train": LEARNING,
    "predict": LEARNING,
    "evaluate": ["channels.py", "evaluation", "models/weights.py"],
    "report": [
        *(*VERDICTS, "episodes/summary.py", "markdown.py"),
        *("evaluation", "models/weights.py", "report"),
    ],
}


wildcard_constraints:
    batch=r"[A-Za-z0-9][A-Za-z0-9._-]*-\d+",
    split=r"[A-Za-z0-9][A-Za-z0-9_-]*",
    architecture="|".join(config["models"]),
    mode="|".join(config["modes"]),


def code_of(rule):
    """Hash of the code that decides what a rule makes."""
    script = REPOSITORY / "workflow/scripts" / f"{rule}.py"
    return code_hash([script, *(SOURCE / "cis490" / part for part in CODE[rule])])


def of_batches(pattern, *parts):
    """Input function: `pattern` for each batch that can hold `parts` of the wildcard split."""
    return lambda wildcards: expand(
        pattern, batch=batches_of(SPLITS[wildcards.split], BATCHES, parts)
    )


def gpus(wildcards):
    """GPUs that a training takes: networks one, unless trainings run on the CPU."""
    return int(
        wildcards.architecture != "gbt" and may_use_gpu(config["training"]["device"])
    )
