"""A float model rebuilt as one that trains with the rounding of int8."""

import contextlib
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from tfprune.deciding.methods import Percentile
from tfprune.errors import PruningError
from tfprune.lite.quantize.calibration import observe
from tfprune.lite.quantize.fake_quantize import FakeQuantize, RangeMode
from tfprune.lite.quantize.frozen import float32_copy
from tfprune.lite.quantize.kernel import QuantizedKernel, channel_axes, check_freeze
from tfprune.lite.quantize.program import Program, Value, values_in
from tfprune.lite.quantize.report import quantization_report
from tfprune.lite.quantize.representative import calibration
from tfprune.lite.quantize.row_numbers import Flow, row_numbers
from tfprune.lite.quantize.rules import Use, quantize_call
from tfprune.lite.quantize.weight_bits import Bits, checked_weight_bits, refuse_left
from tfprune.model.copying import compile_like, scope_of, tied_layers
from tfprune.model.fresh import tells_how_it_is_made
from tfprune.model.graph import Call, flow, is_graph, takes_graph
from tfprune.model.hooks import forget_calls, mask_of
from tfprune.model.inline import losses_of, opened
from tfprune.model.layers import facts_of
from tfprune.model.signature import signature_of
from tfprune.model.state import carry_state
from tfprune.model.tree import Place, as_array, check_model, children, named_weights, places
from tfprune.training.masks import constraint_of, set_mask
from tfprune.training.wrapper import PrunedLayer

HELD_SHARE = 0.01  # a kernel with this share of exact zeros has been pruned; training alone leaves next to none


def quantize_aware(
    model: keras.Model,
    data: Any = None,
    *,
    ranges: RangeMode = "moving_average",
    momentum: float = 0.99,
    freeze_batch_norm: int | None = None,
    hold_zeros: bool = True,
    weight_bits: Bits = 8,
    strict: bool = False,
) -> keras.Model:
    """A new model that computes as its int8 `.tflite` will, and can be trained to make up for the rounding.

    Kernels are rounded to symmetric int8 with one scale per output channel, activations to int8 over ranges that are
    observed in training. Batch norms are folded into the layers before them. Then
    `convert(quantized, quantization="int8")` needs no representative data: it uses the ranges found here.

    Zeros: a mask that is held on a weight goes on being held. Without one, the exact zeros of a kernel are held when
    they are 1 % of it or more (and not all of it), and with them the zeros of bias, gamma and beta in channels whose
    kernel is zero throughout.

    Args:
        model: A functional or Sequential model, trained, pruned or shrunk; it is left as it is. Nested models are
            opened. Whatever its dtype policy, the new model computes in float32.
        data: Samples to find the first ranges with, in any form that `convert` takes: an array, a list or dict of
            arrays for several inputs, a tf.data.Dataset or a generator. Defaults to None: the first training batches
            do it.
        ranges: `"moving_average"` of the extremes of each batch, or `"learned"` by gradients (needs `data`).
        momentum: Of the moving average, in [0, 1). Defaults to 0.99.
        freeze_batch_norm: Training steps during which batch norms normalise by the batch and their statistics follow
            it; after them the statistics are frozen, and the model trains exactly as it is deployed. Without the
            batch's normalisation a high learning rate does harm: freeze for a last part of the training at 1e-4 or
            so, 0 for all of it. Defaults to None: never.
        hold_zeros: Whether pruned weights stay zero. Defaults to True.
        weight_bits: 4 rounds the kernels of Dense layers and convolutions to the 15 values that 4 bits hold, which
            halves their bytes; `{"name": 4}` those of some layers, depthwise ones too. Activations stay int8.
            Defaults to 8.
        strict: Raise when a layer has no int8 kernel, where otherwise it is left in float and listed in
            `quantization_report(quantized)`. Defaults to False.

    Returns:
        A functional model with the names, the outputs and, with a fresh optimizer, the compilation of `model`. It is
        saved as `.keras` and loaded by keras.models.load_model after `import tfprune`.

    Raises:
        PruningError: The model cannot be read as a graph, is quantized already, has a layer without an int8 kernel
            under `strict`, or the calibration data does not fit or is not finite.

    Example:
        quantized = tfprune.quantize_aware(model, data=x_train[:500])
        quantized.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
        quantized.fit(x_train, y_train, epochs=1)
        tfprune.convert(quantized, quantization="int8").save("model.tflite")
    """
    check_model(model, "quantize")
    graph = _graph_of(model)
    check_freeze(freeze_batch_norm)
    if ranges not in ("moving_average", "learned"):
        raise PruningError(f"ranges={ranges!r} is unknown; use 'moving_average' or 'learned'.")
    if ranges == "learned" and data is None:
        raise PruningError("ranges='learned' begins from calibrated ranges: pass data=, a few hundred samples.")
    if is_quantized(model):
        raise PruningError(f"'{model.name}' is quantization-aware already; train it, or convert it to int8.")
    bits = checked_weight_bits(graph, weight_bits)
    program = Program(ranges, momentum, freeze_batch_norm, output_names(graph), bits)
    with scope_of(model), _float32_by_default():
        quantized = _Carrier(graph, program, hold_zeros).model()
    refuse_left(bits, program.in_four_bits)
    report = quantization_report(quantized)
    if strict and report.left_in_float:
        reasons = "; ".join(f"'{name}': {reason}" for name, reason in report.left_in_float.items())
        raise PruningError(
            f"Not every layer of '{model.name}' has an int8 kernel. {reasons}. Replace these layers, or pass "
            "strict=False to leave them in float."
        )
    if data is not None:
        observe(quantized, calibration(data, signature_of(model), model, "data").samples)
    with scope_of(model):
        _compile_like(model, quantized)
    return quantized


