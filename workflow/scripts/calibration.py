"""Temperatures, reliability and prediction sets of all models of one split."""

from cis490.logs import job

with job(snakemake.log[0]):
    from cis490.evaluation.calibrate import calibrate
    from cis490.manifest import read_manifest

    calibrate(
        split_file=snakemake.input.split,
        split_json=snakemake.input.split_json,
        features=read_manifest(snakemake.input.windows).here().features,
        models=snakemake.input.models,
        predictions=snakemake.input.predictions,
        out_of_fold=snakemake.input.out_of_fold,
        calibration=snakemake.output.calibration,
        reliability=snakemake.output.reliability,
        replicates=snakemake.params.replicates,
    )
