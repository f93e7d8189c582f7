"""Episodes: from tarballs to verdicts and typed telemetry.

Needs: the store, and results/plan/batches/<batch>.json, which names the episodes of a batch.
Makes: results/verdicts, results/telemetry, results/validation.parquet and .md, results/splits.
"""


rule ingest:
    """The one stage that opens tarballs: check, decode and validate a batch of episodes."""
    input:
        manifest="results/plan/batches/{batch}.json",
    output:
        verdicts="results/verdicts/{batch}.parquet",
        telemetry=expand("results/telemetry/{{batch}}/{table}.parquet", table=TABLES),
    log:
        "results/logs/ingest/{batch}.log",
    benchmark:
        "results/benchmarks/ingest/{batch}.tsv"
    conda:
        "../envs/environment.yaml"
    resources:
        **needs("decode"),
    params:
        limits=config["limits"],
        code=code_of("ingest"),
    script:
        "../workflow/scripts/ingest.py"


rule gather:
    """All verdicts in one table, and a page on what the store holds."""
    input:
        verdicts=expand("results/verdicts/{batch}.parquet", batch=BATCHES),
        index="results/plan/index.json",
    output:
        parquet="results/validation.parquet",
        markdown=report("results/validation.md", category="Data"),
    log:
        "results/logs/gather.log",
    benchmark:
        "results/benchmarks/gather.tsv"
    conda:
        "../envs/environment.yaml"
    resources:
        **needs("step"),
    params:
        code=code_of("gather"),
    script:
        "../workflow/scripts/gather.py"


rule fit:
    """The training and val episodes of a split: all that a training may know of it."""
    input:
        verdicts=of_batches("results/verdicts/{batch}.parquet", "train"),
    output:
        fit="results/splits/fit/{split}.parquet",
    log:
        "results/logs/fit/{split}.log",
    benchmark:
        "results/benchmarks/fit/{split}.tsv"
    conda:
        "../envs/environment.yaml"
    resources:
        **needs("step"),
    params:
        split=lambda wildcards: training_settings(SPLITS[wildcards.split]),
        code=code_of("fit"),
    script:
        "../workflow/scripts/fit.py"


rule known:
    """The train, val and test episodes that were there by `as_of`, whatever arrives later."""
    input:
        verdicts=of_batches(
            "results/verdicts/{batch}.parquet", "train", "test", known=True
        ),
    output:
        known="results/splits/known/{split}.parquet",
    log:
        "results/logs/known/{split}.log",
    benchmark:
        "results/benchmarks/known/{split}.tsv"
    conda:
        "../envs/environment.yaml"
    resources:
        **needs("step"),
    params:
        split=lambda wildcards: SPLITS[wildcards.split],
        code=code_of("known"),
    script:
        "../workflow/scripts/known.py"


rule split:
    """Each usable episode's part: train, val, test, or excluded and why."""
    input:
        verdicts=expand("results/verdicts/{batch}.parquet", batch=BATCHES),
        trainable=of_batches("results/verdicts/{batch}.parquet", "train"),
        fit="results/splits/fit/{split}.parquet",
    output:
        parquet="results/splits/{split}.parquet",
        json="results/splits/{split}.json",
    log:
        "results/logs/split/{split}.log",
    benchmark:
        "results/benchmarks/split/{split}.tsv"
    conda:
        "../envs/environment.yaml"
    resources:
        **needs("step"),
    params:
        split=lambda wildcards: SPLITS[wildcards.split],
        code=code_of("split"),
    script:
        "../workflow/scripts/split.py"
