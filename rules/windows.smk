"""Windows: from telemetry to summary features and tensors on a regular grid.

Needs: results/telemetry.
Makes: results/schema.json, results/features, results/tensors.
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
