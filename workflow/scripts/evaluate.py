"""Score all detectors of one split on the same windows and the same bootstrap replicates."""

from cis490.logs import job

with job(snakemake.log[0]):
    from cis490.evaluation.evaluate import evaluate
    from cis490.manifest import read_manifest

    evaluate(
        split_file=snakemake.input.split,
        split_json=snakemake.input.split_json,
        features=read_manifest(snakemake.input.windows).here().features,
        predictions=snakemake.input.predictions,
        latencies=snakemake.input.latencies,
        models=snakemake.input.models,
        metrics=snakemake.output.metrics,
        pairwise=snakemake.output.pairwise,
        evals=snakemake.output.evals,
        replicates=snakemake.params.replicates,
    )
