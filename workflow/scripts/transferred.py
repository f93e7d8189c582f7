"""Score in-host and cross-host predictions of a split on the same episodes."""

from cis490.logs import job

with job(snakemake.log[0]):
    from pathlib import Path

    from cis490.transfer.table import tabulate

    tabulate(
        split_json=Path(snakemake.input.split_json),
        predictions=[Path(path) for path in snakemake.input.predictions],
        replicates=snakemake.params.replicates,
        out=Path(snakemake.output.transfer),
    )
