"""From a Keras model to a TensorFlow function of fixed shapes that the converter takes."""

import contextlib
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import keras
import numpy as np

from tfprune.errors import listing
from tfprune.lite.quantize.operators import MASKED
from tfprune.model.hooks import masked_by
from tfprune.model.signature import HALF_PRECISION, Signature, flat_outputs, output_names
from tfprune.model.substitutes import instead
from tfprune.model.tree import every_layer, places

# The converter reorders and renames the ends of a model, so they are numbered here and named afterwards.
INPUT, OUTPUT = "input_", "output_"
LOOPS = ("While", "StatelessWhile")
_changing = threading.RLock()  # held while layers are other than the user made them


def traced(
    model: keras.Model, signature: Signature, batch_size: int | None, unroll: bool, in_integers: bool
) -> tuple[Any, list[str]]:
    """What `trace` gives of a model that is `prepared`; unrolled where asked for and possible."""
    with masked_by(MASKED) if in_integers else contextlib.nullcontext():
        try:
            with prepared(model, unroll):
                return trace(model, signature, batch_size)
        except Exception:
            if not unroll:
                raise
        with prepared(model, unroll=False):  # Keras cannot unroll an input whose length is left open
            return trace(model, signature, batch_size)


def trace(model: keras.Model, signature: Signature, batch_size: int | None) -> tuple[Any, list[str]]:
    """The model's inference as a concrete function, its ends called `input_0`, `output_0` and so on.

    Args:
        model: The Keras model.
        signature: Its inputs.
        batch_size: Samples at once; None leaves it open. An input with a fixed batch of its own keeps that.

    Returns:
        The concrete function and the names of the outputs in order.
    """
    import tensorflow as tf

    names: list[str] = []
    batch = batch_of(signature.inputs, batch_size)
    specs = [
        tf.TensorSpec([batch, *given.shape[1:]], given.dtype, f"{INPUT}{index}")
        for index, given in enumerate(signature.inputs)
    ]

    @tf.function(input_signature=specs)
    def inference(*tensors: Any) -> dict[str, Any]:
        outputs = signature.call(model, tensors)
        names[:] = output_names(model, outputs)
        return {f"{OUTPUT}{index}": _full(tensor) for index, tensor in enumerate(flat_outputs(outputs))}

    def _full(tensor: Any) -> Any:
        half = keras.backend.standardize_dtype(tensor.dtype) in HALF_PRECISION
        return tf.cast(tensor, tf.float32) if half else tf.identity(tensor)

    with _signs_compared():
        return inference.get_concrete_function(), names


@contextlib.contextmanager
def _signs_compared() -> Iterator[None]:
    """Lets Keras find the sign of a zero, as argmax asks for it, without an operation on bits that LiteRT lacks."""
    import tensorflow as tf

    def exact(plain: Callable[..., Any]) -> Callable[..., Any]:
        def bitwise_and(x: Any, y: Any, name: str | None = None) -> Any:
            mask = tf.get_static_value(y)
            if mask is None or mask.shape or mask.dtype != np.int32 or mask != np.iinfo(np.int32).min:
                return plain(x, y, name=name)
            return tf.where(x < 0, mask, np.int32(0))

        return bitwise_and

    with instead(tf.bitwise, "bitwise_and", exact):
        yield


def save(function: Any, folder: str) -> None:
    """Writes a concrete function and the variables that it reads, and nothing else, as a SavedModel."""
    import tensorflow as tf

    module = tf.Module()
    module.read = list(function.graph.variables)
    tf.saved_model.save(module, folder, signatures=function)


def loops(function: Any) -> list[str]:
    """The names of the loops in a function, which tell the layers that make them."""
    definition = function.graph.as_graph_def()
    inner = [node for called in definition.library.function for node in called.node_def]
    return [node.name for node in (*definition.node, *inner) if node.op in LOOPS]


@contextlib.contextmanager
def as_made() -> Iterator[None]:
    """Keeps layers as the user made them inside the block, while it runs a model that other threads may convert."""
    with _changing:
        yield


