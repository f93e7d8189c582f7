"""Probe one split: what could embarrass its detectors, and what the guest's word is worth."""

from cis490.logs import job

with job(snakemake.log[0]):
    from pathlib import Path

    from cis490.manifest import read_manifest
    from cis490.probes.probe import Inputs, probe

    probe(
        Inputs(
            schema_file=snakemake.input.schema,
            split_file=snakemake.input.split,
            split_json=snakemake.input.split_json,
            verdicts=snakemake.input.verdicts,
            features=read_manifest(snakemake.input.windows).here().features,
            tensors=read_manifest(snakemake.input.learned).here().tensors,
            episodes=snakemake.input.episodes,
            labels=snakemake.input.labels,
            execs=snakemake.input.execs,
            models=snakemake.input.models,
            predictions=snakemake.input.predictions,
        ),
        fit_settings=snakemake.params.split,
        config=snakemake.config,
        out=Path(snakemake.output.probes),
    )
