"""Draw how the trainings of a split went."""

from cis490.logs import job

with job(snakemake.log[0]):
    from cis490.report.curves import write_curves

    write_curves(snakemake.input.models, snakemake.input.histories, snakemake.output.curves)
