"""One short rule per kind of layer: how it is computed in int8.

A rule takes the `Program` and the `Use` of a layer, and gives the value that stands for the result. It raises
`NoInt8KernelError` with the reason where TFLite has no int8 kernel for just this use. To add a kind of layer, write a
function with `@rule(...)` and add the layer to `HEADS` in tests/lite/test_quantize.py, where all rules meet the same
checks.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from tfprune.lite.quantize.operators import shifted_relu6
from tfprune.lite.quantize.program import MOVED, OWN, SAME, Fixed, Program, Value

layers = keras.layers

SIGMOID = Fixed(0.0, 255 / 256)  # the output scales that TFLite's kernels demand:
TANH = Fixed(-1.0, 127 / 128)  # https://ai.google.dev/edge/litert/models/quantization_spec
LOG_SOFTMAX = Fixed(-255 / 16, 0.0)


class NoInt8KernelError(Exception):
    """There is no int8 kernel for this use of a layer; the text says why."""


@dataclass
class Use:
    """One call of a layer or operation of the float model.

    Args:
        name: Unique name of the layer.
        names: Its name in the float model, and those of the models that hold it.
        operation: The new model's own float32 copy of it, with the weights of the old.
        args: Arguments of the call, values in the place of tensors.
        kwargs: Keyword arguments.
        inputs: The values among the arguments.
        input_shape: Shape of the first of them.
        output_shape: Shape of the first result.
        results: Number of results.
        shared: Whether the layer is called more than once.
    """

    name: str
    names: frozenset[str]
    operation: Any
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    inputs: list[Value]
    input_shape: tuple[int | None, ...]
    output_shape: tuple[int | None, ...]
    results: int
    shared: bool


Rule = Callable[[Program, Use], Any]
RULES: dict[type | str, Rule] = {}


def rule(*kinds: type | str) -> Callable[[Rule], Rule]:
    """Registers a rule for classes of layers, and for operations of `keras.ops` by the name of their class."""

    def register(function: Rule) -> Rule:
        RULES.update(dict.fromkeys(kinds, function))
        return function

    return register


def rule_for(operation: Any) -> Rule:
    """The rule for a layer or operation; that of the nearest base class whose `call` it uses.

    Raises:
        NoInt8KernelError: There is none.
    """
    kind = type(operation)
    if not isinstance(operation, keras.Layer):
        # The classes of keras.ops operations are not public, only their functions are;
        # tests/lite/test_quantize.py fails when one of the names here is gone.
        if kind.__name__ in RULES and kind.__module__.startswith("keras."):
            return RULES[kind.__name__]
        raise NoInt8KernelError(f"no int8 rule for the operation {kind.__name__}")
    for base in kind.__mro__:
        if base in RULES:
            if getattr(kind, "call", None) is not getattr(base, "call", None):
                raise NoInt8KernelError(f"{kind.__name__} computes in a `call` of its own")
            return RULES[base]
    raise NoInt8KernelError(UNSUPPORTED.get(kind, f"no int8 rule for the layer {kind.__name__}"))


def quantize_call(program: Program, use: Use) -> list[Value]:
    """The steps for one call, by its rule; in float, with the reason on record, where none applies."""
    try:
        apply_rule = rule_for(use.operation)
        if any(value.scale is None for value in use.inputs) and not isinstance(use.operation, layers.Embedding):
            raise NoInt8KernelError("its input is not a float tensor")
        result = apply_rule(program, use)
        return [result] if isinstance(result, Value) else result
    except NoInt8KernelError as reason:
        return program.emit(
            use.operation, *use.args, name=use.name, count=use.results, left_in_float=str(reason), **use.kwargs
        )


# --- layers with a kernel ---------------------------------------------------------------------------------------------


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
    inner = program.kernel(use.operation, use.names, use.shared)
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
    (middle,) = program.emit(program.kernel(depthwise, use.names), *use.args, name=depthwise.name)
    (value,) = program.emit(program.kernel(pointwise, use.names), middle, name=use.name, takes_relu=True)
    return activate(program, value, layer.activation, use.name)


@rule(layers.EinsumDense)
def einsum_dense(program: Program, use: Use) -> Value:
    """A Dense layer between reshapes, where the equation sums the last axes of the input with the first of the kernel.

    Other equations become a batched product of matrices, for which the weights have no int8 form.
    """
    layer = use.operation
    operands, result = layer.equation.replace(" ", "").split("->")
    left, right = (part.replace("...", "") for part in operands.split(","))
    summed = [letter for letter in left if letter in right]
    free = right[len(summed) :]
    rest = left[: len(left) - len(summed)]
    as_dense = list(right[: len(summed)]) == summed and left == rest + "".join(summed)
    if not as_dense or result.replace("...", "") != rest + free or not free or use.shared:
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
    (value,) = program.emit(program.kernel(dense, use.names), value, name=use.name, takes_relu=len(sizes) == 1)
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
    wrapped = program.kernel(depthwise, use.names)
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


# --- activations ------------------------------------------------------------------------------------------------------


def activate(program: Program, value: Value, function: Any, name: str) -> Value:
    """The value after an activation function, which is one inside another layer or of an Activation layer."""
    known = "linear" if function is None else keras.activations.serialize(function)
    if known == "linear":
        return value
    if known == "hard_sigmoid":
        return hard_sigmoid(program, value, name)
    if known in ("silu", "hard_silu"):
        return gated(program, value, name, sigmoid if known == "silu" else hard_sigmoid)
    if isinstance(function, keras.Layer):
        layer = type(function).from_config({**function.get_config(), "name": program.unique(f"{name}_{function.name}")})
    else:
        layer = layers.Activation(function, name=program.unique(f"{name}_activation"))
    if known in ("relu", "relu6"):
        program.leave_to_relu(value)
    if isinstance(known, str) and known in OPERATORS:
        return program.emit(layer, value, name=name, result=OPERATORS[known])[0]
    label = known if isinstance(known, str) else getattr(function, "__name__", type(function).__name__)
    return program.emit(layer, value, name=name, left_in_float=f"no int8 kernel for the activation {label!r}")[0]


# Activations that are one operator of TFLite, with the range of its result.
OPERATORS: dict[str, str | Fixed] = {
    "relu": OWN,
    "relu6": OWN,
    "sigmoid": SIGMOID,
    "tanh": TANH,
    "softmax": SIGMOID,
    "log_softmax": LOG_SOFTMAX,
    "gelu": OWN,
    "leaky_relu": OWN,
    "exponential": OWN,
}


def hard_sigmoid(program: Program, value: Value, name: str) -> Value:
    """relu6(x + 3) / 6, in two operators."""
    shifted = layers.Activation(shifted_relu6, name=program.unique(f"{name}_shifted"))
    (value,) = program.emit(shifted, value, name=name, result=Fixed(0.0, 6.0))
    return program.emit(program.scaled(1 / 6, name), value, name=name, result=Fixed(0.0, 1.0))[0]


def sigmoid(program: Program, value: Value, name: str) -> Value:
    """One operator, on the scale that TFLite prescribes."""
    layer = layers.Activation("sigmoid", name=program.unique(f"{name}_sigmoid"))
    return program.emit(layer, value, name=name, result=SIGMOID)[0]


def gated(program: Program, value: Value, name: str, gate: Callable[[Program, Value, str], Value]) -> Value:
    """x * gate(x), the product as an operator of its own.

    TFLite has a HARD_SWISH operator too, but its int8 kernel is a step off in 1 % of its results, and it is none of
    XNNPACK's: three operators of XNNPACK were five times as fast as one that stands between them.
    """
    product = layers.Multiply(name=program.unique(f"{name}_gated"))
    return program.emit(product, [value, gate(program, value, name)], name=name)[0]


@rule(layers.Activation)
def activation(program: Program, use: Use) -> Value:
    """As an activation inside another layer; a softmax works over the last axis."""
    return activate(program, use.inputs[0], use.operation.activation, use.name)


@rule(layers.ReLU)
def relu(program: Program, use: Use) -> Value:
    """With a slope a leaky ReLU; a maximum other than 6 is the end of its int8 range."""
    layer, (value,) = use.operation, use.inputs
    if layer.threshold:
        raise NoInt8KernelError(f"its threshold is {layer.threshold}, not 0")
    if layer.negative_slope:
        if layer.max_value is not None:
            raise NoInt8KernelError("it has both a slope and a maximum")
        return program.emit(layer, value, name=use.name)[0]
    program.leave_to_relu(value)
    if layer.max_value in (None, 6.0):
        return program.emit(layer, value, name=use.name)[0]
    open_ended = layers.ReLU(name=layer.name)
    return program.emit(open_ended, value, name=use.name, result=Fixed(0.0, float(layer.max_value)))[0]


@rule("Relu", "Relu6", "Sigmoid", "Tanh", "HardSigmoid", "HardSilu", "Silu", "Exp", "LogSoftmax")
def named_operation(program: Program, use: Use) -> Value:
    """Operations of `keras.ops` that are activations."""
    names = {"HardSigmoid": "hard_sigmoid", "HardSilu": "hard_silu", "Exp": "exponential", "LogSoftmax": "log_softmax"}
    kind = type(use.operation).__name__
    if kind == "LogSoftmax":
        require_last_axis(use)
    return activate(program, use.inputs[0], keras.activations.get(names.get(kind, kind.lower())), use.name)


@rule("Gelu", "LeakyRelu", layers.LeakyReLU, layers.PReLU)
def own_range(program: Program, use: Use) -> Value:
    """One int8 operator with an output range of its own."""
    return program.emit(use.operation, *use.args, name=use.name, **use.kwargs)[0]


@rule("Softmax", layers.Softmax)
def softmax(program: Program, use: Use) -> Value:
    """Over the last axis, without a mask."""
    require_last_axis(use)
    if len(use.inputs) > 1:
        raise NoInt8KernelError("a softmax with a mask")
    return program.emit(use.operation, use.inputs[0], name=use.name, result=SIGMOID)[0]


def require_last_axis(use: Use) -> None:
    """Raises for a softmax over another axis than TFLite's."""
    axis = use.operation.axis
    if axis not in (-1, len(use.input_shape) - 1):
        raise NoInt8KernelError(f"a softmax over axis {axis}; TFLite has one over the last axis")


