"""Train one architecture in one mode on a split."""

from cis490.logs import job

with job(snakemake.log[0]):
    from pathlib import Path

    from cis490.manifest import read_manifest
    from cis490.training.train import Places, train

    windows = read_manifest(snakemake.input.windows).here()
    model = (
        f"{snakemake.wildcards.split}/{snakemake.wildcards.architecture}_{snakemake.wildcards.mode}"
    )
    train(
        snakemake.wildcards.architecture,
        snakemake.wildcards.mode,
        schema_file=snakemake.input.schema,
        fit_file=snakemake.input.fit,
        features=windows.features,
        tensors=windows.tensors,
        config=snakemake.config,
        code=snakemake.params.code,
        out=Path(snakemake.output.model).parent,
        places=Places.under(Path("results"), model, snakemake.config),
        tuning=snakemake.input.tuning or None,
    )
