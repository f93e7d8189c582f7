"""Robustness: what detectors lose when telemetry gets worse; nothing is trained again.

Needs: results/telemetry, results/splits, results/schema.json, results/models, results/eval.
Makes: results/perturbed, results/robustness, results/report/pictures/<split>/robustness.svg, unless
the setting `robustness.run` is false.
"""

from cis490.robustness.conditions import conditions

ROBUSTNESS = {k: v for k, v in config["robustness"].items() if k != "run"}
CONDITIONS = [condition.name for condition in conditions(ROBUSTNESS)]
# Not their company: MiniRocket alone would take as long as five networks.
DETECTORS = [f"{name}_{mode}" for name in config["models"] for mode in config["modes"]]


rule perturb:
    """Windows of some episodes of the part shown under each condition, from their telemetry."""
    input:
        split="results/splits/{split}.parquet",
        schema="results/schema.json",
        telemetry=lambda wildcards: expand(
            "results/telemetry/{batch}/{table}.parquet",
            batch=batches_of(SPLITS[wildcards.split], BATCHES, ("train", "test")),
            table=TABLES,
        ),
    output:
        episodes="results/perturbed/{split}/episodes.parquet",
        features=expand(
            "results/perturbed/{{split}}/features/{condition}.parquet",
            condition=CONDITIONS,
        ),
        tensors=expand(
            "results/perturbed/{{split}}/tensors/{condition}.safetensors",
            condition=CONDITIONS,
        ),
    log:
        "results/logs/perturb/{split}.log",
    benchmark:
        "results/benchmarks/perturb/{split}.tsv"
    conda:
        "../envs/environment.yaml"
    resources:
        **needs("sample"),
    params:
        robustness=ROBUSTNESS,
        code=code_of("perturb"),
    script:
        "../workflow/scripts/perturb.py"


rule repredict:
    """What each seed of each detector of a split says of the perturbed windows.

    One job: the windows are few, and to start a job a model would take longer than to predict.
    """
    input:
        models=expand("results/models/{{split}}/{model}/model.json", model=DETECTORS),
        weights=expand(
            "results/models/{{split}}/{model}/weights.safetensors", model=DETECTORS
        ),
        schema="results/schema.json",
        episodes="results/perturbed/{split}/episodes.parquet",
        features=rules.perturb.output.features,
        tensors=rules.perturb.output.tensors,
    output:
        repredicted=expand(
            "results/robustness/{{split}}/{model}.parquet", model=DETECTORS
        ),
    log:
        "results/logs/repredict/{split}.log",
    benchmark:
        "results/benchmarks/repredict/{split}.tsv"
    priority: 1  # among the longest: as soon as it can begin
    conda:
        "../envs/environment.yaml"
    threads: config["training"]["threads"]
    resources:
        **needs("sample"),
        gpu=int(bool(NETWORKS) and may_use_gpu(config["training"]["device"])),
    params:
        code=code_of("repredict"),
    script:
        "../workflow/scripts/repredict.py"


rule robustness:
    """Macro F1 of all detectors of a split under each condition, and a picture of it."""
    input:
        split_json="results/splits/{split}.json",
        episodes="results/perturbed/{split}/episodes.parquet",
        repredicted=rules.repredict.output.repredicted,
        metrics="results/eval/{split}/metrics.parquet",
    output:
        robustness="results/robustness/{split}/robustness.parquet",
        picture=report(
            "results/report/pictures/{split}/robustness.svg",
            caption="../workflow/report/robustness.rst",
            category="Report",
            subcategory="{split}",
        ),
    log:
        "results/logs/robustness/{split}.log",
    benchmark:
        "results/benchmarks/robustness/{split}.tsv"
    conda:
        "../envs/environment.yaml"
    resources:
        **needs("step"),
    params:
        robustness=ROBUSTNESS,
        replicates=config["evaluation"]["replicates"],
        code=code_of("robustness"),
    script:
        "../workflow/scripts/robustness.py"
