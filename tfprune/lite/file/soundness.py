"""Whether a `.tflite` file holds together: indices, sizes, encodings, and the order of its operators.

LiteRT's own verifier follows the offsets of the tables. What stands in them it believes, and a wrong index, a constant
shorter than its shape or a broken sparse encoding ends the whole process. So files are looked through before.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from tfprune.errors import PruningError
from tfprune.lite.file import flatbuffer

BITS = {"INT4": 4, "UINT4": 4, "INT2": 2, "BFLOAT16": 16, "COMPLEX64": 64, "COMPLEX128": 128}
UNSIZED = ("STRING", "RESOURCE", "VARIANT")
LARGEST = 2**62  # bytes; a size beyond has overflowed somewhere
POSITIVE = ("stride", "dilation", "filter", "blockSize", "numSplits")  # options that kernels divide by


class _UnsoundError(ValueError):
    """What is wrong with a file."""


def read_sound_model(content: bytes) -> Any:
    """The model as objects of the schema, once it is known to hold together.

    Raises:
        PruningError: The file is cut off or damaged.
    """
    model = flatbuffer.read_model(content)
    try:
        _check(model)
    except _UnsoundError as error:
        found = str(error)
    except Exception as error:  # a table where another one was written
        found = f"{type(error).__name__}: {error}"
    else:
        return model
    raise PruningError(f"The .tflite model of {len(content):,} bytes is damaged: {found}. Save or copy it again.")


def result_bytes(model: Any) -> int:
    """The bytes of the largest tensor of a file that is computed or given; an open size counts as one."""
    sizes = [_bytes(tensor) or 0 for graph in model.subgraphs for tensor in graph.tensors if tensor.sparsity is None]
    return max(sizes, default=0)


def _require(holds: Any, text: str) -> None:
    if not holds:
        raise _UnsoundError(text)


def _check(model: Any) -> None:
    _require(model.subgraphs, "it has no graph")
    _require(model.buffers, "it has no buffers")
    buffers, codes = len(model.buffers), len(_listed(model.operatorCodes))
    for graph in model.subgraphs:
        tensors = _listed(graph.tensors)
        for tensor in tensors:
            name = f"tensor '{flatbuffer.tensor_name(tensor)}'"
            _require(0 <= tensor.buffer < buffers, f"{name} is kept in buffer {tensor.buffer}, and there are {buffers}")
            _check_tensor(model, tensor, name)
        for operator in _listed(graph.operators):
            _require(0 <= operator.opcodeIndex < codes, f"an operator has the code {operator.opcodeIndex} of {codes}")
            _check_operator(operator, flatbuffer.operator_name(model, operator), len(tensors))
        _check_order(model, graph, tensors)
    for entry in _listed(model.metadata):
        _require(0 <= entry.buffer < buffers, f"metadata lie in buffer {entry.buffer}, and there are {buffers}")
    for signature in _listed(model.signatureDefs):
        _require(0 <= signature.subgraphIndex < len(model.subgraphs), "a signature is of a graph that is not there")
        count = len(_listed(model.subgraphs[signature.subgraphIndex].tensors))
        for entry in (*_listed(signature.inputs), *_listed(signature.outputs)):
            _require(entry.name is not None, "an end in its signature has no name")
            _check_indices([entry.tensorIndex], count, "its signature")


def _check_tensor(model: Any, tensor: Any, name: str) -> None:
    kind, shape = flatbuffer.type_name(tensor), flatbuffer.shape_of(tensor)
    _require(not kind.startswith("TYPE_"), f"{name} is of the unknown type {tensor.type}")
    _require(all(size >= 0 for size in shape), f"{name} has the shape {shape}")
    signature = tensor.shapeSignature
    _require(signature is None or len(signature) in (0, len(shape)), f"the two shapes of {name} differ in length")
    _check_quantization(tensor.quantization, shape, name)
    stored, wanted = flatbuffer.stored_bytes(model, tensor), _bytes(tensor)
    _require(wanted is None or wanted < LARGEST, f"{name} of shape {shape} is larger than any memory")
    if tensor.sparsity is not None:
        _require(stored is not None, f"{name} is sparse, and its values are missing")
        wanted = _stored_entries(tensor.sparsity, shape, name) * _bits(kind) // 8
    if stored is not None and wanted is not None:
        _require(len(stored) == wanted, f"{name}, {kind} of shape {shape}, takes {wanted} bytes and has {len(stored)}")


def _bits(kind: str) -> int:
    return BITS.get(kind) or np.dtype(flatbuffer.STORED[kind]).itemsize * 8


def _bytes(tensor: Any) -> int | None:
    """The bytes of a dense tensor; None where its type has no fixed size."""
    kind = flatbuffer.type_name(tensor)
    if kind in UNSIZED or (kind not in BITS and kind not in flatbuffer.STORED):
        return None
    entries = 1
    for size in flatbuffer.shape_of(tensor):
        entries *= size
    return -(-entries * _bits(kind) // 8)


def _check_quantization(parameters: Any, shape: Sequence[int], name: str) -> None:
    scale = [] if parameters is None else _listed(parameters.scale)
    if not len(scale):
        return
    points = _listed(parameters.zeroPoint)
    _require(len(points) in (0, 1, len(scale)), f"{name} has {len(scale)} scales and {len(points)} zero points")
    _require(np.isfinite(np.asarray(scale)).all(), f"{name} has a scale that is no number")
    if len(scale) > 1 or len(points) > 1:
        axis = parameters.quantizedDimension
        _require(
            0 <= axis < len(shape) and shape[axis] == len(scale),
            f"{name} of shape {tuple(shape)} has {len(scale)} scales along axis {axis}",
        )


def _stored_entries(sparsity: Any, shape: Sequence[int], name: str) -> int:
    """How many entries a sparse encoding stores, once it is known to lie within the shape."""
    order, blocks = [[int(axis) for axis in _listed(part)] for part in (sparsity.traversalOrder, sparsity.blockMap)]
    levels = _listed(sparsity.dimMetadata)
    broken = f"the sparse encoding of {name} is broken"
    _require(sorted(order) == list(range(len(shape) + len(blocks))) and len(levels) == len(order), broken)
    _require(all(0 <= axis < len(shape) for axis in blocks) and len(set(blocks)) == len(blocks), broken)
    block_sizes = {axis: int(levels[order.index(len(shape) + place)].denseSize) for place, axis in enumerate(blocks)}
    _require(all(size > 0 for size in block_sizes.values()), broken)
    entries = 1
    for axis, level in zip(order, levels):
        size = block_sizes[blocks[axis - len(shape)]] if axis >= len(shape) else shape[axis]
        if axis < len(shape):
            _require(size % block_sizes.get(axis, 1) == 0, broken)
            size //= block_sizes.get(axis, 1)
        if level.format == flatbuffer.schema().DimensionType.DENSE:
            _require(level.denseSize == size, broken)
            entries *= size
            _require(entries < LARGEST, broken)
            continue
        _require(level.arraySegments is not None and level.arrayIndices is not None and axis < len(shape), broken)
        segments, indices = (
            np.asarray(_listed(part.values), np.int64) for part in (level.arraySegments, level.arrayIndices)
        )
        _require(len(segments) == entries + 1 and segments[0] == 0 and segments[-1] == len(indices), broken)
        _require((np.diff(segments) >= 0).all() and (indices >= 0).all() and (indices < size).all(), broken)
        rising = np.diff(indices) > 0
        rising[segments[1:-1][(segments[1:-1] > 0) & (segments[1:-1] < len(indices))] - 1] = True  # a new row begins
        _require(rising.all(), broken)
        entries = len(indices)
    return entries


def _check_operator(operator: Any, name: str, tensors: int) -> None:
    _check_indices(_listed(operator.inputs), tensors, name, optional=True)
    _check_indices(_listed(operator.intermediates), tensors, name, optional=True)
    _check_indices(_listed(operator.outputs), tensors, name)
    for option, value in vars(operator.builtinOptions).items() if operator.builtinOptions is not None else ():
        if option.startswith(POSITIVE) and isinstance(value, (int, np.integer)):
            _require(value > 0, f"{name} has {option} {value}")


def _check_indices(indices: Iterable[int], count: int, owner: str, optional: bool = False) -> None:
    for index in indices:
        _require(-int(optional) <= index < count, f"{owner} refers to tensor {index}, and there are {count}")


def _check_order(model: Any, graph: Any, tensors: Sequence[Any]) -> None:
    """Every operator takes what is there: constants, states, inputs, and results of operators before it."""
    for ends in (graph.inputs, graph.outputs):
        _check_indices(_listed(ends), len(tensors), "an end of the graph")
    constant = {index for index, each in enumerate(tensors) if flatbuffer.stored_bytes(model, each) is not None}
    there = constant | {index for index, each in enumerate(tensors) if each.isVariable or _bytes(each) == 0}
    there |= set(map(int, _listed(graph.inputs)))

    def require_there(indices: Iterable[int], owner: str) -> None:
        for index in indices:
            name = flatbuffer.tensor_name(tensors[index])
            _require(index < 0 or index in there, f"{owner} takes '{name}', which nothing has made by then")

    for operator in _listed(graph.operators):
        name = flatbuffer.operator_name(model, operator)
        require_there(map(int, _listed(operator.inputs)), name)
        for index in _listed(operator.outputs):
            _require(int(index) not in constant, f"{name} writes over a constant")
            there.add(int(index))
    require_there(map(int, _listed(graph.outputs)), "the end of the graph")


def _listed(values: Any) -> Any:
    """A vector of the file, which may leave out an empty one."""
    return () if values is None or isinstance(values, int) else values