def _graph_of(model: keras.Model) -> keras.Model:
    """The model, or the opened one.

    A layer of the user's in a graph stays one layer in float, instead of many operations, unless it uses a weight of
    another layer, which would become two, or its class does not tell how to make it again.
    """
    if is_graph(model) and not tied_layers(model) and all(map(tells_how_it_is_made, model.layers)):
        return model
    found = opened(model, "Quantization-aware training")
    for note in losses_of(found):
        warnings.warn(f"tfprune: {note}", stacklevel=3)
    return found.graph


def is_quantized(model: keras.Model) -> bool:
    """Whether the model is one that `quantize_aware` made."""
    return any(isinstance(layer, (FakeQuantize, QuantizedKernel)) for layer in model.layers)


class _Carrier:
    """Carries the calls of a float model, one after the other, into a `Program`."""

    def __init__(self, model: keras.Model, program: Program, hold_zeros: bool) -> None:
        self.float_model = model
        self.program = program
        self.hold_zeros = hold_zeros
        self.copies: dict[int, Any] = {}
        self.calls: Counter[int] = Counter()  # of each operation
        self.uses: Counter[_Result] = Counter()  # of each result of each call
        self.visited = 0
        self._survey()

    def model(self) -> keras.Model:
        """The quantized model, weights and masks set, not compiled."""
        model, program = self.float_model, self.program
        values = [
            program.feed(tensor.name, self._is_rounded(_Result(-1, number), tensor))
            for number, tensor in enumerate(model.inputs)
        ]
        results = flow(model, values, self._visit)
        held = self._held_masks() if self.hold_zeros else {}
        if self.hold_zeros:
            self._hold_in_float_layers()
        inputs = {id(tensor): _input_like(tensor) for tensor in model.inputs}
        tensors = program.build({value: inputs[id(tensor)] for value, tensor in zip(values, model.inputs)})
        outputs = {
            # The outputs keep their names, which losses and metrics may be given by.
            id(tensor): keras.layers.Identity(name=name)(tensors[value])
            for tensor, value, name in zip(model.outputs, results, output_names(model))
        }
        for kernel, masks in held.items():
            kernel.hold(masks)
        ends = (
            (model.inputs[0], model.outputs[0]) if isinstance(model, keras.Sequential) else (model.input, model.output)
        )
        return _functional_class(model)(
            keras.tree.map_structure(lambda tensor: inputs[id(tensor)], ends[0]),
            keras.tree.map_structure(lambda tensor: outputs[id(tensor)], ends[1]),
            name=model.name,
        )

    def _survey(self) -> None:
        """Counts the calls of every operation and the uses of every result, and finds the numbers of rows."""
        flows: list[Flow] = []

        def visit(call: Call) -> list[_Result]:
            self.calls[id(call.operation)] += 1
            inputs = [x for x in keras.tree.flatten((call.args, call.kwargs)) if isinstance(x, _Result)]
            self.uses.update(inputs)
            outputs = [_Result(len(flows), number) for number in range(len(call.outputs))]
            flows.append(Flow(call, inputs, outputs))
            return outputs

        inputs = [_Result(-1, number) for number in range(len(self.float_model.inputs))]
        self.uses.update(flow(self.float_model, inputs, visit))
        self.row_numbers = row_numbers(flows)

    def _is_rounded(self, result: "_Result", tensor: keras.KerasTensor) -> bool:
        """Whether a tensor of the float model is one of floats by which no rows are read."""
        return keras.backend.is_float_dtype(tensor.dtype) and result not in self.row_numbers

    def _visit(self, call: Call) -> list[Value]:
        operation = self._copy(call)
        inputs = values_in(call.args, call.kwargs)
        use = Use(
            name=operation.name,
            path=call.path,
            operation=operation,
            args=call.args,
            kwargs=call.kwargs,
            inputs=inputs,
            input_shapes=[tuple(tensor.shape) for tensor in call.node.input_tensors],
            output_shape=tuple(call.outputs[0].shape),
            results=len(call.outputs),
            shared=self.calls[id(call.operation)] > 1,
            is_float=all(
                self._is_rounded(_Result(self.visited, number), output) for number, output in enumerate(call.outputs)
            ),
            is_masked=any(mask_of(tensor) is not None for tensor in call.node.input_tensors),
        )
        results = quantize_call(self.program, use)
        for number, value in enumerate(results):
            others = value.uses - 1 if value in inputs else 0
            value.uses = others + self.uses[_Result(self.visited, number)]
        self.visited += 1
        return results

    def _copy(self, call: Call) -> Any:
        """The new model's own float32 copy of an operation, with its weights; one however often it is called."""
        if id(call.operation) not in self.copies:
            source = getattr(call.operation, "holds_masks_of", call.operation)
            if getattr(source, "quantization_mode", None) is not None:
                raise PruningError(
                    f"The layer '{call.path}' is quantized by Keras already ({source.quantization_mode}). Give the "
                    "model from before model.quantize()."
                )
            copy = float32_copy(source, self.program.unique(call.path))
            if isinstance(source, keras.Layer):
                if not copy.built and source.built:
                    _build_like(source, copy, call)
                carry_state(source, copy)
                for old, new in zip(source.weights, copy.weights):
                    constraint = constraint_of(old)
                    if constraint is not None:
                        self.program.masks[id(new)] = as_array(constraint.mask)
            self.copies[id(call.operation)] = copy
        return self.copies[id(call.operation)]

    def _held_masks(self) -> dict[QuantizedKernel, dict[str, np.ndarray]]:
        held = {}
        for kernel in self.program.kernels.values():
            masks = masks_to_hold(kernel, self.program.masks)
            if masks:
                kernel.held = tuple(masks)
                held[kernel] = masks
        return held

    def _hold_in_float_layers(self) -> None:
        """Wraps the pruned layers that have no int8 kernel of their own, so that their masks are held and saved."""
        for layer in self.copies.values():
            if not isinstance(layer, keras.Layer) or id(layer) in self.program.kernels:
                continue
            masks = {}
            for key, variable, is_kernel in _weights_below(layer):
                kept = self.program.masks.get(id(variable), as_array(variable) != 0)
                if id(variable) in self.program.masks or (is_kernel and HELD_SHARE <= 1 - np.mean(kept) < 1):
                    masks[key] = variable, kept
            steps = [step for step in self.program.steps if step.apply is layer]
            if masks and steps:
                wrapped = PrunedLayer(layer, Percentile(0.0), list(masks), dtype="float32")
                for variable, kept in masks.values():
                    set_mask(variable, kept)
                for step in steps:
                    step.apply = wrapped


