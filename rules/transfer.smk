"""Transfer: what a detector loses on a machine it has never seen, for each host in turn.

Needs: results/models, results/splits, results/windows, results/schema.json.
Makes: results/transfer, unless the setting `transfer.run` is false.
"""


rule transfer:
    """Each host predicted by models that know other episodes of it, or by models that do not."""
    input:
        models=lambda wildcards: expand(
            "results/models/{split}/{architecture}_{mode}/model.json",
            split=wildcards.split,
            architecture=LEARNERS[wildcards.learner],
            mode=wildcards.mode,
        ),
        schema="results/schema.json",
        known="results/splits/known/{split}.parquet",
        windows="results/windows/{split}/known.json",
    output:
        predictions="results/transfer/{split}/{side}/{learner}_{mode}.parquet",
    log:
        "results/logs/transfer/{split}/{side}/{learner}_{mode}.log",
    benchmark:
        "results/benchmarks/transfer/{split}/{side}/{learner}_{mode}.tsv"
    priority: 1  # among the longest: as soon as it can begin
    conda:
        "../envs/environment.yaml"
    threads: config["training"]["threads"]
    resources:
        **needs("sample"),
        gpu=gpus,
    params:  # all other settings make another model.json
        folds=config["evaluation"]["folds"],
        episodes=config["transfer"]["episodes"],
        code=code_of("transfer"),
    script:
        "../workflow/scripts/transfer.py"


rule transferred:
    """In-host beside cross-host, on the same episodes."""
    input:
        split_json="results/splits/{split}.json",
        predictions=expand(
            "results/transfer/{{split}}/{side}/{model}.parquet",
            side=SIDES,
            model=TRANSFERRED,
        ),
    output:
        transfer="results/transfer/{split}/transfer.parquet",
    log:
        "results/logs/transferred/{split}.log",
    benchmark:
        "results/benchmarks/transferred/{split}.tsv"
    conda:
        "../envs/environment.yaml"
    resources:
        **needs("step"),
    params:
        replicates=config["evaluation"]["replicates"],
        code=code_of("transferred"),
    script:
        "../workflow/scripts/transferred.py"
