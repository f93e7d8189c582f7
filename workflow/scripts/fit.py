"""Choose the training and val episodes of one split."""

from cis490.logs import job

with job(snakemake.log[0]):
    from cis490.splits import write_fit

    write_fit(snakemake.input.verdicts, snakemake.params.split, snakemake.output.fit)
