"""Score all models of one split on perturbed windows, and draw what they lose."""

from cis490.logs import job

with job(snakemake.log[0]):
    from pathlib import Path

    from cis490.robustness.conditions import conditions
    from cis490.robustness.picture import write_robustness
    from cis490.robustness.table import tabulate

    tabulate(
        split_json=Path(snakemake.input.split_json),
        episodes=Path(snakemake.input.episodes),
        repredicted=[Path(path) for path in snakemake.input.repredicted],
        replicates=snakemake.params.replicates,
        out=Path(snakemake.output.robustness),
    )
    write_robustness(
        Path(snakemake.output.robustness),
        conditions(snakemake.params.robustness),
        metrics=Path(snakemake.input.metrics),
        out=Path(snakemake.output.picture),
    )
