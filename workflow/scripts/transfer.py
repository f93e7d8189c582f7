"""Predict each host by models that know other episodes of it, and by models that do not."""

from cis490.logs import job

with job(snakemake.log[0]):
    from pathlib import Path

    from cis490.manifest import read_manifest
    from cis490.transfer.predict import transfer

    windows = read_manifest(snakemake.input.windows).here()
    transfer(
        snakemake.wildcards.mode,
        snakemake.wildcards.side,
        model_files=[Path(path) for path in snakemake.input.models],
        schema_file=Path(snakemake.input.schema),
        split_file=Path(snakemake.input.known),
        features=windows.features,
        tensors=windows.tensors,
        config=snakemake.config,
        code=snakemake.params.code,
        out=Path(snakemake.output.predictions),
    )