# --- sums, products, concatenations -----------------------------------------------------------------------------------


@rule(layers.Add, layers.Multiply)
def add_or_multiply(program: Program, use: Use) -> Value:
    """Two at a time, each result with a range of its own."""
    return in_pairs(program, use, type(use.operation))


@rule(layers.Average)
def average(program: Program, use: Use) -> Value:
    """The sum, then a product with one over their number."""
    total = in_pairs(program, use, layers.Add)
    return program.emit(program.scaled(1 / len(use.inputs), use.name), total, name=use.name)[0]


def in_pairs(program: Program, use: Use, kind: type) -> Value:
    """Joins the inputs by a layer that takes two."""
    value, *others = use.inputs
    for number, other in enumerate(others):
        name = use.operation.name if number == 0 else program.unique(f"{use.name}_pair")
        (value,) = program.emit(kind(name=name), [value, other], name=use.name, takes_relu=True)
    return value


@rule(layers.Subtract, "Add", "Subtract", "Multiply")
def of_two(program: Program, use: Use) -> Value:
    """A sum, difference or product of two tensors, or of a tensor and one number."""
    for x in keras.tree.flatten((use.args, use.kwargs)):
        if not isinstance(x, Value) and np.ndim(x) > 0:
            raise NoInt8KernelError("it takes a constant array")
    return program.emit(use.operation, *use.args, name=use.name, takes_relu=True, **use.kwargs)[0]


