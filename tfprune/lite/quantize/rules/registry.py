"""The table of rules, one for each kind of layer, and how a call of a layer finds its own.

A rule takes the `Program` and the `Use` of a layer, and gives the value that stands for the result. It raises
`NoInt8KernelError` with the reason where TFLite has no int8 kernel for just this use. To add a kind of layer, write a
function with `@rule(...)` and add the layer to `HEADS` in tests/lite/test_quantize.py, where all rules meet the same
checks.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import keras

from tfprune.lite.quantize.program import Program, Value
from tfprune.model.hooks import operation_name
from tfprune.model.layers import channel_axis

layers = keras.layers


class NoInt8KernelError(Exception):
    """There is no int8 kernel for this use of a layer; the text says why."""


@dataclass
class Use:
    """One call of a layer or operation of the float model.

    Args:
        name: Unique name of the layer.
        path: Its path in the float model.
        operation: The new model's own float32 copy of it, with the weights of the old.
        args: Arguments of the call, values in the place of tensors.
        kwargs: Keyword arguments.
        inputs: The values among the arguments.
        input_shapes: Their shapes.
        output_shape: Shape of the first result.
        results: Number of results.
        shared: Whether the layer is called more than once.
        is_float: Whether the results are floats that can be rounded: no numbers of rows in a table.
        is_masked: Whether Keras knows steps of an input as padding.
    """

    name: str
    path: str
    operation: Any
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    inputs: list[Value]
    input_shapes: list[tuple[int | None, ...]]
    output_shape: tuple[int | None, ...]
    results: int
    shared: bool
    is_float: bool = True
    is_masked: bool = False

    @property
    def input_shape(self) -> tuple[int | None, ...]:
        """Shape of the first input."""
        return self.input_shapes[0]


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
        name = operation_name(operation)
        if name in RULES:
            return RULES[name]
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
        takes_floats = isinstance(use.operation, layers.Embedding) or all(value.scale for value in use.inputs)
        if not use.is_float or not takes_floats:
            raise NoInt8KernelError("its input is not a float tensor")
        result = apply_rule(program, use)
        return [result] if isinstance(result, Value) else result
    except NoInt8KernelError as reason:
        left = {"left_in_float": str(reason)} if use.is_float else {"result": None}
        return program.emit(use.operation, *use.args, name=use.name, count=use.results, **left, **use.kwargs)


def require_channels_last(layer: Any) -> None:
    """Raises for a layer whose channels come first, for which TFLite has no kernels."""
    if channel_axis(layer) == 1:
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
    layers.GroupQueryAttention: "it becomes a chain of operators whose ranges cannot be set from outside",
    layers.Lambda: "what a Lambda computes is not known",
}
