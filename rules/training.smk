"""Training: each architecture in each mode on each split, and its predictions.

Needs: results/splits, results/features, results/tensors, results/schema.json.
Makes: results/models, results/predictions.
"""


rule train:
    """Train one architecture in one mode; a training that fails by itself says so in its model."""
    input:
        schema="results/schema.json",
        fit="results/splits/fit/{split}.parquet",
        features=of_batches("results/features/{batch}.parquet", "train"),
        tensors=of_batches("results/tensors/{batch}.safetensors", "train"),
    output:
        model="results/models/{split}/{architecture}_{mode}/model.json",
        weights="results/models/{split}/{architecture}_{mode}/weights.safetensors",
        history="results/models/{split}/{architecture}_{mode}/history.parquet",
    log:
        "results/logs/train/{split}/{architecture}_{mode}.log",
    benchmark:
        "results/benchmarks/train/{split}/{architecture}_{mode}.tsv"
    conda:
        "../envs/environment.yaml"
    threads: config["training"]["threads"]
    resources:
        gpu=gpus,
    params:
        seeds=config["seeds"],
        # The device is no reason to train again; everything else is.
        training={k: v for k, v in config["training"].items() if k != "device"},
        code=code_of("train"),
    script:
        "../workflow/scripts/train.py"


rule predict:
    """Probabilities of every val and test window, and what one window costs."""
    input:
        model="results/models/{split}/{architecture}_{mode}/model.json",
        weights="results/models/{split}/{architecture}_{mode}/weights.safetensors",
        schema="results/schema.json",
        split="results/splits/{split}.parquet",
        features=of_batches("results/features/{batch}.parquet", "train", "test"),
        tensors=of_batches("results/tensors/{batch}.safetensors", "train", "test"),
    output:
        predictions="results/predictions/{split}/{architecture}_{mode}.parquet",
        latency="results/predictions/{split}/{architecture}_{mode}_latency.json",
    log:
        "results/logs/predict/{split}/{architecture}_{mode}.log",
    benchmark:
        "results/benchmarks/predict/{split}/{architecture}_{mode}.tsv"
    conda:
        "../envs/environment.yaml"
    threads: config["training"]["threads"]
    resources:
        gpu=gpus,
    params:
        code=code_of("predict"),
    script:
        "../workflow/scripts/predict.py"
