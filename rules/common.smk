"""What the rules share: settings, the plan of batches, and which code decides what each rule makes.

Needs: config.yaml beside the Snakefile, overridden by --configfile and --config.
Makes: results/plan/, in the main process only, before any job.
"""

import gc
import math
import os
import sys
import threading
from functools import cache
from pathlib import Path

REPOSITORY = Path(workflow.current_basedir).resolve().parent
SOURCE = REPOSITORY / "src"
INSTALLED = not SOURCE.exists()
if INSTALLED:  # REPOSITORY is cis490/_workflow beside other packages
    SOURCE = REPOSITORY.parents[1]

# The code that the params hash is the code that runs, whatever else is installed; and the clone is
# only read: nothing compiled is left in it. Jobs run side by side, each with the threads that its
# rule names.
if not INSTALLED:
    sys.path.insert(0, str(SOURCE))
    os.environ.update(
        PYTHONPATH=os.pathsep.join(filter(None, [str(SOURCE), os.getenv("PYTHONPATH")]))
    )
sys.dont_write_bytecode = True
os.environ.update(PYTHONDONTWRITEBYTECODE="1", POLARS_MAX_THREADS="1")

from cis490.code import LEARNING, code_hash, keep, recall
from cis490.config import read_yaml, require_optuna, resolve, splits
from cis490.episodes.plan import batches_of, plan, read_batches, training_settings
from cis490.errors import Cis490Error
from cis490.gpus import ON_CPU
from cis490.hardware import may_use_gpu
from cis490.manifest import read_manifest
from cis490.report.names import STORE_PICTURES, split_pictures
from cis490.runlock import claim
from cis490.training.spaces import ROUND, SPACES
from cis490.transfer import SIDES

# What Snakemake plans stays: to look through it for garbage, again and again, takes a seventh of
# the time of planning a fleet.
gc.freeze()
gc.set_threshold(100_000, 20, 100)


def look_again_once():
    """Have Snakemake wait for one look at the ready jobs at a time.

    It (9.27) looks again a second after each look, in a thread each, for its limit of jobs a second:
    soon as many looks a second as jobs have ended, and a core is busy with nothing else. A version
    that does it otherwise is left as it is.
    """
    try:
        from snakemake.scheduling.job_scheduler import JobScheduler
    except ImportError:
        return

    def schedule(self, delay):
        if getattr(self, "_waits_for_look", False):
            return
        self._waits_for_look = True

        def look():
            self._waits_for_look = False
            self._open_jobs.release()

        timer = threading.Timer(delay, look)
        timer.daemon = True
        timer.start()

    if hasattr(JobScheduler, "_schedule_reevalutation"):
        JobScheduler._schedule_reevalutation = schedule


# Each start of Snakemake, and each job on a cluster, would wait for all code to be compiled.
CODE_CACHE = "results/cache/code.json"
recall(CODE_CACHE)

try:
    if INSTALLED and workflow.deployment_settings.deployment_method:
        raise Cis490Error(
            "--sdm makes environments that do not hold the installed cis490: use a clone, where jobs "
            "run the code in src/, or leave --sdm out"
        )
    config.update(resolve(config, default_file=REPOSITORY / "config.yaml"))
    require_optuna(config)
    SPLITS = {split["name"]: split for split in splits(config)}
    if workflow.is_main_process:
        # A key that stands twice is lost by the time it is in `config`.
        for file in workflow.config_settings.configfiles:
            if not str(file).endswith(".json"):
                read_yaml(file)
        RUN_LOCK = claim(Path(".snakemake"))
        plan(config, "results/plan")
    BATCHES = read_batches("results/plan")
except Cis490Error as error:
    sys.exit(f"error: {error}")

if workflow.is_main_process:
    look_again_once()

