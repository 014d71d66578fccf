"""What a tensor is whatever the model's input: zeros as long as a sequence, the numbers of all rows of a table."""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from tfprune.channels.labels import Channels, expand, reshape
from tfprune.channels.visit import Visit

_ENTRYWISE: dict[str, Callable[..., Any]] = {
    "Add": np.add,
    "Subtract": np.subtract,
    "Multiply": np.multiply,
    "LogicalOr": np.logical_or,
    **dict.fromkeys(("Cast", "ConvertToTensor", "StopGradient", "Copy"), np.array),
}
_FILLED = {"ZerosLike": 0.0, "OnesLike": 1.0}


def known_value(visit: Visit) -> np.ndarray | None:
    """The value of the only output of an operation, compact; None where it depends on the model's input."""
    operation, name = visit.layer, type(visit.layer).__name__
    if isinstance(operation, keras.Layer) or len(visit.shapes) != 1:
        return None
    if name in _FILLED:
        return np.full((1,) * len(visit.shape), _FILLED[name])
    given = keras.tree.flatten((visit.args, visit.kwargs))
    if name in _ENTRYWISE:
        values = [x.known if isinstance(x, Channels) else np.asarray(x) for x in given if _is_value(x)]
        return None if any(value is None for value in values) else _ENTRYWISE[name](*values)
    value = visit.inputs[0].known if len(visit.inputs) == 1 else None
    if value is None:
        return None
    if name == "ExpandDims":
        return np.expand_dims(value, operation.axis)
    if name == "Reshape":
        return reshape(value, visit.input.shape, visit.shape)
    if name in ("GetItem", "Take") and None not in visit.input.shape:
        whole = expand(value, visit.input.shape, range(value.ndim))
        places = visit.argument("indices" if name == "Take" else "key", 1)
        if isinstance(places, Channels):
            places = places.constant
        return whole[places] if name == "GetItem" else np.take(whole, places, operation.axis)
    return None


def _is_value(x: Any) -> bool:
    return isinstance(x, (Channels, int, float, np.number)) and not isinstance(x, bool)
