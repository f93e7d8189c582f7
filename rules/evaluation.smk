"""Evaluation: metrics with intervals for all models of a split at once, and the report.

Needs: results/predictions, results/splits, results/features, results/models, results/validation.parquet.
Makes: results/eval, results/report.
"""


rule evaluate:
    """Score all models of a split on the same bootstrap replicates."""
    input:
        split="results/splits/{split}.parquet",
        split_json="results/splits/{split}.json",
        features=of_batches("results/features/{batch}.parquet", "train", "test"),
        models=expand("results/models/{{split}}/{model}/model.json", model=MODELS),
        predictions=expand(
            "results/predictions/{{split}}/{model}.parquet", model=MODELS
        ),
        latencies=expand(
            "results/predictions/{{split}}/{model}_latency.json", model=MODELS
        ),
    output:
        metrics="results/eval/{split}/metrics.parquet",
        pairwise="results/eval/{split}/pairwise.parquet",
        evals=expand("results/eval/{{split}}/{model}_eval.json", model=MODELS),
    log:
        "results/logs/evaluate/{split}.log",
    benchmark:
        "results/benchmarks/evaluate/{split}.tsv"
    conda:
        "../envs/environment.yaml"
    params:
        replicates=config["evaluation"]["replicates"],
        code=code_of("evaluate"),
    script:
        "../workflow/scripts/evaluate.py"


rule curves:
    """How the trainings of a split went: all seeds of all models in one picture."""
    input:
        models=expand("results/models/{{split}}/{model}/model.json", model=MODELS),
        histories=expand(
            "results/models/{{split}}/{model}/history.parquet", model=MODELS
        ),
    output:
        curves=report("results/report/curves_{split}.svg", category="Report"),
    log:
        "results/logs/curves/{split}.log",
    benchmark:
        "results/benchmarks/curves/{split}.tsv"
    conda:
        "../envs/environment.yaml"
    params:
        code=code_of("curves"),
    script:
        "../workflow/scripts/curves.py"


rule report:
    """The page for people: which detectors work on a machine they have never seen."""
    input:
        validation="results/validation.parquet",
        splits=expand("results/splits/{split}.json", split=SPLITS),
        metrics=expand("results/eval/{split}/metrics.parquet", split=SPLITS),
        pairwise=expand("results/eval/{split}/pairwise.parquet", split=SPLITS),
        evals=expand(
            "results/eval/{split}/{model}_eval.json", split=SPLITS, model=MODELS
        ),
        trainings=expand("results/models/{split}/summary.json", split=SPLITS),
        curves=expand("results/report/curves_{split}.svg", split=SPLITS),
    output:
        report=report("results/report/comparison_v2.md", category="Report"),
    log:
        "results/logs/report.log",
    benchmark:
        "results/benchmarks/report.tsv"
    conda:
        "../envs/environment.yaml"
    params:
        code=code_of("report"),
    script:
        "../workflow/scripts/report.py"