ARCHITECTURES = config["models"] + config["baselines"]
MODELS = [f"{name}_{mode}" for name in ARCHITECTURES for mode in config["modes"]]
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
CODE = {
    "ingest": [*VERDICTS, "episodes/ingest.py"],
    "gather": [*VERDICTS, "episodes/summary.py", "markdown.py"],
    "schema": ["channels.py", "schema.py"],
    "windows": [
        *("channels.py", "compiled.py", "schema.py"),
        *("windows", "episodes/telemetry.py"),
    ],
    "manifest": ["manifest.py"],
    "fit": ["splits.py"],
    "known": ["splits.py"],
    "split": ["splits.py"],
    "tune": [*LEARNING, "evaluation/metrics.py"],
    "train": LEARNING,
    "out_of_fold": LEARNING,
    "predict": LEARNING,
    "summarise": LEARNING,
    "evaluate": [
        *("channels.py", "seeds.py", "evaluation", "models/weights.py"),
        "manifest.py",
    ],
    "detection": ["channels.py", "seeds.py", "evaluation", "manifest.py"],
    "calibration": ["channels.py", "seeds.py", "evaluation", "manifest.py"],
    "probes": [*LEARNING, "episodes/jobs.py", "evaluation", "probes", "splits.py"],
    "perturb": [
        *("channels.py", "compiled.py", "schema.py", "seeds.py", "models/weights.py"),
        *("splits.py", "windows", "episodes/telemetry.py", "evaluation", "robustness"),
    ],
    "repredict": [*LEARNING, "robustness"],
    "robustness": [
        *("channels.py", "markdown.py", "seeds.py", "models/weights.py", "evaluation"),
        *(f"report/{name}.py" for name in "blocks style svg".split()),
        "robustness",
    ],
    "transfer": [*LEARNING, "splits.py", "transfer/predict.py"],
    "transferred": [
        *("channels.py", "seeds.py", "models/weights.py", "evaluation"),
        "transfer/table.py",
    ],
    "curves": ["channels.py", "report/curves.py"],
    **dict.fromkeys(
        ("report", "page"),
        [
            *(*VERDICTS, "episodes/summary.py", "markdown.py", "words.py"),
            *("seeds.py", "evaluation", "models/weights.py", "report"),
        ],
    ),
}


# No reason to train again: they change what is seen and kept, not what is learned. What `tensorboard`
# and `profile` ask for is an output, so that they are made where they are missing.
UNLEARNED = ["device", "gpu_slots", "rate_cache_hours", "tensorboard", "profile"]
TRAINING = {k: v for k, v in config["training"].items() if k not in UNLEARNED}
EXTRAS = [name for name in ("tensorboard", "profile") if config["training"][name]]

# Who is trained with and without each host: gbt, and the best of the networks by val.
NETWORKS = [name for name in config["models"] if name != "gbt"]
LEARNERS = {"gbt": ["gbt"] if "gbt" in config["models"] else [], "network": NETWORKS}
# Networks take long on a CPU: only in the first mode, which is the one that counts.
TRANSFERRED = [
    f"{learner}_{mode}"
    for learner, names in LEARNERS.items()
    for mode in (config["modes"] if learner == "gbt" else config["modes"][:1])
    if names
]

# What a cluster gives a job of each kind: MB, and MB for each MB of its input; minutes, and minutes
# for each MB (docs/cluster.md). Runs on one machine take no notice of either. Of the memory half a GB
# is for Snakemake, which starts twice in such a job.
ON_CARD = may_use_gpu(config["training"]["device"])
CUDA = 4000 if ON_CARD else 0  # what it takes on the host
PACE = 0.1 if ON_CARD else 0.5  # not 30 times as quick: trees learn on the CPU
NEEDS = {
    "step": (1000, 4, 30, 0.05),  # tables and pictures
    "decode": (2000, 4, 30, 0.5),  # a batch, whose size is bounded
    "score": (2000, 4, 60, 0.1),  # what all models say of all windows
    "predict": (2000 + CUDA, 0.2, 60, 0.1),  # all windows, a batch at a time
    "sample": (3000 + CUDA, 0.2, 480, 0),  # some episodes, however many there are
    "learn": (3000 + CUDA, 3, 120, PACE),  # holds all that it learns from
    "tune": (4000 + CUDA, 12, 360, 3 * PACE),  # so do four at once
}

# What the report shows beside the evaluation, a file a split each.
STAGES = {
    "detection": "results/eval/{split}/detection.parquet",
    "alarms": "results/eval/{split}/alarms.parquet",
    "calibration": "results/eval/{split}/calibration.parquet",
    "reliability": "results/eval/{split}/reliability.parquet",
}
if config["transfer"]["run"]:
    STAGES["transfer"] = "results/transfer/{split}/transfer.parquet"
