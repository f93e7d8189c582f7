"""Predict perturbed windows with one trained model."""

from cis490.logs import job

with job(snakemake.log[0]):
    from pathlib import Path

    from cis490.robustness.repredict import repredict

    repredict(
        model_dir=Path(snakemake.input.model).parent,
        schema_file=Path(snakemake.input.schema),
        episodes=Path(snakemake.input.episodes),
        features=[Path(path) for path in snakemake.input.features],
        tensors=[Path(path) for path in snakemake.input.tensors],
        config=snakemake.config,
        out=Path(snakemake.output.repredicted),
    )
