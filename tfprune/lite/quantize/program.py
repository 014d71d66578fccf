"""The quantized model as a list of steps, before any of its layers is called: who computes what, on which scale.

Rules (see `rules.py`) turn each call of the float model into steps here. A step says what becomes of its result:

- `OWN`: rounded over a range of its own;
- `SAME`: computed in int8 on the scale of the inputs, and rounded again (average pooling, bilinear resizing);
- `MOVED`: values of the inputs, moved about or left out, so they are on the grid already (reshaping, concatenating);
- a `Fixed` range, where TFLite prescribes it (sigmoid, softmax, tanh);
- None: not a float, or float until a later step rounds it.

Values tied by `SAME` and `MOVED` steps share one `Scale`; each scale becomes one `FakeQuantize` layer.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import keras
import numpy as np

from tfprune.lite.quantize.fake_quantize import FakeQuantize, RangeMode
from tfprune.lite.quantize.kernel import QuantizedKernel
from tfprune.lite.quantize.operators import Scaled
from tfprune.lite.quantize.weight_bits import WeightBits


class Fixed(NamedTuple):
    """A range that the int8 kernel prescribes."""

    minimum: float
    maximum: float


# Layers that LiteRT computes with 4-bit kernels; depthwise ones too, where they are named.
FOUR_BITS = (keras.layers.Dense, keras.layers.Conv1D, keras.layers.Conv2D)
OWN, SAME, MOVED = "own", "same", "moved"


@dataclass(eq=False)
class Scale:
    """What one FakeQuantize layer rounds: the values whose ranges are observed, and layers before it left in float."""

    sources: list["Value"] = field(default_factory=list)
    fixed: Fixed | None = None
    float_layers: dict[str, str] = field(default_factory=dict)
    joined: "Scale | None" = None

    def root(self) -> "Scale":
        """The scale that this one has become part of."""
        scale = self
        while scale.joined is not None:
            scale = scale.joined
        return scale

    def join(self, other: "Scale") -> None:
        """Makes the values of another scale share this one."""
        if other is not self:
            self.sources += other.sources
            self.float_layers.update(other.float_layers)
            other.joined = self


@dataclass(eq=False)
class Value:
    """A tensor of the quantized model.

    Args:
        name: Of the layer that made it.
        uses: How many calls take it, outputs of the model included.
        step: The step that makes it; None for an input.
        scale: That of its int8 numbers; None while it is no float, or rounded by a later step.
        rounded: Whether the FakeQuantize layer of its scale is called on it.
        halves_away_from_zero: Whether its kernel rounds halves away from zero, where they are common.
    """

    name: str
    uses: int = 1
    step: "Step | None" = None
    scale: Scale | None = None
    rounded: bool = False
    halves_away_from_zero: bool = False


@dataclass(eq=False)
class Step:
    """One call in the quantized model. `takes_relu`: its int8 kernel can apply a ReLU before it rounds."""

    apply: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    outputs: list[Value]
    takes_relu: bool = False


class Program:
    """Collects the steps of a quantized model, keeps its scales, and builds it.

    Args:
        ranges: How the ranges of activations are found.
        momentum: Of the moving average.
        freeze_batch_norm: Training steps until batch-norm statistics freeze; None for never.
        reserved: Names that its layers may not take.
        weight_bits: The bits of every kernel. Defaults to 8 for all.
    """

    def __init__(
        self,
        ranges: RangeMode,
        momentum: float,
        freeze_batch_norm: int | None,
        reserved: Iterable[str] = (),
        weight_bits: WeightBits | None = None,
    ) -> None:
        self.ranges = ranges
        self.momentum = momentum
        self.freeze_batch_norm = freeze_batch_norm
        self.weight_bits = weight_bits or WeightBits()
        self.steps: list[Step] = []
        self.kernels: dict[int, QuantizedKernel] = {}
        self.masks: dict[int, np.ndarray] = {}
        self.in_four_bits: set[str] = set()  # paths of the layers with such a kernel
        self._names = set(reserved)
        self._shared_kernels: set[int] = set()
        self._activations: dict[int, Any] = {}

    def feed(self, name: str, is_float: bool) -> Value:
        """A value for an input of the model, rounded when it is a float."""
        value = Value(name)
        if is_float:
            self._open_scale(value)
        return value

    def emit(
        self,
        apply: Callable[..., Any],
        *args: Any,
        name: str,
        result: str | Fixed | None = OWN,
        takes_relu: bool = False,
        count: int = 1,
        left_in_float: str | None = None,
        **kwargs: Any,
    ) -> list[Value]:
        """Adds a step and gives the values that it makes.

        Args:
            apply: Layer, operation or function of Keras tensors.
            *args: Its arguments: values, constants, or nested lists of them.
            name: Of the layer that the user knows.
            result: OWN, SAME, MOVED, a Fixed range, or None.
            takes_relu: Whether a ReLU that follows can be computed in the same int8 kernel.
            count: Number of results.
            left_in_float: Why the step has no int8 kernel; None when it has.
            **kwargs: Its keyword arguments.
        """
        if result in (SAME, MOVED):
            args, kwargs = self._on_one_scale(args, kwargs)
        step = Step(apply, args, kwargs, [Value(name) for _ in range(count)], takes_relu)
        for value in step.outputs:
            value.step = step
            if result in (SAME, MOVED):
                inputs = values_in(args, kwargs)
                value.scale = inputs[0].scale if inputs else None
                value.rounded = result == SAME and value.scale is not None
            elif result is not None:
                scale = self._open_scale(value, result if isinstance(result, Fixed) else None)
                if left_in_float is not None:
                    scale.float_layers[getattr(apply, "name", name)] = left_in_float
        self.steps.append(step)
        return step.outputs

    def round_again(self, value: Value) -> Value:
        """The value on a scale of its own, after one that is prescribed.

        The converter fails on two scales in a row, so an operator has to stand between them. It is a product with the
        largest number below one, which changes no int8 value and is not optimised away like a product with one.
        """
        rescaled = Scaled(1.0 - 2.0**-24, name=self.unique(f"{value.name}_rescaled"))
        return self.emit(rescaled, value, name=value.name)[0]

    def leave_to_relu(self, value: Value) -> bool:
        """Leaves the rounding of a value to the ReLU that takes it, where one int8 kernel computes both."""
        if value.step is None or not value.step.takes_relu or value.uses != 1 or value.scale is None:
            return False
        value.scale, value.rounded = None, False
        return True

    def kernel(self, layer: keras.Layer, path: str = "", shared: bool = False) -> QuantizedKernel:
        """The int8 form of a layer; the same one each time, so that a shared layer stays shared.

        Args:
            layer: The layer.
            path: That of the layer in the float model.
            shared: Whether it is called more than once.
        """
        if id(layer) not in self.kernels:
            bits = self.weight_bits.of([path], in_default=isinstance(layer, FOUR_BITS))
            if bits == 4 and not isinstance(layer, (*FOUR_BITS, keras.layers.DepthwiseConv2D)):
                bits = 8
            self.in_four_bits |= {path} if bits == 4 else set()
            self.kernels[id(layer)] = QuantizedKernel(
                layer, freeze_batch_norm=self.freeze_batch_norm, weight_bits=bits, name=layer.name
            )
            self._shared_kernels |= {id(self.kernels[id(layer)])} if shared else set()
        return self.kernels[id(layer)]

    def unnormalised_kernel(self, value: Value) -> QuantizedKernel | None:
        """The layer with a kernel that made a value and can take in the batch norm which alone follows it."""
        inner = None if value.step is None else value.step.apply
        if not isinstance(inner, QuantizedKernel) or inner.batch_norm is not None:
            return None
        return inner if value.uses == 1 and id(inner) not in self._shared_kernels else None

    def activation_of(self, layer: Any) -> Any:
        """The activation function inside a layer, which from now on is a step of its own."""
        if id(layer) not in self._activations:
            self._activations[id(layer)] = layer.activation
            layer.activation = keras.activations.linear
        return self._activations[id(layer)]

    def take_weights(self, layer: keras.Layer, input_shape: tuple[int | None, ...], **weights: Any) -> None:
        """Builds a layer on weights of another shape or home; the masks on them go along."""
        layer.build(input_shape)
        for name, weight in weights.items():
            if weight is not None:
                variable = getattr(layer, name)
                variable.assign(keras.ops.reshape(keras.ops.convert_to_tensor(weight), variable.shape))
                if id(weight) in self.masks:
                    self.masks[id(variable)] = self.masks[id(weight)].reshape(variable.shape)

    def reshape(self, shape: tuple[int, ...], name: str) -> keras.Layer:
        """A Reshape layer beside the layer of that name."""
        return keras.layers.Reshape(shape, name=self.unique(f"{name}_reshape"))

    def scaled(self, factor: float, name: str) -> keras.Layer:
        """A product with one number, beside the layer of that name."""
        return Scaled(factor, name=self.unique(f"{name}_scaled"))

    def unique(self, name: str) -> str:
        """`name`, or with a number when a layer has it already."""
        name = name.replace("/", "_")
        candidate, count = name, 1
        while candidate in self._names:
            candidate, count = f"{name}_{count}", count + 1
        self._names.add(candidate)
        return candidate

    def build(self, inputs: Mapping[Value, keras.KerasTensor]) -> dict[Value, Any]:
        """Calls every step, rounding what is to be rounded; gives the tensor of each value.

        Args:
            inputs: The new model's input for each value that `feed` gave.
        """
        quantizers: dict[Scale, FakeQuantize] = {}
        widths: dict[Scale, Any] = {}
        tensors: dict[Value, Any] = {}

        def settle(value: Value, tensor: Any) -> None:
            if value.rounded and value.scale is not None:
                scale = value.scale.root()
                if scale not in quantizers:
                    quantizers[scale] = self._quantizer(scale)
                source = scale.sources.index(value) if value in scale.sources else None
                options = {"halves_away_from_zero": True} if value.halves_away_from_zero else {}
                tensor, widths[scale] = quantizers[scale](tensor, source=source, **options)
            tensors[value] = tensor

        def fill(x: Any) -> Any:
            return tensors[x] if isinstance(x, Value) else x

        for value, tensor in inputs.items():
            settle(value, tensor)
        for step in self.steps:
            args, kwargs = keras.tree.map_structure(fill, (step.args, dict(step.kwargs)))
            if isinstance(step.apply, QuantizedKernel):
                scale = values_in(step.args)[0].scale
                kwargs["scale"] = None if scale is None else widths[scale.root()]
            for value, tensor in zip(step.outputs, keras.tree.flatten(step.apply(*args, **kwargs))):
                settle(value, tensor)
        return tensors

    def _quantizer(self, scale: Scale) -> FakeQuantize:
        low, high = scale.fixed or (None, None)
        return FakeQuantize(
            "fixed" if scale.fixed else self.ranges,
            sources=[source.name for source in scale.sources],
            momentum=self.momentum,
            minimum=low,
            maximum=high,
            float_layers=scale.float_layers,
            name=self.unique(f"{scale.sources[0].name}_range"),
        )

    def _open_scale(self, value: Value, fixed: Fixed | None = None) -> Scale:
        value.scale, value.rounded = Scale([value], fixed), True
        return value.scale

    def _on_one_scale(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The arguments with their values on one scale; a value of a fixed range is rescaled where it meets others."""
        inputs = values_in(args, kwargs)
        scales = {value.scale.root() for value in inputs if value.scale is not None}
        if len(scales) > 1:
            again = {
                value: self.round_again(value)
                for value in inputs
                if value.scale is not None and value.scale.root().fixed is not None
            }
            args, kwargs = keras.tree.map_structure(
                lambda x: again.get(x, x) if isinstance(x, Value) else x, (args, kwargs)
            )
            first, *others = [value.scale.root() for value in values_in(args, kwargs) if value.scale is not None]
            for other in others:
                first.root().join(other.root())
        return args, kwargs


def values_in(*structures: Any) -> list[Value]:
    """The values among arguments, in order."""
    return [x for x in keras.tree.flatten(structures) if isinstance(x, Value)]
