"""Multiply-accumulates of one forward pass for one sample: what a layer's arithmetic costs, whatever the device.

Counted are products of inputs with weights, and of activations with one another in attention and `matmul`. Adding a
bias, normalisation, activations, pooling and moving data count as 0, as is usual when networks are compared.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import keras

from tfprune.model.graph import Call, flow, is_graph, layer_paths
from tfprune.model.tree import children

Shape = tuple[int | None, ...]


class UnknownShapeError(Exception):
    """A size that the count needs is None in the graph."""


@dataclass(frozen=True)
class Macs:
    """Multiply-accumulates per sample, by layer.

    Attributes:
        layers: Layer path -> count over all its calls, for the layers that have weights or multiply activations;
            None where it cannot be known (a size in the graph is None, or the model is subclassed).
        unknown: Paths of the layers with weights of a kind not known here; they count as 0.
    """

    layers: dict[str, int | None] = field(default_factory=dict)
    unknown: list[str] = field(default_factory=list)

    @property
    def total(self) -> int | None:
        """The sum over the layers, None when one of them is not known."""
        counts = list(self.layers.values())
        return None if None in counts else sum(count for count in counts if count is not None)


def model_macs(model: keras.Model, input_shape: Any = None) -> Macs:
    """Counts the multiply-accumulates of `model` for one sample, layer by layer.

    Args:
        model: Functional or Sequential; nested models are opened, and a layer that is called twice counts twice. A
            subclassed model has no graph to read: its layers are listed with None.
        input_shape: Shape of one sample (a list of shapes for several inputs), for a model whose `Input` leaves sizes
            open; default: what the model says.

    >>> model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(4), keras.layers.Dense(2)])
    >>> model_macs(model).total
    40
    """
    counts: dict[str, int | None] = {}
    unknown: dict[str, None] = {}
    if not is_graph(model):
        for path, layer in layer_paths(model):
            if layer.weights:
                counts[path] = None
        return Macs(counts)

    def visit(call: Call) -> list[keras.KerasTensor]:
        tensors = [x for x in keras.tree.flatten((call.args, call.kwargs)) if isinstance(x, keras.KerasTensor)]
        outputs = _specs(call, tensors)
        count = layer_macs(call.operation, [x.shape for x in tensors], [x.shape for x in outputs])
        if not _is_known(getattr(call.operation, "holds_masks_of", call.operation)):
            unknown[call.path] = None
        if count != 0 or getattr(call.operation, "weights", None):
            before = counts.get(call.path, 0)
            counts[call.path] = None if count is None or before is None else before + count
        return outputs

    flow(model, _input_specs(model, input_shape), visit)
    return Macs(counts, list(unknown))


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
    count = _rule(operation)
    if count is None:
        return 0
    try:
        return count(operation, _shapes(input_shapes), _shapes(output_shapes))
    except UnknownShapeError:
        return None


def _dense(layer: Any, inputs: list[Shape], outputs: list[Shape]) -> int:
    return _product(outputs[0][1:-1]) * _size(layer.kernel)


def _einsum_dense(layer: Any, inputs: list[Shape], outputs: list[Shape]) -> int:
    # The kernel meets every axis of the input that it does not share; "..." and the batch come first among those.
    data, kernel = layer.equation.replace(" ", "").split("->")[0].split(",")
    before, dots, after = data.partition("...")
    shape = inputs[0]
    axes = dict(zip(before, shape)) | dict(zip(reversed(after), reversed(shape)))
    free = [size for axis, size in axes.items() if axis not in kernel]
    if dots:
        free = [*shape[len(before) : len(shape) - len(after)], *free]
    return _product(free[1:]) * _size(layer.kernel)


def _convolution(layer: Any, inputs: list[Shape], outputs: list[Shape]) -> int:
    # With groups the kernel holds the inputs of one group only, so its size already counts right.
    return _positions(layer, outputs[0]) * _size(layer.kernel)


def _transposed_convolution(layer: Any, inputs: list[Shape], outputs: list[Shape]) -> int:
    return _positions(layer, inputs[0]) * _size(layer.kernel)


def _separable_convolution(layer: Any, inputs: list[Shape], outputs: list[Shape]) -> int:
    return _positions(layer, outputs[0]) * (_size(layer.depthwise_kernel) + _size(layer.pointwise_kernel))


def _recurrent(layer: Any, inputs: list[Shape], outputs: list[Shape]) -> int:
    cell = getattr(layer, "cell", layer)
    steps = 1 if cell is layer else inputs[0][1]
    return _product([steps]) * (_size(cell.kernel) + _size(cell.recurrent_kernel))


def _convolutional_recurrent(layer: Any, inputs: list[Shape], outputs: list[Shape]) -> int:
    cell = layer.cell
    shape = (outputs[0][0], *outputs[0][2:]) if layer.return_sequences else outputs[0]
    return _product(inputs[0][1:2]) * _positions(layer, shape) * (_size(cell.kernel) + _size(cell.recurrent_kernel))


def _bidirectional(layer: Any, inputs: list[Shape], outputs: list[Shape]) -> int:
    return _sum(layer_macs(part, inputs, outputs) for part in (layer.forward_layer, layer.backward_layer))


def _time_distributed(layer: Any, inputs: list[Shape], outputs: list[Shape]) -> int:
    def frame(shapes: list[Shape]) -> list[Shape]:
        return [(shape[0], *shape[2:]) for shape in shapes]

    return _product([inputs[0][1], layer_macs(layer.layer, frame(inputs), frame(outputs))])


def _wrapped(layer: Any, inputs: list[Shape], outputs: list[Shape]) -> int:
    return _sum([layer_macs(layer.layer, inputs, outputs)])


def _multi_head_attention(layer: Any, inputs: list[Shape], outputs: list[Shape]) -> int:
    query, value = inputs[0], inputs[1] if len(inputs) > 1 else inputs[0]
    key = inputs[2] if len(inputs) > 2 and len(inputs[2]) == len(value) else value
    tokens, sources = _product(query[1:-1]), _product(value[1:-1])
    kernels = {child.name: child.kernel for child in children(layer) if hasattr(child, "kernel")}
    read = {"key": _product(key[1:-1]), "value": sources}
    projections = sum(read.get(name, tokens) * _size(kernel) for name, kernel in kernels.items())
    # Scores, then the weighted sum: every query head meets every source position.
    heads, key_dim = kernels["query"].shape[1:]
    return projections + tokens * sources * heads * (key_dim + kernels["value"].shape[2])


def _dot_product_attention(layer: Any, inputs: list[Shape], outputs: list[Shape]) -> int:
    query, value = inputs[0], inputs[1]
    return _product(query[1:]) * _product(value[1:-1]) + _product(query[1:-1]) * _product(value[1:])


def _matmul(operation: Any, inputs: list[Shape], outputs: list[Shape]) -> int:
    return _product(outputs[0][1:]) * _product(inputs[0][-1:])


def _einsum(operation: Any, inputs: list[Shape], outputs: list[Shape]) -> int:
    terms, output = operation.subscripts.replace(" ", "").split("->")
    if "." in terms:
        raise UnknownShapeError
    sizes: dict[str, int | None] = {}
    for term, shape in zip(terms.split(","), inputs):
        sizes.update(zip(term, shape))
    batch = output[0]  # one sample: the leading axis of the result is the batch
    return _product(size for axis, size in sizes.items() if axis != batch)


def _dot(layer: Any, inputs: list[Shape], outputs: list[Shape]) -> int:
    axis = layer.axes if isinstance(layer.axes, int) else layer.axes[0]
    return _product(outputs[0][1:]) * _product([inputs[0][axis]])


Count = Callable[[Any, list[Shape], list[Shape]], int]

_LAYERS: dict[str, Count] = {
    **dict.fromkeys(["Dense"], _dense),
    **dict.fromkeys(["EinsumDense"], _einsum_dense),
    **dict.fromkeys(["Conv1D", "Conv2D", "Conv3D", "DepthwiseConv1D", "DepthwiseConv2D"], _convolution),
    **dict.fromkeys(["Conv1DTranspose", "Conv2DTranspose", "Conv3DTranspose"], _transposed_convolution),
    **dict.fromkeys(["SeparableConv1D", "SeparableConv2D"], _separable_convolution),
    **dict.fromkeys(["LSTM", "GRU", "SimpleRNN", "RNN", "LSTMCell", "GRUCell", "SimpleRNNCell"], _recurrent),
    **dict.fromkeys(["ConvLSTM1D", "ConvLSTM2D", "ConvLSTM3D"], _convolutional_recurrent),
    **dict.fromkeys(["MultiHeadAttention", "GroupQueryAttention"], _multi_head_attention),
    **dict.fromkeys(["Attention", "AdditiveAttention"], _dot_product_attention),
    "Bidirectional": _bidirectional,
    "TimeDistributed": _time_distributed,
    "SpectralNormalization": _wrapped,
    "PrunedLayer": _wrapped,
    "Dot": _dot,
}

_OPERATIONS: dict[str, Count] = {"Matmul": _matmul, "Einsum": _einsum}

# Layers whose weights scale, shift or look up: no multiply-accumulates in the usual count.
_FREE = {
    *("BatchNormalization", "LayerNormalization", "GroupNormalization", "UnitNormalization", "RMSNormalization"),
    *("Embedding", "PReLU", "Normalization", "LayerScale", "Rescaling", "CustomScaleLayer"),
}


def _rule(operation: Any) -> Count | None:
    if isinstance(operation, keras.Layer):
        for cls in type(operation).__mro__:
            if cls.__name__ in _LAYERS and _is_ours_or_keras(cls):
                return _LAYERS[cls.__name__]
        return None
    return _OPERATIONS.get(type(operation).__name__)


def _is_known(operation: Any) -> bool:
    if not isinstance(operation, keras.Layer) or _rule(operation) is not None:
        return True
    named = any(cls.__name__ in _FREE and _is_ours_or_keras(cls) for cls in type(operation).__mro__)
    return named or not operation.weights


def _is_ours_or_keras(cls: type) -> bool:
    return cls.__module__.split(".")[0] in ("keras", "tfprune")


def _input_specs(model: Any, input_shape: Any) -> list[keras.KerasTensor]:
    if input_shape is None:
        return list(model.inputs)
    shapes = _shapes(input_shape)
    return [keras.KerasTensor((None, *shape), dtype=x.dtype) for shape, x in zip(shapes, model.inputs)]


def _specs(call: Call, tensors: list[keras.KerasTensor]) -> list[keras.KerasTensor]:
    """The outputs' shapes in this call: those recorded, unless the inputs have come with other shapes."""
    recorded = call.node.input_tensors
    if all(x.shape == y.shape for x, y in zip(tensors, recorded)):
        return list(call.outputs)
    return keras.tree.flatten(call.operation.compute_output_spec(*call.args, **call.kwargs))


def _positions(layer: Any, shape: Shape) -> int:
    return _product(shape[2:] if layer.data_format == "channels_first" else shape[1:-1])


def _size(variable: Any) -> int:
    return math.prod(variable.shape)


def _product(sizes: Iterable[int | None]) -> int:
    result = 1
    for size in sizes:
        if size is None:
            raise UnknownShapeError
        result *= size
    return result


def _sum(counts: Iterable[int | None]) -> int:
    result = 0
    for count in counts:
        if count is None:
            raise UnknownShapeError
        result += count
    return result


def _shapes(shapes: Any) -> list[Shape]:
    """One shape or several, as a list of shapes."""
    if all(size is None or isinstance(size, int) for size in shapes):
        return [tuple(shapes)]
    return [tuple(shape) for shape in shapes]
