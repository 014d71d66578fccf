"""Where a layer's channels lie, and which windows of its input a convolution sees."""

import math
from collections.abc import Iterable
from typing import Any

import keras
import numpy as np

# Windows of one input that are read; neighbours overlap, so more of them say little that is new.
WINDOWS = 256


class UnknownShapeError(Exception):
    """A size that is needed is None in the graph."""


def channel_axis(layer: Any) -> int:
    """The axis of a layer's inputs and outputs that counts channels: the last one, or 1 where channels come first."""
    return 1 if getattr(layer, "data_format", None) == "channels_first" else -1


def has_borders(layer: Any) -> bool:
    """Whether some outputs of a convolution meet padding: a constant input then gives no constant output."""
    return getattr(layer, "padding", "valid") != "valid" and any(size > 1 for size in layer.kernel_size)


def positions(layer: Any, shape: tuple[int | None, ...]) -> int:
    """The number of places in space of a tensor that a layer takes or gives."""
    return product(shape[2:] if channel_axis(layer) == 1 else shape[1:-1])


def product(sizes: Iterable[int | None]) -> int:
    """The product of sizes.

    Raises:
        UnknownShapeError: One is None.
    """
    known = list(sizes)
    if None in known:
        raise UnknownShapeError
    return math.prod(size for size in known if size is not None)


def windows(layer: Any, inputs: Any) -> Any:
    """The windows that a convolution sees, evenly thinned to about WINDOWS of each input: (rows, window, channels)."""
    ops = keras.ops
    inputs = ops.moveaxis(inputs, channel_axis(layer), -1)
    window, dilation, strides = (
        np.broadcast_to(value, len(layer.kernel_size)).tolist()
        for value in (layer.kernel_size, layer.dilation_rate, layer.strides)
    )
    reach = [(size - 1) * rate + 1 for size, rate in zip(window, dilation)]
    padding = _padding(layer.padding, inputs.shape[1:-1], reach, strides)
    inputs = ops.pad(inputs, [(0, 0), *padding, (0, 0)])
    counts = [(size - length) // step + 1 for size, length, step in zip(inputs.shape[1:-1], reach, strides)]
    thinning = _thinning(counts)
    pieces = []
    for offset in np.ndindex(*window):
        slices = tuple(
            slice(place * rate, place * rate + (count - 1) * step + 1, step * thin)
            for place, rate, count, step, thin in zip(offset, dilation, counts, strides, thinning)
        )
        pieces.append(inputs[(slice(None), *slices)])
    return ops.reshape(ops.stack(pieces, axis=-2), (-1, len(pieces), inputs.shape[-1]))


def _padding(padding: str, sizes: tuple[int, ...], reach: list[int], strides: list[int]) -> list[tuple[int, int]]:
    if padding == "valid":
        return [(0, 0)] * len(sizes)
    if padding == "causal":
        return [(length - 1, 0) for length in reach]
    totals = [
        max((-(-size // step) - 1) * step + length - size, 0) for size, length, step in zip(sizes, reach, strides)
    ]
    return [(total // 2, total - total // 2) for total in totals]


def _thinning(counts: list[int]) -> list[int]:
    thinning = [1] * len(counts)
    while math.prod(-(-count // thin) for count, thin in zip(counts, thinning)) > WINDOWS:
        axis = int(np.argmax([count / thin for count, thin in zip(counts, thinning)]))
        thinning[axis] += 1
    return thinning
