"""Write the report for people, comparison_v2.md, from the evaluations of all splits."""

from cis490.logs import job

with job(snakemake.log[0]):
    from cis490.report.comparison import write_comparison
    from cis490.report.results import STAGES

    write_comparison(
        validation=snakemake.input.validation,
        splits=snakemake.input.splits,
        metrics=snakemake.input.metrics,
        pairwise=snakemake.input.pairwise,
        trainings=snakemake.input.trainings,
        evals=snakemake.input.evals,
        curves=snakemake.input.curves,
        stages={name: snakemake.input.get(name, []) for name in STAGES},
        out=snakemake.output.report,
    )
