"""Every kind of layer with what is known about it. To make another kind known everywhere, describe it in `LAYERS`.

What channels do inside a layer is told by the rules in `tfprune/channels/rules`, and how it is computed in int8 by
those in `tfprune/lite/quantize/rules.py`; both ask here for axes and equations.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import keras

from tfprune.model.hooks import class_of_applications, convolutional_cell, operation_name
from tfprune.model.layers import counts
from tfprune.model.layers.counts import Count, Shape
from tfprune.model.layers.equation import Equation
from tfprune.model.layers.linear import (
    LinearForm,
    convolution_form,
    depthwise_form,
    einsum_form,
    product_form,
    separable_depthwise_form,
    separable_pointwise_form,
)
from tfprune.model.layers.shapes import UnknownShapeError, product


class Axes(NamedTuple):
    """Which axes of a kernel count channels.

    Args:
        inputs: The input channels, which TFLite stores last.
        outputs: The output channels; two axes where each input channel makes some of its own.
    """

    inputs: int
    outputs: tuple[int, ...]


@dataclass(frozen=True)
class Facts:
    """What is known about a class of layers.

    Args:
        kernels: Axes of each kernel, by its name.
        width: What the configuration calls the number of output channels.
        forms: Makes the linear form of a kernel, by its name. A kernel without one is multiplied in another way.
        macs: Counts the multiply-accumulates of a call. Defaults to None: not known.
        by_channel: Whether each channel of its result comes of that channel of its one input alone, at any width.
    """

    kernels: Mapping[str, Axes] = field(default_factory=dict)
    width: str | None = None
    forms: Mapping[str, Callable[[Any], LinearForm]] = field(default_factory=dict)
    macs: Count | None = None
    by_channel: bool = False

    @property
    def is_depthwise(self) -> bool:
        """Whether each input channel makes output channels of its own."""
        return "kernel" in self.kernels and self.kernels["kernel"].inputs in self.kernels["kernel"].outputs


def facts_of(layer: Any) -> Facts:
    """What is known about a layer: that of its class, or of the nearest base class that is described."""
    for kind in type(layer).__mro__:
        if kind in LAYERS:
            facts = LAYERS[kind]
            return facts if isinstance(facts, Facts) else facts(layer)
    return NOTHING


def keeps_channels_apart(layer: Any) -> bool:
    """Whether a layer of Keras' own makes each channel of its result of that channel of its one input alone."""
    return facts_of(layer).by_channel and type(layer).__module__.startswith("keras.")


def layer_macs(
    operation: Any, input_shapes: Sequence[Shape] | Shape, output_shapes: Sequence[Shape] | Shape
) -> int | None:
    """Counts the multiply-accumulates of one call of a layer or `keras.ops` operation, for one sample.

    Args:
        operation: A built layer, or the operation that a node of the graph holds.
        input_shapes: Shape of the input with the batch axis, or a list of shapes in the order of the call.
        output_shapes: Likewise for the outputs.

    Returns:
        The count; 0 for what does not multiply and for kinds not known; None when a size that matters is None.
    """
    operation = getattr(operation, "holds_masks_of", operation)  # a PrunedLayer costs what its layer costs
    count = count_of(operation)
    if count is None:
        return 0
    try:
        return count(operation, shapes_of(input_shapes), shapes_of(output_shapes))
    except UnknownShapeError:
        return None


def is_counted(operation: Any) -> bool:
    """Whether the multiply-accumulates of a layer or operation are known; what has no weights counts as 0."""
    operation = getattr(operation, "holds_masks_of", operation)
    return count_of(operation) is not None or not getattr(operation, "weights", None)


def count_of(operation: Any) -> Count | None:
    """The function that counts the multiply-accumulates of a layer or operation, None where there is none."""
    if isinstance(operation, keras.Layer):
        return facts_of(operation).macs
    return OPERATIONS.get(operation_name(operation) or "")


def shapes_of(shapes: Any) -> list[Shape]:
    """One shape or several, as a list of shapes."""
    if all(size is None or isinstance(size, int) for size in shapes):
        return [tuple(shapes)]
    return [tuple(shape) for shape in shapes]


# --- layers that call others ------------------------------------------------------------------------------------------


def _bidirectional(layer: Any, inputs: list[Shape], outputs: list[Shape]) -> int:
    return _times(1, inputs, outputs, layer.forward_layer) + _times(1, inputs, outputs, layer.backward_layer)


def _time_distributed(layer: Any, inputs: list[Shape], outputs: list[Shape]) -> int:
    taken, given = ([(shape[0], *shape[2:]) for shape in shapes] for shapes in (inputs, outputs))
    return _times(inputs[0][1], taken, given, layer.layer)


def _wrapped(layer: Any, inputs: list[Shape], outputs: list[Shape]) -> int:
    return _times(1, inputs, outputs, layer.layer)


def _times(number: int | None, inputs: list[Shape], outputs: list[Shape], layer: Any) -> int:
    return product([number, layer_macs(layer, inputs, outputs)])


# --- the table --------------------------------------------------------------------------------------------------------


def _einsum(layer: Any) -> Facts:
    equation = Equation.parse(layer.equation)
    summed = [axis for axis, letter in enumerate(equation.kernel) if letter not in equation.result]
    made = tuple(axis for axis, letter in enumerate(equation.kernel) if letter in equation.result)
    return Facts({"kernel": Axes(max(summed, default=0), made)}, None, {"kernel": einsum_form}, counts.einsum_dense)


