"""Write the report as a page, its pictures, and its summary for machines."""

from pathlib import Path

from cis490.logs import job

with job(snakemake.log[0]):
    from cis490.report.page import write_page
    from cis490.report.results import STAGES

    write_page(
        validation=snakemake.input.validation,
        schema=snakemake.input.schema,
        splits=snakemake.input.splits,
        metrics=snakemake.input.metrics,
        pairwise=snakemake.input.pairwise,
        trainings=snakemake.input.trainings,
        evals=snakemake.input.evals,
        metadata=snakemake.input.metadata,
        predictions=snakemake.input.predictions,
        curves=snakemake.input.curves,
        stages={name: snakemake.input.get(name, []) for name in STAGES},
        out=snakemake.output.page,
        pictures=Path(snakemake.output.page).parent / "pictures",
        summary=snakemake.output.summary,
    )
