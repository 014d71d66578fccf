"""Kernels of an int8 file in four bits, two entries to a byte, where LiteRT has a kernel that reads them."""

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from tfprune.errors import PruningError
from tfprune.lite.convert.layer_names import layer_at, paths_along, paths_before_ends
from tfprune.lite.file import flatbuffer
from tfprune.lite.file.edit import Graph
from tfprune.lite.quantize.weight_bits import LEVELS, WeightBits, refuse_left

# Operators whose kernels in LiteRT read 4-bit weights beside int8 activations, with the version that does first, as
# TFLite's own op_version.cc numbers them.
OPERATORS = {"FULLY_CONNECTED": 10, "CONV_2D": 7, "DEPTHWISE_CONV_2D": 7}


BY_DEFAULT = ("FULLY_CONNECTED", "CONV_2D")  # depthwise kernels are small, and stand four bits worst


def pack_four_bits(file: Any, model: keras.Model, ends: Sequence[str], bits: WeightBits) -> list[str]:
    """Stores kernels of an int8 file in four bits, in place, two entries to a byte.

    A kernel's largest entry in each channel becomes 7 steps in place of 127, so zeros stay zeros, and a kernel that was
    trained on 7 steps is stored as it is.

    Args:
        file: The model as objects of the schema.
        model: The Keras model it was made of.
        ends: The names of its outputs.
        bits: The bits of every kernel.

    Returns:
        The names of the layers with a kernel in four bits.

    Raises:
        PruningError: A layer was named for four bits, and has no kernel in the file that LiteRT reads so.
    """
    packed: list[str] = []
    served: set[str] = set()
    before_ends = paths_before_ends(model, ends, kernels_only=True)
    for subgraph in file.subgraphs:
        graph = Graph(file, subgraph)
        kernels = {
            int(operator.inputs[1]): operator for operator in subgraph.operators if _reads_kernel(graph, operator)
        }
        for index, operator in kernels.items():
            kernel, result = (flatbuffer.tensor_name(graph.tensors[int(i)]) for i in (index, operator.outputs[0]))
            along = paths_along(model, [kernel, result])
            # The kernel of a grouped convolution has no name of its own, and with TensorFlow 2.19 none has.
            paths = along[kernel] or along[result] or before_ends.get(result, set())
            if bits.of(paths, graph.name(operator) in BY_DEFAULT) == 4:
                _pack(graph, index)
                served |= paths
                packed.append(layer_at(model, kernel) or layer_at(model, result) or kernel)
    refuse_left(bits, served)
    return list(dict.fromkeys(packed))


def _reads_kernel(graph: Graph, operator: Any) -> bool:
    """Whether an operator reads an int8 constant as its kernel, and has a form that reads four bits."""
    if graph.name(operator) not in OPERATORS or graph.type(int(operator.inputs[0])) != "INT8":
        return False
    kernel = graph.tensors[int(operator.inputs[1])]
    users = graph.users(int(operator.inputs[1]))
    return (
        flatbuffer.type_name(kernel) == "INT8"
        and graph.model.buffers[kernel.buffer].data is not None
        and all(graph.name(user) in OPERATORS for user in users)
    )


def _pack(graph: Graph, index: int) -> None:
    kernel = graph.tensors[index]
    ratio = LEVELS[4] / LEVELS[8]
    steps = _stored(graph, kernel).astype(np.float64) * ratio
    graph.rewrite(kernel, flatbuffer.pack_four_bits(np.round(steps).astype(np.int8)))
    kernel.type = flatbuffer.schema().TensorType.INT4
    _widen(kernel, ratio)
    for operator in graph.users(index):
        name = graph.name(operator)
        operator.opcodeIndex = graph.code(name, OPERATORS[name])
        if len(operator.inputs) > 2 and operator.inputs[2] >= 0:
            # Its scale is that of the kernel times that of the input.
            bias = graph.own_constant(operator, 2)
            stored = _stored(graph, bias)
            graph.rewrite(bias, np.round(stored.astype(np.float64) * ratio).astype(stored.dtype))
            _widen(bias, ratio)


def _stored(graph: Graph, tensor: Any) -> np.ndarray:
    values = flatbuffer.stored_values(graph.model, tensor)
    if values is None:
        raise PruningError(f"The constant '{flatbuffer.tensor_name(tensor)}' cannot be read.")
    return values


def _widen(tensor: Any, ratio: float) -> None:
    tensor.quantization.scale = (np.asarray(tensor.quantization.scale, np.float64) / ratio).astype(np.float32)
