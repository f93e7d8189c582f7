"""Make the features and tensors of one batch."""

from cis490.logs import job

with job(snakemake.log[0]):
    from pathlib import Path

    from cis490.files import read_json
    from cis490.schema import Schema
    from cis490.windows.build import build

    build(
        Path(snakemake.input.telemetry[0]).parent,
        Schema.from_dict(read_json(snakemake.input.schema)),
        features=snakemake.output.features,
        tensors=snakemake.output.tensors,
    )