if config["probes"]:
    STAGES["probes"] = "results/probes/{split}/probes.parquet"
if config["robustness"]["run"]:
    STAGES["robustness"] = "results/robustness/{split}/robustness.parquet"
    STAGES["robustness_picture"] = "results/report/pictures/{split}/robustness.svg"


# Whose windows a manifest names: what a training reads, all that was known by `as_of`, or all. Of each
# the parts, and whether of `test` too only what was known.
REACH = {
    "fit": (["train"], False),
    "known": (["train", "test"], True),
    "all": (["train", "test"], False),
}


wildcard_constraints:
    batch=r"[A-Za-z0-9][A-Za-z0-9._-]*-\d+(?:\+\d+)?",
    split=r"[A-Za-z0-9][A-Za-z0-9_-]*",
    architecture="|".join(ARCHITECTURES),
    mode="|".join(config["modes"]),
    learner="gbt|network",
    side="|".join(SIDES),
    reach="|".join(REACH),


def code_of(rule):
    """Hash of the code that decides what a rule makes."""
    script = REPOSITORY / "workflow/scripts" / f"{rule}.py"
    return code_hash([script, *(SOURCE / "cis490" / part for part in CODE[rule])])


def of_batches(pattern, *parts, known=False):
    """Input function: `pattern` for each batch that can hold `parts` of the wildcard split.

    Those of `train` were received by the split's `as_of`; with `known` those of `test` too.
    """
    return lambda wildcards: expand(
        pattern, batch=batches_of(SPLITS[wildcards.split], BATCHES, parts, known=known)
    )


def windows_of(pattern):
    """Input function: `pattern` for each batch that the wildcard `reach` of a split asks for."""

    def files(wildcards):
        parts, known = REACH[wildcards.reach]
        return of_batches(pattern, *parts, known=known)(wildcards)

    return files


def extras(name, path):
    """`path` as a named output of a rule, if the setting `name` asks for it."""
    return {name: directory(path)} if config["training"][name] else {}


def tuning(wildcards):
    """What a search chose for a model; nothing without `tune`, or where nothing is searched."""
    if not config["tune"] or wildcards.architecture not in SPACES:
        return []
    model = f"{wildcards.architecture}_{wildcards.mode}"
    return f"results/tuning/{wildcards.split}/{model}.json"


def rivals(wildcards):
    """The networks of a mode, of which only the best is predicted out of fold; none if all are."""
    some = config["evaluation"]["out_of_fold"] == "best"
    names = NETWORKS if some and wildcards.architecture in NETWORKS else []
    return [
        f"results/models/{wildcards.split}/{name}_{wildcards.mode}/model.json"
        for name in names
    ]


def gpus(wildcards):
    """GPUs that a training takes: networks one, unless trainings run on the CPU."""
    learner = wildcards.get("architecture") or wildcards.get("learner")
    return int(learner not in ON_CPU and may_use_gpu(config["training"]["device"]))


@cache
def megabytes(path, kinds):
    """Size of a file, or of what a manifest names; looked at once a run, for many jobs read it."""
    if Path(path).parts[:2] == ("results", "windows"):
        n_bytes = read_manifest(path).n_bytes
        return sum(n_bytes[kind] for kind in kinds) / 2**20
    return os.path.getsize(path) / 2**20


def needs(kind, reads=("features", "tensors")):
    """Memory and time of a job as resources: of its kind, by the size of its input, times the attempt.

    Of what a manifest names the files of the kinds in `reads` count.
    """
    mb, mb_per_mb, minutes, minutes_per_mb = NEEDS[kind]

    def resource(base, factor):
        return lambda wildcards, input, attempt: (
            attempt
            * math.ceil(base + factor * sum(megabytes(path, reads) for path in input))
        )

    return {
        "mem_mb": resource(mb, mb_per_mb),
        "runtime": resource(minutes, minutes_per_mb),
    }


def picture(name, folder, subcategory):
    """A picture as an output that Snakemake's own report shows, with the caption of its kind."""
    return report(
        f"results/report/pictures/{folder}{name}.svg",
        caption=f"../workflow/report/{name.partition('_')[0]}.rst",
        category="Report",
        subcategory=subcategory,
        labels={"picture": name.replace("_", " ")},
    )
