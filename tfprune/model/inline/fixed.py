"""Models whose open sizes cannot be any: those of one length, and those whose sizes belong together."""

from collections.abc import Callable, Sequence
from typing import Any

import keras

from tfprune.model.inline.inputs import Inputs
from tfprune.model.inline.reasons import CannotOpenError, is_about_sizes, may_be_the_size
from tfprune.model.inline.sizes import BATCH, LENGTHS, MORE_LENGTHS, Pair, groupings, sizes_for
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
    example = inputs.example or []

    def opened(free: dict[int, Pair]) -> Any:
        """With two sizes along the axes that are so long in the example."""
        pairs = [
            [
                (size, size) if size is not None else free.get(shown, (shown, shown)) if axis else BATCH
                for axis, (size, shown) in enumerate(zip(spec.shape, shape))
            ]
            for spec, shape in zip(inputs.specs, example)
        ]
        shapes = [tuple(one if one == two else None for one, two in of_input) for of_input in pairs]
        return attempt(inputs.with_shapes(shapes), pairs)

    free: dict[int, Pair] = {}
    best = opened(free)
    open_axes = [
        shown
        for spec, shape in zip(inputs.specs, example)
        for size, shown in zip(spec.shape[1:], shape[1:])
        if size is None
    ]
    for shown in dict.fromkeys(open_axes):
        for pair in (LENGTHS[0], *MORE_LENGTHS, LENGTHS[1]):
            if pair in free.values():
                continue
            try:
                found = opened({**free, shown: pair})
            except CannotOpenError as error:
                if is_about_sizes(error.reason):
                    break
                continue
            if len(found.closed) <= len(best.closed):
                best = found
                free[shown] = pair
            if len(found.closed) <= len(best.closed) or not any(map(may_be_the_size, found.closed.values())):
                break  # with other sizes it does the same
    best.fixed = [spec for spec, first in zip(best.inputs.specs, inputs.specs) if spec.shape != first.shape]
    return best
