"""Probes: what could embarrass the detectors of a split, and what the guest's word is worth.

Needs: results/models, results/predictions, results/splits, results/windows,
results/telemetry, results/verdicts, results/schema.json.
Makes: results/probes, unless the setting `probes` is false.
"""


rule probes:
    """All probes of a split; those that train use gbt and windows of a bounded number."""
    input:
        schema="results/schema.json",
        split="results/splits/{split}.parquet",
        split_json="results/splits/{split}.json",
        verdicts=of_batches("results/verdicts/{batch}.parquet", "train"),
        windows="results/windows/{split}/all.json",
        learned="results/windows/{split}/fit.json",
        episodes=of_batches(
            "results/telemetry/{batch}/episodes.parquet", "train", "test"
        ),
        labels=of_batches("results/telemetry/{batch}/labels.parquet", "train", "test"),
        execs=of_batches("results/telemetry/{batch}/exec.parquet", "train", "test"),
        models=expand("results/models/{{split}}/{model}/model.json", model=MODELS),
        weights=expand(
            "results/models/{{split}}/{model}/weights.safetensors", model=MODELS
        ),
        predictions=expand(
            "results/predictions/{{split}}/{model}.parquet", model=MODELS
        ),
    output:
        probes="results/probes/{split}/probes.parquet",
    log:
        "results/logs/probes/{split}.log",
    benchmark:
        "results/benchmarks/probes/{split}.tsv"
    conda:
        "../envs/environment.yaml"
    threads: config["training"]["threads"]
    resources:
        **needs("sample"),
    params:
        split=lambda wildcards: training_settings(SPLITS[wildcards.split]),
        seeds=config["seeds"],
        training=TRAINING,
        own=config["architectures"].get("gbt", {}),
        replicates=config["evaluation"]["replicates"],
        code=code_of("probes"),
    script:
        "../workflow/scripts/probes.py"
