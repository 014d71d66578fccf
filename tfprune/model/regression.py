"""Layers as linear regressions: which rows of features a kernel is multiplied with.

A dense layer multiplies each input with its kernel, a convolution each window of its input. Either way the output is
`rows @ matrix + bias`, for one or more independent groups, so what is known of least squares applies to the kernel.
"""

import math
import string
from abc import ABC, abstractmethod
from typing import Any

import keras
import numpy as np

from tfprune.model.prunable import PrunableWeight

# Windows of one input that are read; neighbours overlap, so more of them say little that is new.
WINDOWS = 256

PLAIN_CONVOLUTIONS = (keras.layers.Conv1D, keras.layers.Conv2D, keras.layers.Conv3D)
DEPTHWISE = (keras.layers.DepthwiseConv1D, keras.layers.DepthwiseConv2D)
# These inherit from the plain convolutions but compute something else with their kernels.
OTHER_CONVOLUTIONS = (
    keras.layers.Conv1DTranspose,
    keras.layers.Conv2DTranspose,
    keras.layers.Conv3DTranspose,
    keras.layers.SeparableConv1D,
    keras.layers.SeparableConv2D,
)


class LinearForm(ABC):
    """A layer's kernel as `groups` matrices of shape `(features, outputs)`."""

    def __init__(self, layer: Any, kernel_shape: tuple[int, ...]):
        self.layer = layer
        self.kernel_shape = kernel_shape

    @abstractmethod
    def rows(self, inputs: Any) -> Any:
        """The features of an input tensor, of shape `(groups, rows, features)`."""

    @abstractmethod
    def to_matrix(self, kernel: np.ndarray) -> np.ndarray:
        """An array of the kernel's shape as `(groups, features, outputs)`."""

    @abstractmethod
    def to_kernel(self, matrix: np.ndarray) -> np.ndarray:
        """The inverse of `to_matrix`."""

    @property
    def has_bias(self) -> bool:
        """Whether every output has a bias of its own, free to take up a change of mean."""
        bias = getattr(self.layer, "bias", None)
        groups, _, outputs = self.to_matrix(np.empty(self.kernel_shape, np.bool_)).shape
        return bias is not None and math.prod(bias.shape) == groups * outputs


class Dense(LinearForm):
    """One group; the features are those of the last axis."""

    def rows(self, inputs: Any) -> Any:
        return keras.ops.reshape(inputs, (1, -1, self.kernel_shape[0]))

    def to_matrix(self, kernel: np.ndarray) -> np.ndarray:
        return kernel[None]

    def to_kernel(self, matrix: np.ndarray) -> np.ndarray:
        return matrix[0]


