"""What a layer is, said once for each class of layers.

In comes a layer; out go its kernels with their axes, its output as a product of matrices, the multiply-accumulates of
a call, and what becomes of its channels. A kind of layer is described in `table.py`, and then known everywhere.
"""

from tfprune.model.layers.activation import is_activation, is_entrywise, is_mixing
from tfprune.model.layers.equation import Equation, letter_axes
from tfprune.model.layers.linear import LinearForm
from tfprune.model.layers.shapes import channel_axis, has_borders
from tfprune.model.layers.table import Axes, Facts, facts_of, is_counted, keeps_channels_apart, layer_macs, shapes_of

__all__ = [
    "Axes",
    "Equation",
    "Facts",
    "LinearForm",
    "channel_axis",
    "facts_of",
    "has_borders",
    "is_activation",
    "is_counted",
    "is_entrywise",
    "is_mixing",
    "keeps_channels_apart",
    "layer_macs",
    "letter_axes",
    "shapes_of",
]
