"""Windows: from telemetry to summary features and tensors on a regular grid.

Needs: results/telemetry.
Makes: results/schema.json, results/features, results/tensors; results/windows, which names what the
jobs of a split read of them.
"""


rule schema:
    """What the columns mean: channels, modes, grid, windows, statistics, under one hash."""
    output:
        schema="results/schema.json",
    log:
        "results/logs/schema.log",
    benchmark:
        "results/benchmarks/schema.tsv"
    conda:
        "../envs/environment.yaml"
    resources:
        **needs("step"),
    params:
        grid=config["grid"],
        window=config["window"],
        code=code_of("schema"),
    script:
        "../workflow/scripts/schema.py"


rule windows:
    """Features and tensors of a batch."""
    input:
        telemetry=expand("results/telemetry/{{batch}}/{table}.parquet", table=TABLES),
        schema="results/schema.json",
    output:
        features="results/features/{batch}.parquet",
        tensors="results/tensors/{batch}.safetensors",
    log:
        "results/logs/windows/{batch}.log",
    benchmark:
        "results/benchmarks/windows/{batch}.tsv"
    conda:
        "../envs/environment.yaml"
    resources:
        **needs("decode"),
    params:
        code=code_of("windows"),
    script:
        "../workflow/scripts/windows.py"


rule manifest:
    """Which features and tensors a split's jobs read, and of what size and time each is.

    Each model reads all of them; were they input of each, a run would plan little else.
    """
    input:
        features=windows_of("results/features/{batch}.parquet"),
        tensors=windows_of("results/tensors/{batch}.safetensors"),
    output:
        manifest="results/windows/{split}/{reach}.json",
    log:
        "results/logs/manifest/{split}/{reach}.log",
    benchmark:
        "results/benchmarks/manifest/{split}/{reach}.tsv"
    conda:
        "../envs/environment.yaml"
    resources:
        **needs("step"),
    params:
        code=code_of("manifest"),
    script:
        "../workflow/scripts/manifest.py"
