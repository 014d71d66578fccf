"""Layers with a kernel, and those that become one: a Dense, a convolution, a gain and an offset for each channel."""

from typing import Any

import keras
import numpy as np

from tfprune.lite.quantize.program import MOVED, Program, Value
from tfprune.lite.quantize.rules.activations import activate
from tfprune.lite.quantize.rules.registry import NoInt8KernelError, Use, require_channels_last, rule
from tfprune.model.layers import Equation

layers = keras.layers


@rule(
    layers.Dense,
    layers.Conv1D,
    layers.Conv2D,
    layers.Conv1DTranspose,
    layers.Conv2DTranspose,
    layers.DepthwiseConv1D,
    layers.DepthwiseConv2D,
)
def kernel(program: Program, use: Use) -> Value:
    """The layer with an int8 kernel; its activation after it."""
    require_channels_last(use.operation)
    function = program.activation_of(use.operation)
    inner = program.kernel(use.operation, use.path, use.shared)
    (value,) = program.emit(inner, *use.args, name=use.name, takes_relu=True)
    return activate(program, value, function, use.name)


@rule(layers.SeparableConv1D, layers.SeparableConv2D)
def separable(program: Program, use: Use) -> Value:
    """A depthwise convolution and a pointwise one, as TFLite has no single kernel for both."""
    require_channels_last(use.operation)
    if use.shared:
        raise NoInt8KernelError("a separable convolution that is called more than once")
    layer, two = use.operation, isinstance(use.operation, layers.SeparableConv2D)
    depthwise = (layers.DepthwiseConv2D if two else layers.DepthwiseConv1D)(
        layer.kernel_size,
        strides=layer.strides,
        padding=layer.padding,
        depth_multiplier=layer.depth_multiplier,
        dilation_rate=layer.dilation_rate,
        use_bias=False,
        depthwise_regularizer=layer.depthwise_regularizer,
        depthwise_constraint=layer.depthwise_constraint,
        name=program.unique(f"{use.name}_depthwise"),
    )
    pointwise = (layers.Conv2D if two else layers.Conv1D)(
        layer.filters,
        1,
        use_bias=layer.use_bias,
        kernel_regularizer=layer.pointwise_regularizer,
        kernel_constraint=layer.pointwise_constraint,
        bias_regularizer=layer.bias_regularizer,
        bias_constraint=layer.bias_constraint,
        name=program.unique(f"{use.name}_pointwise"),
    )
    depthwise.trainable = pointwise.trainable = layer.trainable
    program.take_weights(depthwise, use.input_shape, kernel=layer.depthwise_kernel)
    program.take_weights(
        pointwise,
        (*use.output_shape[:-1], layer.pointwise_kernel.shape[-2]),
        kernel=layer.pointwise_kernel,
        bias=layer.bias,
    )
    (middle,) = program.emit(program.kernel(depthwise, use.path), *use.args, name=depthwise.name)
    (value,) = program.emit(program.kernel(pointwise, use.path), middle, name=use.name, takes_relu=True)
    return activate(program, value, layer.activation, use.name)


@rule(layers.EinsumDense)
def einsum_dense(program: Program, use: Use) -> Value:
    """A Dense layer between reshapes, where the equation sums the last axes of the input with the first of the kernel.

    Other equations become a batched product of matrices, for which the weights have no int8 form.
    """
    layer = use.operation
    equation = Equation.parse(layer.equation)
    summed = equation.summed
    if not equation.is_matrix_product or use.shared:
        raise NoInt8KernelError(f"the equation {layer.equation!r} is no product with one matrix")
    if None in use.input_shape[1:]:
        raise NoInt8KernelError("its input has an axis of unknown length")
    sizes = tuple(layer.kernel.shape[len(summed) :])
    if layer.bias is not None and tuple(layer.bias.shape) != sizes:
        raise NoInt8KernelError(f"its bias_axes={layer.bias_axes!r} leave out an axis of the output")
    dense = layers.Dense(
        int(np.prod(sizes)),
        use_bias=layer.bias is not None,
        kernel_regularizer=layer.kernel_regularizer,
        bias_regularizer=layer.bias_regularizer,
        name=layer.name,
    )
    dense.trainable = layer.trainable
    inner = tuple(int(size) for size in use.input_shape[1 : len(use.input_shape) - len(summed)] if size is not None)
    width = int(np.prod(layer.kernel.shape[: len(summed)]))
    program.take_weights(dense, (None, *inner, width), kernel=layer.kernel, bias=layer.bias)
    value = use.inputs[0]
    if len(summed) > 1:
        (value,) = program.emit(program.reshape((*inner, width), use.name), value, name=use.name, result=MOVED)
    (value,) = program.emit(program.kernel(dense, use.path), value, name=use.name, takes_relu=len(sizes) == 1)
    if len(sizes) > 1:
        (value,) = program.emit(program.reshape((*inner, *sizes), use.name), value, name=use.name, result=MOVED)
    return activate(program, value, layer.activation, use.name)


