"""Activations in int8, whether they stand alone or inside another layer."""

from collections.abc import Callable
from typing import Any

import keras

from tfprune.lite.quantize.operators import shifted_relu6
from tfprune.lite.quantize.program import OWN, Fixed, Program, Value
from tfprune.lite.quantize.rules.registry import NoInt8KernelError, Use, rule

layers = keras.layers

SIGMOID = Fixed(0.0, 255 / 256)  # the output scales that TFLite's kernels demand:


TANH = Fixed(-1.0, 127 / 128)  # https://ai.google.dev/edge/litert/models/quantization_spec


LOG_SOFTMAX = Fixed(-255 / 16, 0.0)


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