NOTHING = Facts()
FREE = Facts(macs=counts.nothing)
BY_CHANNEL = Facts(macs=counts.nothing, by_channel=True)

_L = keras.layers
_APPLICATIONS = (("convnext", "LayerScale"), ("inception_resnet_v2", "CustomScaleLayer"))
_SCALES = [kind for names in _APPLICATIONS if (kind := class_of_applications(*names)) is not None]
_MIDDLE, _LAST = Axes(-2, (-1,)), Axes(0, (-1,))
CONVOLUTION = Facts({"kernel": _MIDDLE}, "filters", {"kernel": convolution_form}, counts.convolution)
TRANSPOSED = Facts({"kernel": Axes(-1, (-2,))}, "filters", {}, counts.transposed_convolution)
DEPTHWISE = Facts({"kernel": Axes(-2, (-2, -1))}, None, {"kernel": depthwise_form}, counts.convolution)
SEPARABLE = Facts(
    {"depthwise_kernel": Axes(-2, (-2, -1)), "pointwise_kernel": _MIDDLE},
    "filters",
    {"depthwise_kernel": separable_depthwise_form, "pointwise_kernel": separable_pointwise_form},
    counts.separable_convolution,
)
CELL = Facts({"kernel": _LAST, "recurrent_kernel": _LAST}, "units", {}, counts.recurrent)
RECURRENT = Facts(macs=counts.recurrent)
CONVOLUTIONAL = Facts(macs=counts.convolutional_recurrent)
ATTENTION = Facts(macs=counts.multi_head_attention)
DOT_PRODUCT_ATTENTION = Facts(macs=counts.dot_product_attention)
EMBEDDING = Facts({"embeddings": Axes(-1, (-1,))}, "output_dim", {}, counts.nothing)

REVERSIBLE = Facts({**EMBEDDING.kernels, "reverse_embeddings": Axes(0, (-1,))}, "output_dim", {}, counts.nothing)

# Subclasses count as their nearest base.
LAYERS: dict[type, Facts | Callable[[Any], Facts]] = {
    _L.Dense: Facts({"kernel": _LAST}, "units", {"kernel": product_form}, counts.dense),
    _L.EinsumDense: _einsum,
    **dict.fromkeys([_L.Conv1D, _L.Conv2D, _L.Conv3D], CONVOLUTION),
    **dict.fromkeys([_L.Conv1DTranspose, _L.Conv2DTranspose, _L.Conv3DTranspose], TRANSPOSED),
    **dict.fromkeys([_L.DepthwiseConv1D, _L.DepthwiseConv2D], DEPTHWISE),
    **dict.fromkeys([_L.SeparableConv1D, _L.SeparableConv2D], SEPARABLE),
    _L.Embedding: EMBEDDING,
    **({_L.ReversibleEmbedding: REVERSIBLE} if hasattr(_L, "ReversibleEmbedding") else {}),  # since Keras 3.12
    **dict.fromkeys([_L.LSTMCell, _L.GRUCell, _L.SimpleRNNCell], CELL),
    _L.RNN: RECURRENT,  # LSTM, GRU and SimpleRNN among them
    convolutional_cell(): Facts({"kernel": _MIDDLE, "recurrent_kernel": _MIDDLE}),
    **dict.fromkeys([_L.ConvLSTM1D, _L.ConvLSTM2D, _L.ConvLSTM3D], CONVOLUTIONAL),
    **dict.fromkeys([_L.MultiHeadAttention, _L.GroupQueryAttention], ATTENTION),
    **dict.fromkeys([_L.Attention, _L.AdditiveAttention], DOT_PRODUCT_ATTENTION),
    _L.Bidirectional: Facts(macs=_bidirectional),
    _L.TimeDistributed: Facts(macs=_time_distributed),
    _L.SpectralNormalization: Facts(macs=_wrapped),
    _L.Dot: Facts(macs=counts.dot),
    **dict.fromkeys([_L.LayerNormalization, _L.GroupNormalization, _L.UnitNormalization, _L.RMSNormalization], FREE),
    **dict.fromkeys([_L.Normalization, *_SCALES], FREE),
    **dict.fromkeys([_L.BatchNormalization, _L.ReLU, _L.LeakyReLU, _L.ELU, _L.PReLU, _L.Dropout], BY_CHANNEL),
    **dict.fromkeys([_L.MaxPooling1D, _L.MaxPooling2D, _L.MaxPooling3D], BY_CHANNEL),
    **dict.fromkeys([_L.AveragePooling1D, _L.AveragePooling2D, _L.AveragePooling3D], BY_CHANNEL),
    **dict.fromkeys([_L.GlobalMaxPooling1D, _L.GlobalMaxPooling2D, _L.GlobalMaxPooling3D], BY_CHANNEL),
    **dict.fromkeys([_L.GlobalAveragePooling1D, _L.GlobalAveragePooling2D, _L.GlobalAveragePooling3D], BY_CHANNEL),
    **dict.fromkeys([_L.ZeroPadding1D, _L.ZeroPadding2D, _L.ZeroPadding3D], BY_CHANNEL),
}
OPERATIONS: dict[str, Count] = {"Matmul": counts.matmul, "Einsum": counts.einsum}