class Convolution(LinearForm):
    """Windows of the input, channels last in each window, for every group of channels apart."""

    @property
    def groups(self) -> int:
        """The number of groups of channels."""
        return self.layer.groups

    def rows(self, inputs: Any) -> Any:
        patches = _windows(self.layer, inputs)  # (rows, window, channels)
        _, window, channels = patches.shape
        grouped = keras.ops.reshape(patches, (-1, window, self.groups, channels // self.groups))
        grouped = keras.ops.transpose(grouped, (2, 0, 1, 3))
        return keras.ops.reshape(grouped, (self.groups, -1, window * channels // self.groups))

    def to_matrix(self, kernel: np.ndarray) -> np.ndarray:
        split = kernel.reshape(-1, self.groups, kernel.shape[-1] // self.groups)
        return np.ascontiguousarray(split.transpose(1, 0, 2))

    def to_kernel(self, matrix: np.ndarray) -> np.ndarray:
        return matrix.transpose(1, 0, 2).reshape(self.kernel_shape)


class DepthwiseConvolution(Convolution):
    """A group for every channel."""

    @property
    def groups(self) -> int:
        return self.kernel_shape[-2]

    def to_matrix(self, kernel: np.ndarray) -> np.ndarray:
        split = kernel.reshape(-1, self.groups, kernel.shape[-1])
        return np.ascontiguousarray(split.transpose(1, 0, 2))


class EinsumDense(LinearForm):
    """Any product of an input with a kernel that an equation names, attention's projections among them."""

    def __init__(self, layer: Any, kernel_shape: tuple[int, ...]):
        super().__init__(layer, kernel_shape)
        data, kernel, result = _einsum_letters(layer.equation)
        self.kernel_order = [
            *(axis for axis, letter in enumerate(kernel) if letter in data and letter in result),
            *(axis for axis, letter in enumerate(kernel) if letter in data and letter not in result),
            *(axis for axis, letter in enumerate(kernel) if letter not in data),
        ]
        self.groups = [letter for letter in kernel if letter in data and letter in result]
        self.summed = [letter for letter in kernel if letter in data and letter not in result]
        self.data, self.kernel, self.result = data, kernel, result

    def _sizes(self) -> tuple[int, int]:
        size = dict(zip(self.kernel, self.kernel_shape))
        return math.prod(size[letter] for letter in self.groups), math.prod(size[letter] for letter in self.summed)

    def rows(self, inputs: Any) -> Any:
        rank = len(inputs.shape)
        dots = rank - len(self.data.replace(".", ""))
        spare = [letter for letter in string.ascii_uppercase if letter not in self.data][:dots]
        letters = list(self.data.replace("...", "".join(spare)))
        free = [letter for letter in letters if letter not in self.groups and letter not in self.summed]
        order = [letters.index(letter) for letter in [*self.groups, *free, *self.summed]]
        groups, features = self._sizes()
        return keras.ops.reshape(keras.ops.transpose(inputs, order), (groups, -1, features))

    def to_matrix(self, kernel: np.ndarray) -> np.ndarray:
        groups, features = self._sizes()
        return np.ascontiguousarray(kernel.transpose(self.kernel_order)).reshape(groups, features, -1)

    def to_kernel(self, matrix: np.ndarray) -> np.ndarray:
        moved = matrix.reshape([self.kernel_shape[axis] for axis in self.kernel_order])
        return moved.transpose(np.argsort(self.kernel_order))

    @property
    def has_bias(self) -> bool:
        # Only where the bias lies in the order of the matrix' outputs.
        outputs = [letter for letter in self.kernel if letter not in self.data]
        in_order = outputs == [letter for letter in self.result if letter in outputs]
        return not self.groups and in_order and super().has_bias


def linear_form(weight: PrunableWeight) -> LinearForm | None:
    """The linear form of a weight; None for one that is used otherwise (recurrent, embedding, transposed, ...)."""
    layer = weight.place.layer
    if weight.variable.name != "kernel" or isinstance(layer, OTHER_CONVOLUTIONS):
        return None
    kinds: list[tuple[Any, type[LinearForm]]] = [
        (keras.layers.Dense, Dense),
        (keras.layers.EinsumDense, EinsumDense),
        (DEPTHWISE, DepthwiseConvolution),
        (PLAIN_CONVOLUTIONS, Convolution),
    ]
    found = next((form for kind, form in kinds if isinstance(layer, kind)), None)
    # A layer of the user's own class may compute something else; a LoRA or quantized kernel is more than one matrix.
    if found is None or not type(layer).__module__.startswith("keras.") or getattr(layer, "lora_enabled", False):
        return None
    return found(layer, weight.shape)


def _einsum_letters(equation: str) -> tuple[str, str, str]:
    operands, result = equation.replace(" ", "").split("->")
    data, kernel = operands.split(",")
    return data, kernel.replace("...", ""), result


def _windows(layer: Any, inputs: Any) -> Any:
    """The windows that a convolution sees, evenly thinned to about WINDOWS of each input: (rows, window, channels)."""
    ops = keras.ops
    if layer.data_format == "channels_first":
        inputs = ops.moveaxis(inputs, 1, -1)
    sizes = inputs.shape[1:-1]
    window, dilation = tuple(layer.kernel_size), tuple(layer.dilation_rate)
    strides = _per_axis(layer.strides, len(window))
    reach = [(size - 1) * rate + 1 for size, rate in zip(window, dilation)]
    inputs = ops.pad(inputs, [(0, 0), *_padding(layer.padding, sizes, reach, strides), (0, 0)])
    counts = [(size - length) // step + 1 for size, length, step in zip(inputs.shape[1:-1], reach, strides)]
    thinning = _thinning(counts)
    pieces = []
    for offset in np.ndindex(*window):
        slices = tuple(
            slice(place * rate, place * rate + (count - 1) * step + 1, step * thin)
            for place, rate, count, step, thin in zip(offset, dilation, counts, strides, thinning)
        )
        pieces.append(inputs[(slice(None), *slices)])
    stacked = ops.stack(pieces, axis=-2)
    return ops.reshape(stacked, (-1, len(pieces), inputs.shape[-1]))


def _padding(padding: str, sizes: tuple[int, ...], reach: list[int], strides: tuple[int, ...]) -> list[tuple[int, int]]:
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


def _per_axis(value: Any, rank: int) -> tuple[int, ...]:
    return (value,) * rank if isinstance(value, int) else tuple(value)
