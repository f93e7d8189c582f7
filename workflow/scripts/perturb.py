"""Make the windows of some episodes of the part shown anew, from telemetry made worse."""

from cis490.logs import job

with job(snakemake.log[0]):
    from pathlib import Path

    from cis490.robustness.conditions import conditions
    from cis490.robustness.rebuild import rebuild

    rebuild(
        split_file=Path(snakemake.input.split),
        schema_file=Path(snakemake.input.schema),
        telemetry_dirs=sorted({Path(path).parent for path in snakemake.input.telemetry}),
        conditions=conditions(snakemake.params.robustness),
        most=snakemake.params.robustness["episodes"],
        features=[Path(path) for path in snakemake.output.features],
        tensors=[Path(path) for path in snakemake.output.tensors],
        episodes=Path(snakemake.output.episodes),
    )
