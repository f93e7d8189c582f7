"""Alarms in time and ranking of all trained models of one split."""

from cis490.logs import job

with job(snakemake.log[0]):
    from cis490.evaluation.detection import detect
    from cis490.manifest import read_manifest

    detect(
        split_file=snakemake.input.split,
        split_json=snakemake.input.split_json,
        features=read_manifest(snakemake.input.windows).here().features,
        episodes=snakemake.input.episodes,
        labels=snakemake.input.labels,
        models=snakemake.input.models,
        predictions=snakemake.input.predictions,
        out_of_fold=snakemake.input.out_of_fold,
        detection=snakemake.output.detection,
        alarms=snakemake.output.alarms,
        window=snakemake.params.window,
        **snakemake.params.evaluation,
    )
