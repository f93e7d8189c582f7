"""Name the files of windows that the jobs of a split read."""

from cis490.logs import job

with job(snakemake.log[0]):
    from cis490.manifest import write_manifest

    write_manifest(snakemake.input.features, snakemake.input.tensors, snakemake.output.manifest)