def _build_like(source: keras.Layer, copy: keras.Layer, call: Call) -> None:
    """Makes the weights of a copy; those that no `build` makes come with a call."""

    def alike(x: Any) -> Any:
        return keras.Input(batch_shape=x.shape, dtype=x.dtype) if isinstance(x, keras.KerasTensor) else x

    config = source.get_build_config()
    if config and not (type(copy).build is keras.Layer.build and children(copy)):
        copy.build_from_config(config)
    if len(copy.variables) < len(source.variables):
        given = call.node.arguments
        args, kwargs = keras.tree.map_structure(alike, (given.args, given.kwargs))
        copy(*args, **kwargs)
        forget_calls(copy)


@dataclass(frozen=True)
class _Result:
    """The result of a call in the float model; call -1 is the model's input."""

    call: int
    number: int


def masks_to_hold(kernel: QuantizedKernel, known: Mapping[int, np.ndarray]) -> dict[str, np.ndarray]:
    """The masks of a layer's weights: those held before, and those that the exact zeros of its kernel imply.

    Args:
        kernel: The quantized layer.
        known: Masks that were held, by id of the variable.
    """
    weights = kernel.prunable()
    masks = {name: known[id(weight)] for name, weight in weights.items() if id(weight) in known}
    values = as_array(weights["kernel"])
    if "kernel" not in masks and HELD_SHARE <= np.mean(values == 0) < 1:
        masks["kernel"] = values != 0
    if "kernel" not in masks:
        return masks
    axes = channel_axes(kernel.layer)
    alive = masks["kernel"].any(axis=tuple(axis for axis in range(values.ndim) if axis not in axes)).reshape(-1)
    for name, weight in weights.items():
        if name != "kernel" and name not in masks:
            kept = alive | (as_array(weight) != 0)
            if not kept.all():
                masks[name] = kept
    return masks


