"""A run as people see it: its journal, how it is doing, what is left, and where time went.

Nothing here knows Snakemake: `snakemake_logger_plugin_cis490` turns what it says into the events of
`journal`, and what is here works on them, in the run itself or long after it.
"""
