"""A gated recurrent unit network (Cho et al. 2014) beside convolutions, as in GRU-FCN."""

from __future__ import annotations

from typing import ClassVar

from torch import nn

from cis490.models.network import Backbone, NetworkClassifier
from cis490.models.options import Presets
from cis490.models.recurrent import PRESETS, Recurrent


class GRU(NetworkClassifier):
    """A bidirectional GRU and convolutions; `embed` gives their means and maxima over time."""

    presets: ClassVar[Presets] = PRESETS

    def _backbone(self, n_inputs: int, n_timepoints: int) -> Backbone:
        return Recurrent(n_inputs, n_timepoints, nn.GRU, **self._backbone_options)
