"""A long short-term memory network (Hochreiter and Schmidhuber 1997), as in LSTM-FCN."""

from __future__ import annotations

from typing import ClassVar

from torch import nn

from cis490.models.network import Backbone, NetworkClassifier
from cis490.models.options import Presets
from cis490.models.recurrent import PRESETS, Recurrent


class LSTM(NetworkClassifier):
    """A bidirectional LSTM and convolutions; `embed` gives their means and maxima over time."""

    presets: ClassVar[Presets] = PRESETS

    def _backbone(self, n_inputs: int, n_timepoints: int) -> Backbone:
        return Recurrent(n_inputs, n_timepoints, nn.LSTM, **self._backbone_options)
