"""Clustered intervals, paired tests and Holm: `compare_detectors` (docs/evaluation.md)."""

from cis490.evaluation.comparison import Comparison, InputError, compare_detectors

__all__ = ["Comparison", "InputError", "compare_detectors"]
