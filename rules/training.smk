"""Training: each architecture in each mode on each split, and its predictions.

Needs: results/splits, results/windows (what to read of results/features and results/tensors),
results/schema.json.
Makes: results/models, results/oof, results/predictions; results/tuning if `tune` asks for it; results/cache,
which may be removed at any time.
"""


rule tune:
    """Search one architecture's settings in one mode on val; runs where `tune` asks for it."""
    input:
        schema="results/schema.json",
        fit="results/splits/fit/{split}.parquet",
        windows="results/windows/{split}/fit.json",
    output:
        tuning="results/tuning/{split}/{architecture}_{mode}.json",
    log:
        "results/logs/tune/{split}/{architecture}_{mode}.log",
    benchmark:
        "results/benchmarks/tune/{split}/{architecture}_{mode}.tsv"
    conda:
        "../envs/environment.yaml"
    threads: ROUND * config["training"]["threads"]
    resources:
        **needs("tune"),
        gpu=gpus,
    params:
        trials=config["tuning"]["trials"],
        seeds=config["seeds"],
        training=TRAINING,
        own=lambda wildcards: config["architectures"].get(wildcards.architecture, {}),
        code=code_of("tune"),
    script:
        "../workflow/scripts/tune.py"


rule train:
    """Train one architecture in one mode; a training that fails by itself says so in its model."""
    input:
        schema="results/schema.json",
        fit="results/splits/fit/{split}.parquet",
        windows="results/windows/{split}/fit.json",
        tuning=tuning,
    output:
        **extras("tensorboard", "results/tensorboard/{split}/{architecture}_{mode}"),
        **extras("profile", "results/profile/{split}/{architecture}_{mode}"),
        model="results/models/{split}/{architecture}_{mode}/model.json",
        weights="results/models/{split}/{architecture}_{mode}/weights.safetensors",
        history="results/models/{split}/{architecture}_{mode}/history.parquet",
        collapses="results/models/{split}/{architecture}_{mode}/collapse_report.json",
        metadata="results/models/{split}/{architecture}_{mode}/training_metadata.json",
    log:
        "results/logs/train/{split}/{architecture}_{mode}.log",
    benchmark:
        "results/benchmarks/train/{split}/{architecture}_{mode}.tsv"
    conda:
        "../envs/environment.yaml"
    threads: config["training"]["threads"]
    resources:
        **needs("learn"),
        gpu=gpus,
    params:
        seeds=config["seeds"],
        training=TRAINING,
        own=lambda wildcards: config["architectures"].get(wildcards.architecture, {}),
        code=code_of("train"),
    script:
        "../workflow/scripts/train.py"


rule out_of_fold:
    """Probabilities of every train and val window by models that did not see its episode."""
    input:
        schema="results/schema.json",
        fit="results/splits/fit/{split}.parquet",
        model="results/models/{split}/{architecture}_{mode}/model.json",
        rivals=rivals,
        windows="results/windows/{split}/fit.json",
    output:
        predictions="results/oof/{split}/{architecture}_{mode}.parquet",
    log:
        "results/logs/out_of_fold/{split}/{architecture}_{mode}.log",
    benchmark:
        "results/benchmarks/out_of_fold/{split}/{architecture}_{mode}.tsv"
    conda:
        "../envs/environment.yaml"
    threads: config["training"]["threads"]
    resources:
        **needs("learn"),
        gpu=gpus,
    params:  # all other settings make another model.json
        folds=config["evaluation"]["folds"],
        code=code_of("out_of_fold"),
    script:
        "../workflow/scripts/out_of_fold.py"


rule summarise:
    """Every model's seeds on val, with what the figures rest on."""
    input:
        models=expand("results/models/{{split}}/{model}/model.json", model=MODELS),
    output:
        summary="results/models/{split}/summary.json",
    log:
        "results/logs/summarise/{split}.log",
    benchmark:
        "results/benchmarks/summarise/{split}.tsv"
    conda:
        "../envs/environment.yaml"
    resources:
        **needs("step"),
    params:
        code=code_of("summarise"),
    script:
        "../workflow/scripts/summarise.py"


rule predict:
    """Probabilities of every val and test window, and what one window costs."""
    input:
        model="results/models/{split}/{architecture}_{mode}/model.json",
        weights="results/models/{split}/{architecture}_{mode}/weights.safetensors",
        schema="results/schema.json",
        split="results/splits/{split}.parquet",
        windows="results/windows/{split}/all.json",
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
        **needs("predict"),
        gpu=gpus,
    params:
        code=code_of("predict"),
    script:
        "../workflow/scripts/predict.py"
