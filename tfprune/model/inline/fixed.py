"""Models whose open sizes cannot be any: those of one length, and those whose sizes belong together."""

from collections.abc import Callable, Sequence
from typing import Any

import keras

from tfprune.model.inline.inputs import Inputs
from tfprune.model.inline.reasons import CannotOpenError
from tfprune.model.inline.sizes import LENGTHS, MORE_LENGTHS, Pair, groupings, sizes_for
from tfprune.model.tree import every_layer

Attempt = Callable[[Inputs, Sequence[Sequence[Pair]]], Any]
"""Opens a model with two sizes for each axis; raises where it cannot."""


def at_one_length(model: keras.Model, inputs: Inputs, attempt: Attempt) -> Any:
    """Opens a model that takes sequences of one length alone, that of a table of positions in it; None: it does not."""
    if any(len(spec.shape) > 2 and None in spec.shape[1:] for spec in inputs.specs):
        return None
    tables = [layer for layer in every_layer(model) if isinstance(layer, keras.layers.Embedding)]
    for length in sorted({layer.input_dim for layer in tables}):
        fixed = inputs.with_shapes(
            [(spec.shape[0], *(size or length for size in spec.shape[1:])) for spec in inputs.specs]
        )
        try:
            found = attempt(fixed, sizes_for(fixed.specs, next(groupings(fixed.specs)), LENGTHS[0]))
        except CannotOpenError:
            continue
        found.length = length
        return found
    return None


def as_in_example(inputs: Inputs, attempt: Attempt) -> Any:
    """Opens a model for the sizes of an example; those along which it also opens for others stay open.

    Open axes that are equally long in the example belong together.

    Raises:
        CannotOpenError: The model does not open for the sizes of the example either.
    """
    shapes = [spec.shape for spec in inputs.specs]
    own = [
        [size if axis and given is None else None for axis, (given, size) in enumerate(zip(shape, example))]
        for shape, example in zip(shapes, inputs.example or ())
    ]
    free: dict[int, Pair] = {}

    def opened(free: dict[int, Pair]) -> Any:
        fixed = inputs.with_shapes(
            [
                tuple(given if size is None or size in free else size for given, size in zip(shape, sizes))
                for shape, sizes in zip(shapes, own)
            ]
        )
        groups = [[list(free).index(size) if size in free else None for size in sizes] for sizes in own]
        pairs = sizes_for(fixed.specs, groups, LENGTHS[0])
        for sizes, of_input in zip(own, pairs):
            for axis, size in enumerate(sizes):
                of_input[axis] = free[size] if size in free else of_input[axis]
        return attempt(fixed, pairs)

    best = opened(free)
    for size in dict.fromkeys(size for sizes in own for size in sizes if size is not None):
        for pair in (LENGTHS[0], *MORE_LENGTHS, LENGTHS[1]):
            if pair in free.values():
                continue
            try:
                found = opened({**free, size: pair})
            except CannotOpenError:
                continue
            if len(found.closed) <= len(best.closed):
                best = found
                free[size] = pair
                break
    best.fixed = [spec for spec, shape in zip(best.inputs.specs, shapes) if spec.shape != shape]
    return best
