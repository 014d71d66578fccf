"""Borders of minus infinity before a max pooling, which no integer holds: the lowest value that is seen serves as well.

Left as it is, such a border stretches the range of everything around it until nothing else is told apart, and LiteRT
ends the whole process when it prepares the file.
"""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np

from tfprune.errors import ConversionError
from tfprune.lite.convert.layer_names import layer_at
from tfprune.lite.quantize.representative import CHUNK, Samples
from tfprune.model.signature import Signature
from tfprune.model.substitutes import instead

FAR = -1e6  # lower than any activation that int8 tells from others


def count_low_pads(model: keras.Model, function: Any, quantization: str) -> int:
    """How often a traced function pads with values far below all others, for max pooling alone.

    Raises:
        ConversionError: Something else than max pooling sees them; names the layer.
    """
    import tensorflow as tf

    found = [
        op
        for op in function.graph.get_operations()
        if op.type == "PadV2" and _is_low(tf.get_static_value(op.inputs[2]))
    ]
    for op in found:
        others = [user for user in op.outputs[0].consumers() if user.type != "MaxPool"]
        if others:
            layer = layer_at(model, others[0].name) or layer_at(model, op.name)
            user = f"{others[0].type} of layer '{layer}'" if layer else others[0].type
            raise ConversionError(
                f"'{model.name}' cannot be converted to {quantization}: it pads with "
                f"{tf.get_static_value(op.inputs[2])}, and {user} behind it is no max pooling. No integer stands for "
                "that value beside others. Pad with a value that activations have, or use quantization='dynamic' or "
                "'float16'."
            )
    return len(found)


def lowest_padded(model: keras.Model, signature: Signature, samples: Samples, count: int) -> list[float]:
    """The lowest value that each of `count` such paddings meets in the samples, in the order of their calls."""
    seen: list[float] = []
    with _low_pads_by(lambda x: seen.append(float(np.min(x)))):
        for arrays in samples:
            for start in range(0, len(arrays[0]), CHUNK):
                signature.answers(model, [array[start : start + CHUNK] for array in arrays])
    return [min(seen[place::count]) for place in range(count)]


@contextlib.contextmanager
def padding_with(values: list[float]) -> Iterator[None]:
    """Lets such paddings be of these values, in the order of their calls."""
    left = iter(values)
    with _low_pads_by(lambda x: next(left)):
        yield


@contextlib.contextmanager
def _low_pads_by(value: Callable[[Any], float | None]) -> Iterator[None]:
    """Asks for the value of each far padding, given what is padded; None leaves it as it is."""
    import tensorflow as tf

    def asking(plain: Callable[..., Any]) -> Callable[..., Any]:
        def pad(tensor: Any, paddings: Any, mode: str = "CONSTANT", constant_values: Any = 0, name: Any = None) -> Any:
            scalar = mode == "CONSTANT" and np.ndim(constant_values) == 0
            if scalar and _is_low(tf.get_static_value(tf.convert_to_tensor(constant_values))):
                given = value(tensor)
                constant_values = constant_values if given is None else given
            return plain(tensor, paddings, mode, constant_values, name)

        return pad

    with instead(tf, "pad", asking):
        yield


def _is_low(value: Any) -> bool:
    return value is not None and bool(value < FAR)
