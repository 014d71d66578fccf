"""Multiply-accumulates of one call of a layer for one sample, by the shapes of its inputs and outputs."""

from collections.abc import Callable
from typing import Any

from tfprune.model.layers.equation import Equation, letter_axes
from tfprune.model.layers.shapes import UnknownShapeError, positions, product
from tfprune.model.tree import children

Shape = tuple[int | None, ...]
Count = Callable[[Any, list[Shape], list[Shape]], int]


def nothing(layer: Any, inputs: list[Shape], outputs: list[Shape]) -> int:
    """What scales, shifts or looks up: no multiply-accumulates in the usual count."""
    return 0


def dense(layer: Any, inputs: list[Shape], outputs: list[Shape]) -> int:
    """The kernel, for every vector of the input."""
    return product(inputs[0][1:-1]) * size(layer.kernel)


def einsum_dense(layer: Any, inputs: list[Shape], outputs: list[Shape]) -> int:
    """The kernel, for every index of the axes that it does not share with the input; the first is the batch."""
    equation = Equation.parse(layer.equation)
    axes = letter_axes(equation.terms[0], len(inputs[0]))
    met = {axes[letter] for letter in equation.shared + equation.summed}
    return product(length for axis, length in enumerate(inputs[0]) if axis not in {0, *met}) * size(layer.kernel)


def convolution(layer: Any, inputs: list[Shape], outputs: list[Shape]) -> int:
    """The kernel at every place of the output; in groups it holds the inputs of one group only, and counts right."""
    return positions(layer, outputs[0]) * size(layer.kernel)


def transposed_convolution(layer: Any, inputs: list[Shape], outputs: list[Shape]) -> int:
    """The kernel at every place of the input."""
    return positions(layer, inputs[0]) * size(layer.kernel)


def separable_convolution(layer: Any, inputs: list[Shape], outputs: list[Shape]) -> int:
    """Both kernels at every place of the output."""
    return positions(layer, outputs[0]) * (size(layer.depthwise_kernel) + size(layer.pointwise_kernel))


def recurrent(layer: Any, inputs: list[Shape], outputs: list[Shape]) -> int:
    """The kernels of the cell, or of all its cells, at every step."""
    cell = getattr(layer, "cell", layer)
    steps = 1 if cell is layer else inputs[0][1]
    cells = getattr(cell, "cells", [cell])
    if not all(hasattr(each, "recurrent_kernel") for each in cells):  # one of the user's own class
        raise UnknownShapeError
    return product([steps]) * sum(size(each.kernel) + size(each.recurrent_kernel) for each in cells)


def convolutional_recurrent(layer: Any, inputs: list[Shape], outputs: list[Shape]) -> int:
    """The kernels of the cell at every place of every step."""
    cell = layer.cell
    frame = (outputs[0][0], *outputs[0][2:]) if layer.return_sequences else outputs[0]
    return product(inputs[0][1:2]) * positions(layer, frame) * (size(cell.kernel) + size(cell.recurrent_kernel))


def multi_head_attention(layer: Any, inputs: list[Shape], outputs: list[Shape]) -> int:
    """The projections, then scores and weighted sum: every query head meets every source position."""
    query, value = inputs[0], inputs[1] if len(inputs) > 1 else inputs[0]
    key = inputs[2] if len(inputs) > 2 and len(inputs[2]) == len(value) else value
    tokens, sources = product(query[1:-1]), product(value[1:-1])
    kernels = {child.name: child.kernel for child in children(layer) if hasattr(child, "kernel")}
    read = {"key": product(key[1:-1]), "value": sources}
    projections = sum(read.get(name, tokens) * size(kernel) for name, kernel in kernels.items())
    heads, key_dim = kernels["query"].shape[1:]
    return projections + tokens * sources * heads * (key_dim + kernels["value"].shape[2])


def dot_product_attention(layer: Any, inputs: list[Shape], outputs: list[Shape]) -> int:
    """Scores, then the weighted sum."""
    query, value = inputs[0], inputs[1]
    return product(query[1:]) * product(value[1:-1]) + product(query[1:-1]) * product(value[1:])


def dot(layer: Any, inputs: list[Shape], outputs: list[Shape]) -> int:
    """A sum over one axis for every entry of the output."""
    axis = layer.axes if isinstance(layer.axes, int) else layer.axes[0]
    return product(outputs[0][1:]) * product([inputs[0][axis]])


def matmul(operation: Any, inputs: list[Shape], outputs: list[Shape]) -> int:
    """A sum over the last axis of the first operand for every entry of the output."""
    return product(outputs[0][1:]) * product(inputs[0][-1:])


def einsum(operation: Any, inputs: list[Shape], outputs: list[Shape]) -> int:
    """Every index of every letter, for one sample: the leading axis of the result is the batch."""
    equation = Equation.parse(operation.subscripts)
    if "." in "".join(equation.terms) or not equation.result:
        raise UnknownShapeError
    sizes: dict[str, int | None] = {}
    for term, shape in zip(equation.terms, inputs):
        sizes.update(zip(term, shape))
    return product(length for letter, length in sizes.items() if letter != equation.result[0])


def size(variable: Any) -> int:
    """The number of a variable's entries."""
    return product(variable.shape)
