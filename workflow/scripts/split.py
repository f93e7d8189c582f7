"""Give each usable episode its part in one split."""

from cis490.logs import job

with job(snakemake.log[0]):
    from cis490.splits import write_split

    write_split(
        snakemake.input.verdicts,
        snakemake.params.split,
        trainable=snakemake.input.trainable,
        fit=snakemake.input.fit,
        parquet=snakemake.output.parquet,
        json=snakemake.output.json,
    )
