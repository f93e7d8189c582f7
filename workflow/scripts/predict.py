"""Predict every val and test window of a split with one trained model."""

from cis490.logs import job

with job(snakemake.log[0]):
    from pathlib import Path

    from cis490.manifest import read_manifest
    from cis490.training.predict import predict

    windows = read_manifest(snakemake.input.windows).here()
    predict(
        model_dir=Path(snakemake.input.model).parent,
        schema_file=snakemake.input.schema,
        split_file=snakemake.input.split,
        features=windows.features,
        tensors=windows.tensors,
        config=snakemake.config,
        out=snakemake.output.predictions,
        latency_out=snakemake.output.latency,
    )
