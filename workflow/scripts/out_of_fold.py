"""Predict every train and val window of a split with models that did not see its episode."""

from cis490.logs import job

with job(snakemake.log[0]):
    from pathlib import Path

    from cis490.manifest import read_manifest
    from cis490.training.folds import out_of_fold

    windows = read_manifest(snakemake.input.windows).here()
    out_of_fold(
        snakemake.wildcards.architecture,
        snakemake.wildcards.mode,
        schema_file=snakemake.input.schema,
        fit_file=snakemake.input.fit,
        model_file=Path(snakemake.input.model),
        features=windows.features,
        tensors=windows.tensors,
        config=snakemake.config,
        code=snakemake.params.code,
        out=Path(snakemake.output.predictions),
        rivals=[Path(path) for path in snakemake.input.rivals],
    )