# --- the same values in other places, and pooling ---------------------------------------------------------------------


@rule(
    layers.Concatenate,
    layers.Maximum,
    layers.Minimum,
    layers.Flatten,
    layers.Reshape,
    layers.Permute,
    layers.RepeatVector,
    layers.ZeroPadding1D,
    layers.ZeroPadding2D,
    layers.Cropping1D,
    layers.Cropping2D,
    layers.UpSampling1D,
    layers.MaxPooling1D,
    layers.MaxPooling2D,
    layers.GlobalMaxPooling1D,
    layers.GlobalMaxPooling2D,
    layers.Identity,
    layers.Dropout,
    layers.SpatialDropout1D,
    layers.SpatialDropout2D,
    layers.GaussianNoise,
    layers.GaussianDropout,
    layers.AlphaDropout,
    layers.ActivityRegularization,
    layers.RandomFlip,
    layers.RandomRotation,
    layers.RandomTranslation,
    layers.RandomZoom,
    layers.RandomContrast,
    layers.RandomBrightness,
    "Concatenate",
    "Reshape",
    "Transpose",
    "Squeeze",
    "ExpandDims",
    "GetItem",
)
def moved(program: Program, use: Use) -> Any:
    """Gives values that it takes, so they stay on their scale; what only acts in training is passed through."""
    require_channels_last(use.operation)
    return program.emit(use.operation, *use.args, name=use.name, result=MOVED, count=use.results, **use.kwargs)


