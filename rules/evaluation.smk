"""Evaluation: metrics with intervals for all models of a split at once, and the report.

Needs: results/predictions, results/splits, results/windows, results/models, results/validation.parquet;
what results/probes and results/robustness hold, unless settings leave these stages out.
Makes: results/eval, results/report.
"""


rule evaluate:
    """Score all models of a split on the same bootstrap replicates."""
    input:
        split="results/splits/{split}.parquet",
        split_json="results/splits/{split}.json",
        windows="results/windows/{split}/all.json",
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
    resources:
        **needs("score", reads=("features",)),
    params:
        replicates=config["evaluation"]["replicates"],
        code=code_of("evaluate"),
    script:
        "../workflow/scripts/evaluate.py"


rule detection:
    """Detection in time: alarms at a threshold chosen out of fold, and how well scores rank."""
    input:
        split="results/splits/{split}.parquet",
        split_json="results/splits/{split}.json",
        windows="results/windows/{split}/all.json",
        episodes=of_batches(
            "results/telemetry/{batch}/episodes.parquet", "train", "test"
        ),
        labels=of_batches("results/telemetry/{batch}/labels.parquet", "train", "test"),
        models=expand("results/models/{{split}}/{model}/model.json", model=MODELS),
        predictions=expand(
            "results/predictions/{{split}}/{model}.parquet", model=MODELS
        ),
        out_of_fold=expand("results/oof/{{split}}/{model}.parquet", model=MODELS),
    output:
        detection="results/eval/{split}/detection.parquet",
        alarms="results/eval/{split}/alarms.parquet",
    log:
        "results/logs/detection/{split}.log",
    benchmark:
        "results/benchmarks/detection/{split}.tsv"
    conda:
        "../envs/environment.yaml"
    resources:
        **needs("score", reads=("features",)),
    params:
        window=config["window"],
        evaluation={
            name: config["evaluation"][name]
            for name in ("replicates", "false_alarms_per_hour", "hysteresis")
        },
        code=code_of("detection"),
    script:
        "../workflow/scripts/detection.py"


rule calibration:
    """Whether probabilities can be believed: temperatures, reliability and prediction sets."""
    input:
        split="results/splits/{split}.parquet",
        split_json="results/splits/{split}.json",
        windows="results/windows/{split}/all.json",
        models=expand("results/models/{{split}}/{model}/model.json", model=MODELS),
        predictions=expand(
            "results/predictions/{{split}}/{model}.parquet", model=MODELS
        ),
        out_of_fold=expand("results/oof/{{split}}/{model}.parquet", model=MODELS),
    output:
        calibration="results/eval/{split}/calibration.parquet",
        reliability="results/eval/{split}/reliability.parquet",
    log:
        "results/logs/calibration/{split}.log",
    benchmark:
        "results/benchmarks/calibration/{split}.tsv"
    conda:
        "../envs/environment.yaml"
    resources:
        **needs("score", reads=("features",)),
    params:
        replicates=config["evaluation"]["replicates"],
        code=code_of("calibration"),
    script:
        "../workflow/scripts/calibration.py"


rule curves:
    """How the trainings of a split went: all seeds of all models in one picture."""
    input:
        models=expand("results/models/{{split}}/{model}/model.json", model=MODELS),
        histories=expand(
            "results/models/{{split}}/{model}/history.parquet", model=MODELS
        ),
    output:
        curves=report(
            "results/report/curves_{split}.svg",
            caption="../workflow/report/curves.rst",
            category="Report",
            subcategory="{split}",
            labels={"picture": "curves"},
        ),
    log:
        "results/logs/curves/{split}.log",
    benchmark:
        "results/benchmarks/curves/{split}.tsv"
    conda:
        "../envs/environment.yaml"
    resources:
        **needs("step"),
    params:
        code=code_of("curves"),
    script:
        "../workflow/scripts/curves.py"


rule report:
    """The report as text: which detectors work on a machine they have never seen."""
    input:
        **{name: expand(path, split=SPLITS) for name, path in STAGES.items()},
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
        report=report(
            "results/report/comparison_v2.md",
            caption="../workflow/report/comparison.rst",
            category="Report",
            labels={"picture": "none: the text"},
        ),
    log:
        "results/logs/report.log",
    benchmark:
        "results/benchmarks/report.tsv"
    conda:
        "../envs/environment.yaml"
    resources:
        **needs("step"),
    params:
        code=code_of("report"),
    script:
        "../workflow/scripts/report.py"


rule page:
    """The report as a page, with its pictures, and a summary of it for machines."""
    input:
        **{name: expand(path, split=SPLITS) for name, path in STAGES.items()},
        validation="results/validation.parquet",
        schema="results/schema.json",
        splits=expand("results/splits/{split}.json", split=SPLITS),
        metrics=expand("results/eval/{split}/metrics.parquet", split=SPLITS),
        pairwise=expand("results/eval/{split}/pairwise.parquet", split=SPLITS),
        evals=expand(
            "results/eval/{split}/{model}_eval.json", split=SPLITS, model=MODELS
        ),
        trainings=expand("results/models/{split}/summary.json", split=SPLITS),
        metadata=expand(
            "results/models/{split}/{model}/training_metadata.json",
            split=SPLITS,
            model=MODELS,
        ),
        predictions=expand(
            "results/predictions/{split}/{model}.parquet", split=SPLITS, model=MODELS
        ),
        curves=expand("results/report/curves_{split}.svg", split=SPLITS),
    output:
        page=report(
            "results/report/index.html",
            caption="../workflow/report/page.rst",
            category="Report",
            labels={"picture": "all, on one page"},
        ),
        summary="results/report/production_summary.json",
        of_store=[picture(name, "", "the store") for name in STORE_PICTURES],
        of_splits=[
            picture(name, f"{split}/", split)
            for split in SPLITS
            for name in split_pictures(config["modes"])
        ],
    log:
        "results/logs/page.log",
    benchmark:
        "results/benchmarks/page.tsv"
    conda:
        "../envs/environment.yaml"
    resources:
        **needs("step"),
    params:
        code=code_of("page"),
    script:
        "../workflow/scripts/page.py"
