"""Sparse encodings of constants in a `.tflite` file: written here, read by `flatbuffer.zero_pattern`.

The encoding is that of compressed sparse rows along the last axis, single entries or whole blocks of them; all axes
before are dense. Kernels of LiteRT read such blocks as they are; any other operator reads what DENSIFY makes of them.
"""

from typing import Any

import numpy as np

from tfprune.lite.file import flatbuffer
from tfprune.lite.file.edit import Graph

DENSE, SPARSE = 0, 1  # the schema's DimensionType

# The version of an operator from which its kernel reads blocks. With a lower one XNNPACK takes them for dense values,
# and answers garbage without a word.
READS_BLOCKS = {"FULLY_CONNECTED": 8}


def blocks_kept(values: np.ndarray, block: int) -> np.ndarray:
    """Which blocks of `block` entries along the last axis hold any that is not zero; one row for all axes before."""
    return np.any(values.reshape(-1, values.shape[-1] // block, block) != 0, axis=-1)


def block_of(tensor: Any) -> int | None:
    """Entries along the last axis that a sparse encoding stores together; -1 for another order, None for none known."""
    levels = tensor.sparsity.dimMetadata
    if any(level.format not in (DENSE, SPARSE) for level in levels):
        return None
    rank = len(flatbuffer.shape_of(tensor))
    blocked = [] if tensor.sparsity.blockMap is None else list(tensor.sparsity.blockMap)
    forms = [level.format for level in levels]
    if list(tensor.sparsity.traversalOrder) != list(range(len(levels))):
        return -1
    if forms == [DENSE] * (rank - 1) + [SPARSE] and not blocked:
        return 1
    if forms == [DENSE] * (rank - 1) + [SPARSE, DENSE] and blocked == [rank - 1]:
        return int(levels[-1].denseSize)
    return -1


def encode(values: np.ndarray, block: int = 1) -> tuple[Any, np.ndarray]:
    """The sparse encoding of an array.

    Args:
        values: A constant whose zero is 0; its last axis is a multiple of the block.
        block: Entries that are stored together along the last axis. Defaults to 1.

    Returns:
        The schema's SparsityParameters, and the stored entries in their order.
    """
    kept = blocks_kept(values, block)
    parameters = flatbuffer.schema().SparsityParametersT()
    rank = values.ndim
    parameters.dimMetadata = [_dense(size) for size in values.shape[:-1]]
    parameters.dimMetadata.append(_rows(np.cumsum([0, *kept.sum(axis=1)]), np.nonzero(kept)[1]))
    if block > 1:
        parameters.dimMetadata.append(_dense(block))
    parameters.traversalOrder = np.arange(rank + (block > 1), dtype=np.int32)
    parameters.blockMap = np.array([rank - 1] if block > 1 else [], np.int32)
    return parameters, values.reshape(*kept.shape, block)[kept].reshape(-1)


def encoded_bytes(values: np.ndarray, block: int = 1) -> int:
    """Bytes that the sparse encoding of an array takes: entries, indices, and where the rows begin."""
    kept = blocks_kept(values, block)
    count = int(kept.sum())
    index, row = _index_type(kept.shape[1] - 1), _index_type(count)
    return count * (block * values.itemsize + index().itemsize) + (len(kept) + 1) * row().itemsize


def store(graph: Graph, index: int, values: np.ndarray, block: int = 1, densify: bool = False) -> None:
    """Stores a constant sparsely, in place.

    Args:
        graph: The subgraph.
        index: The constant's place among the tensors.
        values: Its values, of its shape.
        block: Entries that are stored together.
        densify: Whether its readers read what a DENSIFY makes of it, and not the blocks themselves.
    """
    tensor = graph.tensors[index]
    parameters, stored = encode(values, block)
    if densify:
        graph.insert_densify(index)
    else:
        for operator in graph.users(index):
            name = graph.name(operator)
            operator.opcodeIndex = graph.code(name, READS_BLOCKS[name])
    graph.rewrite(tensor, stored)
    tensor.sparsity = parameters


def _dense(size: int) -> Any:
    level = flatbuffer.schema().DimensionMetadataT()
    level.format, level.denseSize = DENSE, int(size)
    return level


def _rows(segments: np.ndarray, indices: np.ndarray) -> Any:
    level = flatbuffer.schema().DimensionMetadataT()
    level.format, level.denseSize = SPARSE, 0
    level.arraySegmentsType, level.arraySegments = _vector(segments)
    level.arrayIndicesType, level.arrayIndices = _vector(indices)
    return level


def _index_type(largest: int) -> type[np.uint8] | type[np.uint16] | type[np.int32]:
    """The narrowest of the schema's types that holds a number."""
    return np.uint8 if largest < 2**8 else np.uint16 if largest < 2**16 else np.int32


def _vector(values: np.ndarray) -> tuple[int, Any]:
    kind = _index_type(int(values.max(initial=0)))
    name = {np.uint8: "Uint8Vector", np.uint16: "Uint16Vector", np.int32: "Int32Vector"}[kind]
    vector = getattr(flatbuffer.schema(), f"{name}T")()
    vector.values = values.astype(kind)
    return getattr(flatbuffer.schema().SparseIndexVector, name), vector
