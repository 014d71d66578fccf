"""Layers as linear regressions: which rows of features a kernel is multiplied with.

A dense layer multiplies each input with its kernel, a convolution each window of its input. Either way the output is
`rows @ matrix + bias`, for one or more independent groups, so what is known of least squares applies to the kernel.
"""

import math
from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from tfprune.model.layers.equation import Equation, letter_axes
from tfprune.model.layers.shapes import windows


class LinearForm:
    """A layer's kernel as `groups` matrices of shape `(features, outputs)`.

    Args:
        layer: The layer.
        equation: Its product as an einsum of what `read` gives and the kernel.
        split: Shape of the kernel in the equation, where that splits an axis. Defaults to None: as it is.
        read: Takes the layer and its input, gives the first operand. Defaults to None: the input itself.
        kernel: The name of the kernel.
        is_last: Whether the product, with the bias, is what the layer gives before its activation.
    """

    def __init__(
        self,
        layer: Any,
        equation: Equation,
        split: tuple[int, ...] | None = None,
        read: Callable[[Any, Any], Any] | None = None,
        kernel: str = "kernel",
        is_last: bool = True,
    ):
        self.layer, self.equation, self.read = layer, equation, read
        self.kernel, self.is_last = getattr(layer, kernel), is_last
        self.kernel_shape = tuple(self.kernel.shape)
        self.split = split or self.kernel_shape
        self.order = [equation.kernel.index(each) for each in (*equation.shared, *equation.summed, *equation.made)]
        sizes = [self.split[axis] for axis in self.order]
        groups, features = len(equation.shared), len(equation.shared + equation.summed)
        self.shape = (math.prod(sizes[:groups]), math.prod(sizes[groups:features]), math.prod(sizes[features:]))

    def rows(self, inputs: Any) -> Any:
        """The features of an input tensor, of shape `(groups, rows, features)`."""
        data = inputs if self.read is None else self.read(self.layer, inputs)
        places = letter_axes(self.equation.terms[0], len(data.shape))
        shared, summed = (
            [places[each] for each in letters] for letters in (self.equation.shared, self.equation.summed)
        )
        free = [axis for axis in range(len(data.shape)) if axis not in (*shared, *summed)]
        moved = keras.ops.transpose(data, [*shared, *free, *summed])
        return keras.ops.reshape(moved, (self.shape[0], -1, self.shape[1]))

    def to_matrix(self, kernel: np.ndarray) -> np.ndarray:
        """An array of the kernel's shape as `(groups, features, outputs)`."""
        return np.ascontiguousarray(kernel.reshape(self.split).transpose(self.order)).reshape(self.shape)

    def to_kernel(self, matrix: np.ndarray) -> np.ndarray:
        """The inverse of `to_matrix`."""
        moved = matrix.reshape([self.split[axis] for axis in self.order])
        return moved.transpose(np.argsort(self.order)).reshape(self.kernel_shape)

    @property
    def has_bias(self) -> bool:
        """Whether every output has a bias of its own, in the order of the matrix, free to take up a change of mean."""
        outputs = [each for each in self.equation.result if each in self.equation.kernel]
        in_order = outputs == [*self.equation.shared, *self.equation.made]
        bias = getattr(self.layer, "bias", None) if self.is_last else None
        return bias is not None and in_order and math.prod(bias.shape) == self.shape[0] * self.shape[2]


def product_form(layer: Any) -> LinearForm:
    """A dense layer: the features are those of the last axis."""
    return LinearForm(layer, Equation.parse("...x,xy->...y"))


def einsum_form(layer: Any) -> LinearForm:
    """Any product of an input with a kernel that an equation names, attention's projections among them."""
    return LinearForm(layer, Equation.parse(layer.equation))


def convolution_form(layer: Any) -> LinearForm:
    """Windows of the input, channels last in each window, for every group of channels apart."""
    *window, channels, outputs = layer.kernel.shape
    split = (math.prod(window), channels, layer.groups, outputs // layer.groups)

    def read(layer: Any, inputs: Any) -> Any:
        found = windows(layer, inputs)
        return keras.ops.reshape(found, (-1, found.shape[1], layer.groups, channels))

    return LinearForm(layer, Equation.parse("rwgc,wcgo->rgo"), split, read)


def depthwise_form(layer: Any, kernel: str = "kernel", is_last: bool = True) -> LinearForm:
    """Windows of the input, a group for every channel."""
    *window, channels, multiplier = getattr(layer, kernel).shape
    split = (math.prod(window), channels, multiplier)
    return LinearForm(layer, Equation.parse("rwc,wcm->rcm"), split, windows, kernel, is_last)


def separable_depthwise_form(layer: Any) -> LinearForm:
    """The first product of a separable convolution."""
    return depthwise_form(layer, "depthwise_kernel", is_last=False)


def separable_pointwise_form(layer: Any) -> LinearForm:
    """The second product of a separable convolution: the features are what its first one gives."""
    first = separable_depthwise_form(layer)

    def read(layer: Any, inputs: Any) -> Any:
        kernel = keras.ops.reshape(keras.ops.cast(layer.depthwise_kernel, inputs.dtype), first.split)
        found = keras.ops.einsum("rwc,wcm->rcm", windows(layer, inputs), kernel)
        return keras.ops.reshape(found, (-1, first.shape[0] * first.shape[2]))

    *window, features, outputs = layer.pointwise_kernel.shape
    split = (math.prod(window) * features, outputs)
    return LinearForm(layer, Equation.parse("rf,fo->ro"), split, read, "pointwise_kernel")
