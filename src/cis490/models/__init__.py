"""Six architectures behind one class: `create` one, then `fit`, `predict_proba` and `embed`."""

from cis490.models.base import Classifier, Columns, FitSettings, InputError
from cis490.models.registry import ARCHITECTURES, BASELINES, create, get_class
from cis490.models.views import CodedSeries, WindowView

__all__ = [
    "ARCHITECTURES",
    "BASELINES",
    "Classifier",
    "CodedSeries",
    "Columns",
    "FitSettings",
    "InputError",
    "WindowView",
    "create",
    "get_class",
]
