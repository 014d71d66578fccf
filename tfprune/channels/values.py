"""What is known about the values of channels, whatever the model's input: zero, a constant, or nothing."""

import math
import zlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from tfprune.channels.labels import Line
from tfprune.model.tree import as_array


class Values:
    """Reads weights for the trace, when asked to.

    Args:
        enabled: Without it nothing is read, and today's values are all unknown.
    """

    def __init__(self, enabled: bool = False):
        self.enabled = enabled
        self._read: dict[int, tuple[Any, int]] = {}  # by id of a weight: itself, and the checksum of what it was

    def read(self, variable: Any) -> np.ndarray:
        """A weight on the host."""
        array = as_array(variable)
        if id(variable) not in self._read:
            self._read[id(variable)] = variable, _checksum(array)
        return array

    def are_current(self) -> bool:
        """Whether the weights were read, and are still what they were."""
        return self.enabled and all(_checksum(as_array(weight)) == before for weight, before in self._read.values())

    def is_zero(self, variable: Any, axis: int) -> np.ndarray:
        """For each position along `axis`, whether the whole slice is zero today."""
        size = variable.shape[axis]
        if not self.enabled:
            return np.zeros(size, bool)
        others = tuple(other for other in range(len(variable.shape)) if other != axis % len(variable.shape))
        return ~np.any(self.read(variable) != 0, axis=others)

    def vector(self, variable: Any, size: int, missing: float = 0.0) -> np.ndarray:
        """A weight of rank 1 today; `missing` where the layer has none; NaN when weights are not read."""
        if variable is None:
            return np.full(size, missing)
        return self.read(variable) if self.enabled else np.full(size, math.nan)

    def product(self, kernel: Any, lines: Sequence[Line], in_axis: int, out_axis: int, zeros_only: bool) -> np.ndarray:
        """The value today of each output of `kernel` before its bias; NaN where it depends on the input.

        Args:
            kernel: The weight.
            lines: What arrives along `in_axis`.
            in_axis: The axis that is summed over.
            out_axis: The axis of the outputs.
            zeros_only: Whether constants other than zero make outputs that vary (zero padding around a constant).
        """
        size = kernel.shape[out_axis]
        if not self.enabled:
            return np.full(size, math.nan)
        # Axes in the order (inputs, everything else, outputs).
        array = np.moveaxis(self.read(kernel), (in_axis, out_axis), (0, -1))
        arriving = known(lines, len(array))
        varying = np.isnan(arriving) | (zeros_only & (arriving != 0))
        others = tuple(range(1, array.ndim - 1))
        blocked = np.any(array[varying] != 0, axis=(0, *others)) if varying.any() else np.zeros(size, bool)
        constant = np.zeros(size)
        listened = ~varying & (arriving != 0)
        if listened.any():
            constant = np.tensordot(arriving[listened], array[listened].sum(axis=others), 1)
        return np.where(blocked, math.nan, constant)


def _checksum(array: np.ndarray) -> int:
    return zlib.crc32(array.tobytes())


def known(lines: Sequence[Line], size: int) -> np.ndarray:
    """The value today at each position, from whichever line knows it."""
    result = np.full(size, math.nan)
    for line in lines:
        result = np.where(np.isnan(result), line.now, result)
    return result


def apply(function: Callable[[np.ndarray], Any], values: np.ndarray) -> np.ndarray:
    """A function of single entries, applied where the value is known."""
    result = np.full(values.shape, math.nan)
    distinct, places = np.unique(values[~np.isnan(values)], return_inverse=True)
    if distinct.size:
        with np.errstate(all="ignore"):
            result[~np.isnan(values)] = np.asarray(function(distinct.astype(np.float32)), np.float64)[places]
    return result
