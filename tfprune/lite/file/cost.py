"""What one run of a `.tflite` file has to do, counted from the file: operations, bytes moved, and energy estimated."""

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tfprune.errors import PruningError
from tfprune.lite.file import flatbuffer
from tfprune.lite.file.flatbuffer import operator_name, shape_of, type_name

# Picojoules in a 45 nm process: M. Horowitz, "Computing's energy problem (and what we can do about it)", ISSCC 2014,
# figure 1.1.9. A multiply-accumulate is one multiplication and one addition; integers are added in 32 bits.
MULTIPLY_ADD = {
    "FLOAT32": 3.7 + 0.9,
    "FLOAT16": 1.1 + 0.4,
    "INT8": 0.2 + 0.1,
    "INT16": 2 * 0.2 + 0.1,
    "INT4": 0.2 + 0.1,
}
ADD = {"FLOAT32": 0.9, "FLOAT16": 0.4, "INT8": 0.03, "INT16": 0.05, "INT32": 0.1}
DRAM_BYTE = 1300 / 8  # the lower end of 1.3 to 2.6 nJ for 64 bits
CACHE_BYTE = 100 / 8  # 64 bits of a cache of 1 MB
SOURCE = "Horowitz, ISSCC 2014, 45 nm"


@dataclass(frozen=True)
class Cost:
    """What one run costs.

    Args:
        macs: Multiply-accumulates, zeros included, since dense kernels compute them like any other number.
        other: Results of operators without weights, each counted as one operation.
        weight_bytes: Bytes of the constants, each read once.
        activation_bytes: Bytes of results, each written once and read once by every operator that takes it.
        peak_bytes: Most bytes of results that are needed at one time; an arena for them is at least so large.
        picojoules: Estimated energy.
    """

    macs: int
    other: int
    weight_bytes: int
    activation_bytes: int
    peak_bytes: int
    picojoules: float


def cost_of(model: Any) -> Cost:
    """Counts what one run of a file takes; operators inside loops are counted once.

    The energy is an estimate from these counts and published constants, good for comparing models and not for
    predicting a battery: multiply-accumulates in the type of the weights, weights read from DRAM, activations moved
    through a cache of 1 MB.

    Args:
        model: The file as objects of the schema.
    """
    macs = other = weight_bytes = moved = peak = 0
    picojoules = 0.0
    seen: set[int] = set()
    for graph in model.subgraphs:
        constants = {}
        for index, tensor in enumerate(graph.tensors):
            stored = flatbuffer.stored_bytes(model, tensor)
            if stored is not None:
                constants[index] = tensor
                weight_bytes += 0 if tensor.buffer in seen else len(stored)
                seen.add(tensor.buffer)
        for operator in graph.operators or []:
            count, kind = operator_macs(model, graph, operator), operand_type(graph, operator)
            macs += count
            picojoules += count * MULTIPLY_ADD.get(kind, MULTIPLY_ADD["FLOAT32"])
            results = [index for index in operator.outputs if index >= 0]
            if not count:
                entries = sum(int(np.prod(shape_of(graph.tensors[index]))) for index in results)
                other += entries
                picojoules += entries * ADD.get(kind, ADD["FLOAT32"])
            taken = [index for index in operator.inputs if index >= 0 and index not in constants]
            moved += sum(tensor_bytes(graph.tensors[index]) for index in (*taken, *results))
        peak = max(peak, _peak(graph, constants))
    picojoules += weight_bytes * DRAM_BYTE + moved * CACHE_BYTE
    return Cost(macs, other, weight_bytes, moved, peak, picojoules)


def operator_macs(model: Any, graph: Any, operator: Any) -> int:
    """Multiply-accumulates of one operator; 0 for those that have no weights or matrices."""
    rule = MACS.get(operator_name(model, operator))
    shapes = [shape_of(graph.tensors[index]) if index >= 0 else () for index in operator.inputs]
    try:
        return rule(shapes, shape_of(graph.tensors[operator.outputs[0]]), operator) if rule is not None else 0
    except IndexError as error:
        raise PruningError(
            f"The .tflite model is damaged: {operator_name(model, operator)} takes other inputs than {shapes}. Save or "
            "copy it again."
        ) from error


def operand_type(graph: Any, operator: Any) -> str:
    """The type that an operator multiplies in: that of its weights, where they are narrower than its inputs."""
    types = [type_name(graph.tensors[index]) for index in operator.inputs if index >= 0]
    if "INT16" in types:
        return "INT16"
    known = [name for name in types if name in MULTIPLY_ADD]
    return min(known, key=lambda name: MULTIPLY_ADD[name], default=types[0] if types else "FLOAT32")


def tensor_bytes(tensor: Any) -> int:
    """Bytes of a tensor's values; a length that is open counts as the file has it."""
    name = type_name(tensor)
    if name in ("INT4", "UINT4"):
        return -(-int(np.prod(shape_of(tensor))) // 2)
    size = np.dtype(flatbuffer.STORED[name]).itemsize if name in flatbuffer.STORED else 4
    return int(np.prod(shape_of(tensor))) * size


def _peak(graph: Any, constants: dict[int, Any]) -> int:
    """The most bytes of results and inputs alive while any one operator runs."""
    operators = list(graph.operators or [])
    born: dict[int, int] = dict.fromkeys((int(index) for index in graph.inputs), 0)
    last: dict[int, int] = defaultdict(int)
    for step, operator in enumerate(operators):
        for index in operator.outputs:
            born.setdefault(int(index), step)
            last[int(index)] = max(last[int(index)], step)
        for index in operator.inputs:
            last[int(index)] = step
    for index in graph.outputs:
        last[int(index)] = len(operators)
    alive = np.zeros(max(len(operators), 1), np.int64)
    for index, step in born.items():
        if index >= 0 and index not in constants:
            alive[step : last[index] + 1] += tensor_bytes(graph.tensors[index])
    return int(alive.max())


Shapes = Sequence[tuple[int, ...]]


def _entries(shape: tuple[int, ...]) -> int:
    return int(np.prod(shape))


def _matrices(shapes: Shapes, result: tuple[int, ...], operator: Any) -> int:
    turned = bool(getattr(operator.builtinOptions, "adjX", False))
    return _entries(result) * shapes[0][-2 if turned else -1]


# Shapes of the inputs, shape of the result, operator -> multiply-accumulates. Kernels lie with output channels first.
MACS: dict[str, Callable[[Shapes, tuple[int, ...], Any], int]] = {
    "CONV_2D": lambda shapes, result, _: _entries(result) * _entries(shapes[1][1:]),
    "DEPTHWISE_CONV_2D": lambda shapes, result, _: _entries(result) * _entries(shapes[1][1:3]),
    "FULLY_CONNECTED": lambda shapes, result, _: _entries(result) * shapes[1][-1],
    "TRANSPOSE_CONV": lambda shapes, _, __: _entries(shapes[2][:3]) * _entries(shapes[1]),
    "CONV_3D": lambda shapes, result, _: _entries(result) * _entries(shapes[1][:-1]),
    "BATCH_MATMUL": _matrices,
}
