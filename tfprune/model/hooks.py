"""Every private name of Keras and TensorFlow that the package reads, each behind a function that says why.

All of them were seen at work in Keras 3.10 and 3.15.1 on TensorFlow 2.21. tests/model/test_hooks.py has a test for
each that fails when it moves, and one that no other file uses such a name.
"""

import contextlib
import functools
import importlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import keras
from keras.src.backend.common import global_state

from tfprune.model.instances import Instances
from tfprune.model.substitutes import instead, property_instead


def check_backend() -> None:
    """Raises ImportError unless Keras runs on TensorFlow, where TFLite conversion and compiled masks exist."""
    backend = keras.backend.backend()
    if backend != "tensorflow":
        raise ImportError(
            f"tfprune works with Keras on TensorFlow, but Keras runs on {backend!r} here. Set the environment variable "
            'KERAS_BACKEND=tensorflow before keras is imported, or "backend": "tensorflow" in keras.json.'
        )


def is_of_keras(frame: Any) -> bool:
    """Whether a frame of the stack runs code of Keras, whose modules all lie in a package that is not public."""
    return frame is not None and frame.f_globals.get("__name__", "").startswith("keras.src.")


# Layers


def layers_inside(layer: keras.Layer) -> list[keras.Layer]:
    """The layers directly inside a composite layer (attention, recurrent cells, wrappers); only models list theirs."""
    return list(layer._flatten_layers(include_self=False, recursive=False))


# Attributes in which Keras notes the parts of a layer for itself.
BOOKKEEPING = (
    "_trainable_variables", "_non_trainable_variables", "_tracker", "_tracked", "_seed_generators", "_layers",
    "_metrics", "_losses", "_loss_ids", "_called", "_call_context_args",
)  # fmt: skip


def is_bookkeeping(name: str) -> bool:
    """Whether an attribute of a layer is one in which Keras or TensorFlow note its layers for themselves."""
    return name in BOOKKEEPING or name.startswith("_self_")


def class_of_applications(module: str, name: str) -> type | None:
    """A layer class that models of keras.applications hold, but Keras does not export; None where it has moved.

    Without it the channels around that layer would be left alone.
    """
    try:
        return getattr(importlib.import_module(f"keras.src.applications.{module}"), name, None)
    except ImportError:
        return None


# Calls: the public ways to the records of them build new layers or call the old ones again


def convolutional_cell() -> type[keras.Layer]:
    """The class of the cell in ConvLSTM1D, 2D and 3D, which owns their kernels; Keras exports only the layers."""
    return importlib.import_module("keras.src.layers.rnn.conv_lstm").ConvLSTMCell


def operation_name(operation: Any) -> str | None:
    """The class of a `keras.ops` operation ("Matmul" for `matmul`), which Keras does not export; None for all else."""
    kind = type(operation)
    known = not isinstance(operation, keras.Layer) and kind.__module__.startswith("keras.")
    return kind.__name__ if known else None


def maker_of(tensor: Any) -> Any:
    """The layer or operation whose call made a symbolic tensor."""
    return tensor._keras_history.operation


def node_of(tensor: Any) -> Any:
    """The record of the call that made a symbolic tensor, which is what Keras builds a functional model from."""
    return maker_of(tensor)._inbound_nodes[tensor._keras_history.node_index]


def mask_of(tensor: Any) -> Any:
    """The mask by which Keras knows which steps of a tensor are padding, None where it has none."""
    return getattr(tensor, "_keras_mask", None)


def forget_mask(tensor: Any) -> None:
    """Takes the mask off a tensor."""
    tensor.__dict__.pop("_keras_mask", None)


def forget_calls(operation: Any) -> None:
    """Makes a shallow copy of an operation forget the original's calls, else it would count as part of its model."""
    operation._inbound_nodes, operation._outbound_nodes = [], []


# Training


def compile_arguments(model: keras.Model) -> dict[str, Any]:
    """The arguments of `compile` as they were given.

    The public `get_compile_config` writes them as JSON, which cannot be read back where they are not registered.
    """
    return dict(model._compile_config.config)


def direction_of_metric(metric: Any) -> str | None:
    """`"max"` or `"min"` where a Keras metric says which is better; no public name tells it."""
    return {"up": "max", "down": "min"}.get(str(getattr(metric, "_direction", None)))


def learning_rate_of(optimizer: Any) -> Any:
    """The learning rate or the schedule of it; the public `learning_rate` is only the present value."""
    return getattr(optimizer, "_learning_rate", None)


def optimizer_at_work() -> Any:
    """The optimizer whose step is being taken, or None.

    A constraint is not told whose it is, and the optimizer may be anybody's: of `fit`, of a loop of the user's, of a
    model that was loaded. But Keras opens a name scope with the optimizer as caller around every step.
    """
    scopes = global_state.get_global_attribute("name_scope_stack") or []
    return next((scope.caller for scope in reversed(scopes) if hasattr(scope.caller, "use_ema")), None)