@contextlib.contextmanager
def prepared(model: keras.Model, unroll: bool) -> Iterator[None]:
    """Lets a model compute in float32, and recurrent layers step by step without a loop, inside the block only.

    LiteRT has no kernels for half precision; the variables of mixed precision are float32 already. A loop cannot be
    quantized to integers.

    Args:
        model: The model, whose layers are all as before after the block; threads that share it enter in turns.
        unroll: Whether to unroll recurrent layers.
    """
    with _changing, _added_as_numbers(), _sequences_with_channels_last(), contextlib.ExitStack() as undo:
        for layer in every_layer(model):
            policy = layer.dtype_policy
            if policy.compute_dtype in HALF_PRECISION and policy.quantization_mode is None:
                undo.callback(setattr, layer, "dtype_policy", policy)
                layer.dtype_policy = "float32"
            if unroll and isinstance(layer, keras.layers.RNN) and not layer.unroll:
                undo.callback(setattr, layer, "unroll", layer.unroll)
                layer.unroll = True
        yield


@contextlib.contextmanager
def _added_as_numbers() -> Iterator[None]:
    """Lets `tf.nn.bias_add` along axis 1 be an addition, since the converter knows it of images only.

    Keras adds by it whatever has one axis longer than 1, as a sequence of one sample and one channel.
    """
    import tensorflow as tf

    def along_the_last_axis(plain: Callable[..., Any]) -> Callable[..., Any]:
        def bias_add(value: Any, bias: Any, data_format: str | None = None, name: str | None = None) -> Any:
            if not (data_format or "").startswith("NC"):
                return plain(value, bias, data_format, name)
            return tf.add(value, tf.reshape(bias, (-1, *[1] * (len(value.shape) - 2))), name)

        return bias_add

    with instead(tf.nn, "bias_add", along_the_last_axis):
        yield


@contextlib.contextmanager
def _sequences_with_channels_last() -> Iterator[None]:
    """Lets convolutions along sequences whose channels come first be those of Keras' usual order, between transposes.

    The converter knows the other order of images only, and takes a sequence for one.
    """
    import tensorflow as tf

    def with_channels_last(plain: Callable[..., Any]) -> Callable[..., Any]:
        def convolution(x: Any, *args: Any, data_format: str | None = None, **kwargs: Any) -> Any:
            if data_format != "NCW":
                return plain(x, *args, data_format=data_format, **kwargs)
            given = plain(tf.transpose(x, (0, 2, 1)), *args, data_format="NWC", **kwargs)
            return tf.transpose(given, (0, 2, 1))

        return convolution

    with instead(tf.nn, "convolution", with_channels_last):
        yield


def unrolled_notes(model: keras.Model) -> list[str]:
    """Says which recurrent layers a file of integers computes step after step, and that this takes room."""
    names = [place.path for place in places(model) if isinstance(place.layer, keras.layers.RNN)]
    return names and [
        f"Unrolled, since a file of integers holds no loop: {listing(names)}. It grows with the number of time steps; "
        "quantization='dynamic' keeps the loop, and is smaller where there are many."
    ]


def batch_of(inputs: Sequence[Any], batch_size: int | None) -> int | None:
    """The batch that a trace has: that of the inputs that fix one, else what was asked for."""
    fixed = [given.shape[0] for given in inputs if given.shape[0] is not None]
    return fixed[0] if fixed else batch_size


def name_ends(model: Any, inputs: Sequence[str], outputs: Sequence[str]) -> None:
    """Puts the ends of a converter's file in the order of Keras, and gives them their names there."""
    graph, ends = model.subgraphs[0], model.signatureDefs[0]
    for side, prefix, names in (("inputs", INPUT, inputs), ("outputs", OUTPUT, outputs)):
        entries = {entry.name.decode(): entry for entry in getattr(ends, side)}
        ordered = [entries[f"{prefix}{index}"] for index in range(len(names))]
        for entry, name in zip(ordered, names):
            entry.name = name.encode()
            graph.tensors[entry.tensorIndex].name = name.encode()
        setattr(graph, side, [entry.tensorIndex for entry in ordered])
        setattr(ends, side, ordered)
