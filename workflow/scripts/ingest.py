"""Check, decode and validate the episodes of one batch."""

from cis490.logs import job

with job(snakemake.log[0]):
    from pathlib import Path

    from cis490.episodes.ingest import ingest
    from cis490.episodes.tarball import Limits
    from cis490.files import read_json

    ingest(
        read_json(snakemake.input.manifest),
        store=snakemake.config["store"],
        limits=Limits.from_config(snakemake.config),
        verdicts=snakemake.output.verdicts,
        folder=Path(snakemake.output.telemetry[0]).parent,
    )
