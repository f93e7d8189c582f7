"""Probes that could embarrass a detector, and what the guest's word is worth (docs/statistics.md).

A file a probe. Each gives rows of metrics.parquet under the scope `probe`, or raises
`NotMeasurable`; `probe.probe` runs them all. Those that retrain use gbt.
"""
