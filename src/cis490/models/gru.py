"""A gated recurrent unit network (Cho et al. 2014)."""

from __future__ import annotations

from torch import nn

from cis490.models.network import Backbone, NetworkClassifier
from cis490.models.recurrent import Recurrent


class GRU(NetworkClassifier):
    """One bidirectional GRU layer over patches; `embed` gives its mean and maximum over time."""

    def _backbone(self, n_inputs: int, n_timepoints: int) -> Backbone:  # noqa: ARG002
        return Recurrent(n_inputs, nn.GRU)
