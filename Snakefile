"""From a store of episodes to a report on how well detectors do on machines they have never seen.

    snakemake --cores 16 --resources gpu=1

The rules stand in the order of the data; rules/common.smk reads the settings and plans the batches.
"""

from snakemake.utils import min_version

min_version("9.5")


include: "rules/common.smk"
include: "rules/episodes.smk"
include: "rules/windows.smk"
include: "rules/training.smk"
include: "rules/evaluation.smk"
include: "rules/transfer.smk"
include: "rules/robustness.smk"
include: "rules/probes.smk"


rule all:
    default_target: True
    input:
        "results/validation.parquet",
        "results/validation.md",
        "results/report/comparison_v2.md",
        "results/report/index.html",
        # Everything that a stage leaves, so that what was removed by hand is made again.
        expand("results/features/{batch}.parquet", batch=BATCHES),
        expand("results/tensors/{batch}.safetensors", batch=BATCHES),
        expand(
            "results/windows/{split}/{reach}.json", split=SPLITS, reach=["fit", "all"]
        ),
        expand("results/splits/{split}.parquet", split=SPLITS),
        expand(
            "results/models/{split}/{model}/weights.safetensors",
            split=SPLITS,
            model=MODELS,
        ),
        expand("results/models/{split}/summary.json", split=SPLITS),
        expand("results/oof/{split}/{model}.parquet", split=SPLITS, model=MODELS),
        expand(
            "results/{extra}/{split}/{model}", extra=EXTRAS, split=SPLITS, model=MODELS
        ),
        expand(
            "results/predictions/{split}/{model}.parquet", split=SPLITS, model=MODELS
        ),
        expand("results/eval/{split}/metrics.parquet", split=SPLITS),
        expand(
            "results/transfer/{split}/transfer.parquet",
            split=SPLITS if config["transfer"]["run"] else [],
        ),
        expand(
            "results/probes/{split}/probes.parquet",
            split=SPLITS if config["probes"] else [],
        ),
        expand("results/eval/{split}/detection.parquet", split=SPLITS),
        expand(
            "results/robustness/{split}/robustness.parquet",
            split=SPLITS if config["robustness"]["run"] else [],
        ),
        expand("results/eval/{split}/calibration.parquet", split=SPLITS),


rule tuned:
    """The search of all settings, and nothing that is trained with what it found."""
    input:
        expand(
            "results/tuning/{split}/{model}_{mode}.json",
            split=SPLITS,
            model=[model for model in config["models"] if model in SPACES],
            mode=config["modes"],
        ),


rule data:
    """All features and tensors, and nothing that is trained."""
    input:
        expand("results/features/{batch}.parquet", batch=BATCHES),
        expand("results/tensors/{batch}.safetensors", batch=BATCHES),


if workflow.is_main_process:
    keep(CODE_CACHE)


onsuccess:
    # A run for some files alone may have none to show.
    if Path("results/report/index.html").exists():
        print(
            "Report: results/report/index.html, as text results/report/comparison_v2.md "
            "(cis490 report prints its first page)"
        )