def _weights_below(layer: keras.Layer) -> Iterator[tuple[str, keras.Variable, bool]]:
    """The weights of a layer and of those inside it: key below the layer, variable, whether it is a kernel."""
    for place in (Place("", (layer,)), *places(layer)):
        kernels = facts_of(place.layer).kernels
        for name, variable in named_weights(place.layer):
            yield f"{place.path}/{name}".removeprefix("/"), variable, variable.name in kernels


def output_names(model: keras.Model) -> list[str]:
    """The names of a model's outputs, which Keras gives after the layers that make them."""
    return list(getattr(model, "output_names", None) or [model.layers[-1].name])


@contextlib.contextmanager
def _float32_by_default() -> Iterator[None]:
    """Gives new layers inside the block float32, whatever the user's policy for layers of their own."""
    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy("float32")
    try:
        yield
    finally:
        keras.config.set_dtype_policy(policy)


def _input_like(tensor: keras.KerasTensor) -> keras.KerasTensor:
    dtype = "float32" if keras.backend.is_float_dtype(tensor.dtype) else tensor.dtype
    return keras.Input(batch_shape=tensor.shape, dtype=dtype, name=tensor.name)


def _functional_class(model: keras.Model) -> type[keras.Model]:
    """The class of the new model: a user's own functional class (with its train_step) where it is built like one."""
    kind, plain = type(model), type(keras.Model(model.inputs, model.outputs))
    if issubclass(kind, plain) and takes_graph(kind):
        return kind
    if kind.train_step is not plain.train_step:
        warnings.warn(
            f"tfprune: '{model.name}' is of class {kind.__name__}, whose __init__ makes its layers itself: the new "
            "model is a plain one, which fit trains by Keras' own train_step.",
            stacklevel=4,
        )
    return keras.Model


def _compile_like(model: keras.Model, quantized: keras.Model) -> None:
    if not model.compiled:
        return
    try:
        compile_like(model, quantized)
    except (PruningError, TypeError, ValueError) as error:
        warnings.warn(
            f"The compilation of '{model.name}' could not be carried over ({error}); call compile() before fit.",
            stacklevel=3,
        )
