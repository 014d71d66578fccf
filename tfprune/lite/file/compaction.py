"""What a file holds without need: buffers that nothing reads, and constants that repeat themselves along an axis."""

from typing import Any

import numpy as np

from tfprune.lite.file.edit import Graph
from tfprune.lite.file.flatbuffer import STORED, shape_of, stored_values

REPEATING = "SELECT_V2"  # repeats operands along axes of size 1, and is no slower for it
MOST_AXES = 4  # that it does so for


def compact(model: Any) -> None:
    """Takes out of a file what it does not need; every tensor keeps its name, and all answers stay the same.

    A causal mask is stored by the converter once for every head of attention.

    Args:
        model: The file as objects of the schema, changed in place.
    """
    for subgraph in model.subgraphs:
        graph = Graph(model, subgraph)
        for operator in subgraph.operators:
            for index in operator.inputs if graph.name(operator) == REPEATING else ():
                _shorten(graph, int(index))
    _drop_buffers(model)


def _shorten(graph: Graph, index: int) -> None:
    """Stores a constant once along each axis along which it repeats itself, where all that read it repeat it anew."""
    tensor, shape, users = graph.tensors[index], shape_of(graph.tensors[index]), graph.users(index)
    stored = stored_values(graph.model, tensor)
    if stored is None or stored.size != int(np.prod(shape)) or len(shape) > MOST_AXES:
        return
    if tensor.sparsity is not None or graph.type(index) not in STORED:  # rewritten as the numbers that it is read as
        return
    if any(graph.name(user) != REPEATING for user in users):
        return
    values = stored.reshape(shape)
    for axis, size in enumerate(shape):
        if size > 1 and all(_gives(graph, user, index, axis - len(shape), size) for user in users):
            first = values.take([0], axis)
            values = first if np.all(values == first) else values
    if values.shape != shape:
        graph.rewrite(tensor, values)
        tensor.shape, tensor.shapeSignature = np.array(values.shape, np.int32), None


def _gives(graph: Graph, user: Any, index: int, axis: int, size: int) -> bool:
    """Whether another operand has this size along an axis, counted from the last, so that the result keeps it."""
    shapes = [shape_of(graph.tensors[other]) for other in map(int, user.inputs) if other != index]
    return any(len(shape) >= -axis and shape[axis] == size for shape in shapes)


def _drop_buffers(model: Any) -> None:
    """Leaves the buffers with values that are read, and the first one, which is that of all tensors without any."""
    holders = [tensor for subgraph in model.subgraphs for tensor in subgraph.tensors] + list(model.metadata or [])
    buffers, places = [model.buffers[0]], {0: 0}
    for holder in holders:
        if holder.buffer not in places:
            buffer = model.buffers[holder.buffer]
            is_empty = buffer.data is None or len(buffer.data) == 0
            places[holder.buffer] = 0 if is_empty else len(buffers)
            buffers += [] if is_empty else [buffer]
        holder.buffer = places[holder.buffer]
    model.buffers = buffers