def variables_of(optimizer: Any) -> list[keras.Variable]:
    """The variables that an optimizer trains, in the order of its gradients."""
    return optimizer._trainable_variables


def moving_averages_of(optimizer: Any) -> list[keras.Variable]:
    """The moving averages (`use_ema=True`) that an optimizer keeps, in the order of `variables_of`."""
    return optimizer._model_variables_moving_average


def is_resumed(model: keras.Model) -> bool:
    """Whether BackupAndRestore has brought weights back in this `fit`, of which it leaves no public sign."""
    return getattr(model, "_initial_epoch", None) is not None


def forget_traces(variables: Iterable[keras.Variable]) -> int:
    """Makes every `tf.function` that has compiled these variables in compile anew at its next call; gives how many.

    A step that a user's own loop traced before a mask was held does not know the mask, and nothing public reaches
    it: a trace goes by the types of its arguments, and the step may be anywhere.
    """
    handles = {id(part.handle) for variable in variables for part in _parts(variable)}
    stale = [function for function in _compiled_functions() if handles & _captured(function)]
    for function in stale:
        function._function_cache.clear()
    return len(stale)


@functools.cache
def _compiled_functions() -> Instances:
    import tensorflow as tf

    return Instances(type(tf.function(lambda: None)))


def _captured(function: Any) -> set[int]:
    traces = function._function_cache.values()
    return {id(outer) for trace in traces for outer, _ in trace.graph.captures}


def _parts(variable: keras.Variable) -> Any:
    """The TensorFlow variables behind a Keras variable: one for each replica."""
    return getattr(variable.value, "values", None) or [variable.value]


# Keras 2


def is_graph_of_keras_2(model: Any) -> bool:
    """Whether a tf_keras model is functional; it has no public class of its own."""
    return getattr(model, "_is_graph_network", False)


def listen_to_gradients(optimizer: Any, note: Callable[[Any, Any], None]) -> None:
    """Tells `note(gradient, variable)` of all that the optimizer is given, in steps compiled from now on.

    Keras has no hook between gradients and optimizer; an attribute of the instance goes before the method.
    """
    apply = optimizer.apply

    @functools.wraps(apply)
    def listening(grads: Any, trainable_variables: Any = None) -> Any:
        for gradient, variable in zip(grads, trainable_variables or variables_of(optimizer)):
            note(gradient, variable)
        return apply(grads, trainable_variables)

    optimizer.apply = listening


def stop_listening(optimizer: Any) -> bool:
    """Undoes `listen_to_gradients`; whether anybody listened."""
    return vars(optimizer).pop("apply", None) is not None


@contextlib.contextmanager
def calls_by(layers: Iterable[keras.Layer], replacement: Callable[[keras.Layer], Callable[..., Any]]) -> Iterator[None]:
    """Lets each layer be called as `replacement(layer)` for a while; Keras has no hook on a layer's call."""
    changed = []
    try:
        for layer in layers:
            layer.call = replacement(layer)  # an attribute of the instance goes before the method
            changed.append(layer)
        yield
    finally:
        for layer in changed:
            del layer.call


# Tracing a model's own call: what Keras does at each call is exchanged for the length of the trace


@contextlib.contextmanager
def layer_calls_by(call: Callable[[Callable[..., Any], Any, Any, Any], Any]) -> Iterator[None]:
    """Runs every call of a layer through `call(plain, layer, args, kwargs)`; `plain` is how Keras calls it."""

    def calling(plain: Callable[..., Any]) -> Callable[..., Any]:
        return lambda layer, *args, **kwargs: call(plain, layer, args, kwargs)

    with instead(keras.Layer, "__call__", calling):
        yield


@contextlib.contextmanager
def symbolic_calls_told(note: Callable[[Any], None]) -> Iterator[None]:
    """Tells `note` of every `keras.ops` operation that is called on symbolic tensors."""
    with instead(keras.Operation, "symbolic_call", lambda plain: _told(note, plain)):
        yield


@contextlib.contextmanager
def symbolic_call_by(layer: Any, call: Callable[..., Any]) -> Iterator[None]:
    """Lets one layer compute its symbolic outputs by a function of ours; Keras still does dtypes, masks and build."""
    layer.__dict__["symbolic_call"] = call
    try:
        yield
    finally:
        del layer.__dict__["symbolic_call"]


@contextlib.contextmanager
def weights_by(replacement: Callable[[Any, Any], Any]) -> Iterator[None]:
    """Lets every attribute of a layer that is a variable be `replacement(layer, variable)`."""

    def attribute(layer: Any, name: str) -> Any:
        value = object.__getattribute__(layer, name)
        return replacement(layer, value) if isinstance(value, keras.Variable) else value

    with instead(keras.Layer, "__getattribute__", lambda plain: attribute):
        yield


