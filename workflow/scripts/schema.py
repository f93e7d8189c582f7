"""Write down what the columns of features and tensors mean."""

from cis490.logs import job

with job(snakemake.log[0]):
    from cis490.files import write_json
    from cis490.schema import Schema

    write_json(snakemake.output.schema, Schema.from_config(snakemake.config).to_dict())
