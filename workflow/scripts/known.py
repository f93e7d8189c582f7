"""Choose the episodes of one split that were there by `as_of`."""

from cis490.logs import job

with job(snakemake.log[0]):
    from cis490.splits import write_known

    write_known(snakemake.input.verdicts, snakemake.params.split, snakemake.output.known)
