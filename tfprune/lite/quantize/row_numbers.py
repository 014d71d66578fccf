"""Float tensors by which rows of a table are read: rounded to int8, they would name other rows."""

from collections.abc import Hashable, Iterable, Sequence
from typing import Any, NamedTuple

import keras

from tfprune.model.graph import Call
from tfprune.model.hooks import operation_name

CASTS = ("Cast", "SaturateCast", "ConvertToTensor")


class Flow(NamedTuple):
    """One call of a float model: the tensors that it takes and those that it gives, by any name."""

    call: Call
    inputs: Sequence[Hashable]
    outputs: Sequence[Hashable]


def row_numbers(flows: Iterable[Flow]) -> set[Hashable]:
    """The tensors that stand for numbers of rows, back to where they come from.

    Args:
        flows: The calls of the model, in order.
    """
    found: set[Hashable] = set()
    for call, inputs, outputs in reversed(list(flows)):
        passes_on = not getattr(call.operation, "weights", None) and found.intersection(outputs)
        if passes_on or _reads(call):
            found.update(inputs)
    return found


def _reads(call: Call) -> bool:
    """Whether a call takes whole numbers, of whatever type they come in."""
    operation: Any = call.operation
    name = operation_name(operation)
    if name in CASTS:
        return not any(keras.backend.is_float_dtype(output.dtype) for output in call.outputs)
    return name == "OneHot" or isinstance(operation, (keras.layers.Embedding, keras.layers.CategoryEncoding))
