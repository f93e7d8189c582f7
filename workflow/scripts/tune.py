"""Search the settings of one architecture in one mode on a split."""

if __name__ == "__main__":  # the search's worker processes import this file
    from cis490.logs import job

    with job(snakemake.log[0]):
        from pathlib import Path

        from cis490.manifest import read_manifest
        from cis490.training.search import tune
        from cis490.training.train import rates_under
        from cis490.training.trial import Source

        windows = read_manifest(snakemake.input.windows).here()
        training = snakemake.config["training"]
        source = Source(
            snakemake.wildcards.architecture,
            snakemake.wildcards.mode,
            schema_file=snakemake.input.schema,
            fit_file=snakemake.input.fit,
            features=windows.features,
            tensors=windows.tensors,
            rates=rates_under(Path("results")),
            rate_hours=training["rate_cache_hours"],
            code=snakemake.params.code,
        )
        tune(
            source,
            config=snakemake.config,
            out=Path(snakemake.output.tuning),
            workers=max(1, snakemake.threads // training["threads"]),
        )