@rule(layers.AveragePooling1D, layers.AveragePooling2D)
def average_pooling(program: Program, use: Use) -> Value:
    """TFLite's kernel keeps the scale of its input, and rounds halves in a way of its own."""
    require_channels_last(use.operation)
    (value,) = program.emit(use.operation, *use.args, name=use.name, result=SAME)
    value.halves_away_from_zero = True
    return value


@rule(layers.GlobalAveragePooling1D, layers.GlobalAveragePooling2D)
def global_average_pooling(program: Program, use: Use) -> Value:
    """A mean, with a range of its own."""
    require_channels_last(use.operation)
    if len(use.inputs) > 1 or use.kwargs.get("mask") is not None:
        raise NoInt8KernelError("a mean over a mask")
    return program.emit(use.operation, *use.args, name=use.name)[0]


@rule(layers.UpSampling2D, layers.Resizing)
def resizing(program: Program, use: Use) -> Value:
    """Nearest neighbours move values; bilinear weights are computed on the scale of the input."""
    layer = use.operation
    require_channels_last(layer)
    if layer.interpolation not in ("nearest", "bilinear"):
        raise NoInt8KernelError(f"the interpolation {layer.interpolation!r}; int8 has 'nearest' and 'bilinear'")
    if getattr(layer, "crop_to_aspect_ratio", False) or getattr(layer, "pad_to_aspect_ratio", False):
        raise NoInt8KernelError("it keeps the aspect ratio")
    result = MOVED if layer.interpolation == "nearest" else SAME
    return program.emit(layer, *use.args, name=use.name, result=result)[0]


def require_channels_last(layer: Any) -> None:
    """Raises for a layer whose channels come first, for which TFLite has no kernels."""
    if getattr(layer, "data_format", None) == "channels_first":
        raise NoInt8KernelError("its channels come first; TFLite's kernels take channels last")


RECURRENT = "the converter takes the ranges inside a recurrent layer from post-training calibration only"
UNSUPPORTED: dict[type, str] = {
    layers.LSTM: RECURRENT,
    layers.GRU: RECURRENT,
    layers.SimpleRNN: RECURRENT,
    layers.RNN: RECURRENT,
    layers.Bidirectional: RECURRENT,
    layers.ConvLSTM1D: RECURRENT,
    layers.ConvLSTM2D: RECURRENT,
    layers.ConvLSTM3D: RECURRENT,
    layers.Conv3D: "TFLite has no int8 kernel for three-dimensional convolution",
    layers.Conv3DTranspose: "TFLite has no int8 kernel for three-dimensional convolution",
    layers.LayerNormalization: "it becomes a chain of float operators in TFLite",
    layers.GroupNormalization: "it becomes a chain of float operators in TFLite",
    layers.UnitNormalization: "it becomes a chain of float operators in TFLite",
    layers.RMSNormalization: "it becomes a chain of float operators in TFLite",
    layers.MultiHeadAttention: "it becomes a chain of operators whose ranges cannot be set from outside",
    layers.GroupQueryAttention: "it becomes a chain of operators whose ranges cannot be set from outside",
    layers.Lambda: "what a Lambda computes is not known",
}
