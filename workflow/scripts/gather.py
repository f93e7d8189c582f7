"""Put the verdicts of all batches into one table, and write a page on what the store holds."""

from cis490.logs import job

with job(snakemake.log[0]):
    from cis490.episodes.summary import gather
    from cis490.files import read_json

    gather(
        snakemake.input.verdicts,
        read_json(snakemake.input.index),
        parquet=snakemake.output.parquet,
        markdown=snakemake.output.markdown,
    )
