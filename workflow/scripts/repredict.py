"""Predict perturbed windows with each trained model of a split."""

from cis490.logs import job

with job(snakemake.log[0]):
    from pathlib import Path

    from cis490.robustness.repredict import repredict

    for model, out in zip(snakemake.input.models, snakemake.output.repredicted, strict=True):
        repredict(
            model_dir=Path(model).parent,
            schema_file=Path(snakemake.input.schema),
            episodes=Path(snakemake.input.episodes),
            features=[Path(path) for path in snakemake.input.features],
            tensors=[Path(path) for path in snakemake.input.tensors],
            config=snakemake.config,
            out=Path(out),
        )
