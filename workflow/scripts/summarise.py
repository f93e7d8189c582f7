"""Write summary.json of a split: every model's seeds on val."""

from cis490.logs import job

with job(snakemake.log[0]):
    from pathlib import Path

    from cis490.training.summary import summarise

    summarise([Path(path) for path in snakemake.input.models], Path(snakemake.output.summary))