@rule(layers.BatchNormalization)
def batch_norm(program: Program, use: Use) -> Value:
    """Folded into the layer before it, where that has a kernel; else a depthwise 1x1 convolution with its numbers."""
    layer, value = use.operation, use.inputs[0]
    axis = layer.axis if isinstance(layer.axis, int) else layer.axis[0]
    if axis not in (-1, len(use.input_shape) - 1):
        raise NoInt8KernelError(f"it normalises axis {axis}, not the last one")
    if use.shared:
        raise NoInt8KernelError("a batch norm that is called more than once")
    inner = program.unnormalised_kernel(value)
    if inner is not None:
        inner.batch_norm = layer
        return value
    return affine(program, use, kernel=np.ones(channels_of(use)), bias=None, norm=layer)


@rule(layers.Rescaling)
def rescaling(program: Program, use: Use) -> Value:
    """A depthwise 1x1 convolution with the scale as its kernel and the offset as its bias."""
    channels = channels_of(use)
    scale, offset = (np.asarray(keras.ops.convert_to_numpy(x)) for x in (use.operation.scale, use.operation.offset))
    if max(scale.ndim, offset.ndim) > 1:
        raise NoInt8KernelError("its scale or offset varies over more than the last axis")
    return affine(program, use, np.broadcast_to(scale, channels), np.broadcast_to(offset, channels))


@rule(layers.Normalization)
def normalization(program: Program, use: Use) -> Value:
    """A depthwise 1x1 convolution that takes the mean off and divides by the deviation."""
    layer = use.operation
    if layer.invert:
        raise NoInt8KernelError("it undoes a normalisation (invert=True)")
    mean, variance = (np.asarray(keras.ops.convert_to_numpy(x)).reshape(-1) for x in (layer.mean, layer.variance))
    channels = channels_of(use)
    if mean.size not in (1, channels):
        raise NoInt8KernelError("it normalises more than the last axis")
    gain = 1.0 / np.maximum(np.sqrt(variance), keras.backend.epsilon())
    return affine(program, use, np.broadcast_to(gain, channels), np.broadcast_to(-mean * gain, channels))


def affine(program: Program, use: Use, kernel: Any, bias: Any, norm: keras.Layer | None = None) -> Value:
    """A gain and an offset for each channel, as a depthwise convolution over single pixels: one int8 operator."""
    channels, rank = channels_of(use), len(use.input_shape)
    if not 2 <= rank <= 4:
        raise NoInt8KernelError(f"its input has shape {use.input_shape}")
    if sum(size is None for size in use.input_shape[1:-1]) > 1 and rank != 4:
        raise NoInt8KernelError("its input has several axes of unknown length")
    depthwise = layers.DepthwiseConv2D(1, use_bias=bias is not None, trainable=False, name=use.name)
    program.take_weights(depthwise, (None, 1, 1, channels), kernel=np.reshape(kernel, (1, 1, channels, 1)), bias=bias)
    wrapped = program.kernel(depthwise, use.path)
    wrapped.batch_norm = norm
    (value,) = use.inputs
    if rank == 4:
        return program.emit(wrapped, value, name=use.name, takes_relu=True)[0]
    shape = (-1, 1, channels) if rank == 3 else (1, 1, channels)
    (value,) = program.emit(program.reshape(shape, use.name), value, name=use.name, result=MOVED)
    (value,) = program.emit(wrapped, value, name=use.name)
    back = tuple(-1 if size is None else size for size in use.input_shape[1:])
    return program.emit(program.reshape(back, use.name), value, name=use.name, result=MOVED)[0]


def channels_of(use: Use) -> int:
    """The length of the last axis of the input."""
    channels = use.input_shape[-1]
    if channels is None:
        raise NoInt8KernelError("the last axis of its input has an unknown length")
    return channels


@rule(layers.Embedding)
def embedding(program: Program, use: Use) -> Value:
    """The table gets the scale of what is read from it."""
    return program.emit(use.operation, *use.args, name=use.name)[0]
