"""A long short-term memory network (Hochreiter and Schmidhuber 1997)."""

from __future__ import annotations

from torch import nn

from cis490.models.network import Backbone, NetworkClassifier
from cis490.models.recurrent import Recurrent


class LSTM(NetworkClassifier):
    """One bidirectional LSTM layer over patches; `embed` gives its mean and maximum over time."""

    def _backbone(self, n_inputs: int, n_timepoints: int) -> Backbone:  # noqa: ARG002
        return Recurrent(n_inputs, nn.LSTM)
