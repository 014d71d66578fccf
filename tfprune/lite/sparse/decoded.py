"""Weights of a file for microcontrollers without their zeros: a bit for each entry, and the entries that are not zero.

tflite-micro's operator DECODE makes them whole again before they are read, by its decoder for pruned tensors
(tensorflow/lite/micro/kernels/decode_state_prune.cc). The package has no encoder for it; this is one.
"""

import copy
from typing import Any

import numpy as np

from tfprune.errors import PruningError
from tfprune.lite.file import flatbuffer
from tfprune.lite.file.contents import short_name
from tfprune.lite.file.edit import Graph
from tfprune.lite.file.lite_model import LiteModel

OPERATOR = b"TFLM_DECODE"
PRUNED, VERSION = 2, 1  # the decoder, and the version of what it is told
HEADER = np.array([PRUNED, 1, 0, 0, VERSION, *[0] * 11], np.uint8)


def store_for_micro(lite: Any) -> LiteModel:
    """The same file with the zeros of its int8 weights left out, for tflite-micro alone; smaller in flash as it is.

    A weight becomes a bit for each entry and the entries that are not zero, which is smaller from about 13 % zeros on.
    It is made whole in RAM before it is read, so the arena grows by about the largest weight, and answers are equal to
    the last bit. `run_micro(small, reference=lite)` measures both.

    Args:
        lite: A `LiteModel`, the path of a `.tflite` file, or its bytes: int8, for one sample at a time.

    Returns:
        A new `LiteModel` with a note on what it saves. LiteRT does not run it, since it has no such operator.

    Raises:
        PruningError: No int8 weight has zeros enough.

    Example:
        ```python
        from tfprune.lite import run_micro, store_for_micro

        pruned = tfprune.prune(model, tfprune.Percentile(0.9))
        lite = tfprune.convert(pruned, "int8", representative_data=images)
        small = store_for_micro(lite)
        print(run_micro(small, images, reference=lite))
        ```
    """
    lite = LiteModel.of(lite)
    file = flatbuffer.read_model(lite.content)
    graph = Graph(file, file.subgraphs[0])
    stored = [index for index in range(len(graph.tensors)) if _pays(graph, index)]
    if not stored:
        raise PruningError(
            "No weight of this file becomes smaller without its zeros: that takes int8 weights of 64 entries or more "
            "with 15 % zeros or more, stored densely. Convert a pruned model with quantization='int8' and sparse=False."
        )
    code = flatbuffer.schema().OperatorCodeT()
    code.builtinCode = code.deprecatedBuiltinCode = flatbuffer.schema().BuiltinOperator.CUSTOM
    code.customCode, code.version = OPERATOR, 1
    file.operatorCodes.append(code)
    names = [short_name(flatbuffer.tensor_name(graph.tensors[index])) for index in stored]
    for index in stored:
        _decode_before_use(graph, index, len(file.operatorCodes) - 1)
    small = LiteModel.written(file, lite.notes)
    small.notes += (
        f"For tflite-micro alone: {len(names)} weights are stored without their zeros, {lite.size:,} -> {small.size:,} "
        "bytes, and made whole in the arena before use.",
    )
    return small


def _pays(graph: Graph, index: int) -> bool:
    """Whether a tensor is an int8 weight that becomes smaller."""
    tensor = graph.tensors[index]
    values = flatbuffer.stored_values(graph.model, tensor)
    shape = flatbuffer.shape_of(tensor)
    if flatbuffer.type_name(tensor) != "INT8" or values is None or len(shape) < 2 or tensor.sparsity is not None:
        return False
    if np.any(flatbuffer.zero_points(tensor)) or not graph.users(index):
        return False
    scale = getattr(tensor.quantization, "scale", None)
    axis = tensor.quantization.quantizedDimension if scale is not None and len(scale) > 1 else 0
    taken = -(-values.size // 8) + len(HEADER) + np.count_nonzero(values)
    return bool(values.size >= 64 and axis in (0, len(shape) - 1) and taken < 0.98 * values.size)


def _decode_before_use(graph: Graph, index: int, code: int) -> None:
    """Stores a weight without its zeros, and puts the operator that makes it whole before its first reader."""
    tensor = graph.tensors[index]
    values = flatbuffer.stored_values(graph.model, tensor)
    if values is None:
        return
    bits = np.packbits(values != 0)
    whole = copy.copy(tensor)
    whole.name, whole.buffer = tensor.name + b"/decoded", 0
    graph.tensors.append(whole)
    made = len(graph.tensors) - 1
    graph.replace_readers(index, made)
    entries = np.concatenate([HEADER, values[values != 0].view(np.uint8)])
    told = graph.constant(f"{flatbuffer.tensor_name(tensor)}/values", entries)
    operator = flatbuffer.schema().OperatorT()
    operator.opcodeIndex, operator.inputs, operator.outputs = code, [index, told], [made]
    first = next(at for at, other in enumerate(graph.subgraph.operators) if made in list(other.inputs))
    graph.subgraph.operators = [*graph.subgraph.operators[:first], operator, *graph.subgraph.operators[first:]]
    graph.rewrite(tensor, bits)
    tensor.type, tensor.shape = flatbuffer.schema().TensorType.UINT8, np.array(bits.shape, np.int32)
    tensor.shapeSignature, tensor.quantization = None, flatbuffer.schema().QuantizationParametersT()