@contextlib.contextmanager
def reads_told(note: Callable[[Any], None]) -> Iterator[None]:
    """Tells `note` of every variable whose value is read: only so is it seen that a weight ends as a constant."""

    def telling(plain: Callable[..., Any]) -> Callable[..., Any]:
        return _told(note, plain)

    with property_instead(keras.Variable, "value", telling), instead(keras.Variable, "__tf_tensor__", telling):
        yield


def _told(note: Callable[[Any], None], plain: Callable[..., Any]) -> Callable[..., Any]:
    """A method that tells of its object before it does what it did."""

    def told(of: Any, *args: Any, **kwargs: Any) -> Any:
        note(of)
        return plain(of, *args, **kwargs)

    return told


@contextlib.contextmanager
def arange_by(replacement: Callable[..., Any]) -> Iterator[None]:
    """Exchanges `keras.ops.arange` for `replacement(plain, start, stop, step, dtype)`."""
    import keras.src.ops.numpy as source

    def exchanging(plain: Callable[..., Any]) -> Callable[..., Any]:
        def arange(start: Any, stop: Any = None, step: Any = None, dtype: Any = None, **kwargs: Any) -> Any:
            return replacement(lambda: plain(start, stop, step, dtype=dtype, **kwargs), start, stop, step, dtype)

        return arange

    with contextlib.ExitStack() as stack:
        for module in dict.fromkeys((source, keras.ops, keras.ops.numpy)):
            stack.enter_context(instead(module, "arange", exchanging))
        yield


@contextlib.contextmanager
def masked_by(value: float) -> Iterator[None]:
    """Lets attention write this number where it masks, not one near minus infinity; no argument of Keras' does."""
    import keras.src.backend.tensorflow.nn as products
    from keras.src.layers.activations import softmax

    with (
        instead(products, "_get_large_negative", lambda plain: lambda dtype: keras.ops.cast(value, dtype)),
        instead(softmax, "_large_negative_number", lambda plain: lambda dtype: value),
    ):
        yield


@contextlib.contextmanager
def plain_slices() -> Iterator[None]:
    """Lets symbolic tensors take `x[:n]` and `x[[:n, None]]`, which Keras takes of arrays only, or as `x[:n, ...]`."""

    def taking(plain: Callable[..., Any]) -> Callable[..., Any]:
        def get_item(tensor: Any, key: Any) -> Any:
            if isinstance(key, list) and any(isinstance(part, slice) for part in key):
                key = tuple(key)
            return plain(tensor, (key,) if isinstance(key, slice) or key is None or key is Ellipsis else key)

        return get_item

    with instead(keras.KerasTensor, "__getitem__", taking):
        yield


@contextlib.contextmanager
def whole_tracebacks() -> Iterator[None]:
    """Lets errors in a layer's call come as they were raised, with the line of the user's code."""
    filtered = keras.config.is_traceback_filtering_enabled()
    keras.config.disable_traceback_filtering()
    try:
        yield
    finally:
        if filtered:
            keras.config.enable_traceback_filtering()


def shallow_copy(operation: Any) -> Any:
    """A layer or operation that shares everything with another but its calls; `copy.copy` would save and load it."""
    made = object.__new__(type(operation))
    made.__dict__.update(operation.__dict__)
    forget_calls(made)
    return made


def recorded_calls(operation: Any) -> tuple[list[Any], list[Any]]:
    """The records of a layer's calls, and of the calls of those that took its results."""
    return list(operation._inbound_nodes), list(operation._outbound_nodes)


def set_recorded_calls(operation: Any, calls: tuple[list[Any], list[Any]]) -> None:
    """Sets back what `recorded_calls` gave."""
    operation._inbound_nodes, operation._outbound_nodes = calls


def history_of(tensor: Any) -> Any:
    """Which call made a symbolic tensor; None for one that no call made."""
    return getattr(tensor, "_keras_history", None)


def set_history(tensor: Any, history: Any) -> None:
    """Says which call made a symbolic tensor, as `history_of` gave it."""
    if history is None:
        tensor.__dict__.pop("_keras_history", None)
    else:
        tensor._keras_history = history


def set_shape(tensor: Any, shape: tuple[int | None, ...]) -> None:
    """Corrects the shape of a symbolic tensor where a layer gave an open one and knows better."""
    tensor._shape = shape


# LiteRT


def schema() -> Any:
    """The Python classes of the `.tflite` format, which LiteRT's package holds but does not document."""
    return importlib.import_module("ai_edge_litert.schema_py_generated")


def converted_without_rounding(converter: Any, operators: list[str]) -> bytes:
    """Converts to int8 with these operators left in float: only TensorFlow's debugger of quantization names any."""
    import tensorflow as tf

    options = tf.lite.experimental.QuantizationDebugOptions(denylisted_nodes=operators)
    debugger = tf.lite.experimental.QuantizationDebugger(
        converter=converter, debug_dataset=converter.representative_dataset, debug_options=options
    )
    return debugger.get_nondebug_quantized_model()
