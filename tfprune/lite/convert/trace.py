"""From a Keras model to a TensorFlow function of fixed shapes that the converter takes."""

import contextlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import keras

from tfprune.model.graph import Call, flow, is_graph
from tfprune.model.signature import HALF_PRECISION, Signature, flat_outputs, output_names
from tfprune.model.tree import children

# The converter reorders and renames the ends of a model, so they are numbered here and named afterwards.
INPUT, OUTPUT = "input_", "output_"
LOOPS = ("While", "StatelessWhile")


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

    return inference.get_concrete_function(), names


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
def prepared(model: keras.Model, unroll: bool) -> Iterator[None]:
    """Lets a model compute in float32, and recurrent layers step by step without a loop, inside the block only.

    LiteRT has no kernels for half precision; the variables of mixed precision are float32 already. A loop cannot be
    quantized to integers.

    Args:
        model: The model, whose layers are all as before after the block.
        unroll: Whether to unroll recurrent layers.
    """
    changed: list[tuple[Any, str, Any]] = []
    try:
        for layer in _every_layer(model):
            policy = layer.dtype_policy
            if policy.compute_dtype in HALF_PRECISION and policy.quantization_mode is None:
                changed.append((layer, "dtype_policy", policy))
                layer.dtype_policy = "float32"
            if unroll and isinstance(layer, keras.layers.RNN) and not layer.unroll:
                changed.append((layer, "unroll", layer.unroll))
                layer.unroll = True
        yield
    finally:
        for layer, attribute, value in reversed(changed):
            setattr(layer, attribute, value)


def _every_layer(layer: keras.Layer, seen: set[int] | None = None) -> Iterator[keras.Layer]:
    seen = set() if seen is None else seen
    if id(layer) not in seen:
        seen.add(id(layer))
        yield layer
        for child in children(layer):
            yield from _every_layer(child, seen)


def layer_at(model: keras.Model, path: str) -> str | None:
    """The name of the layer that an operation of the traced graph comes from.

    Args:
        model: The traced model.
        path: The operation's name, `"sequential_1/lstm_1/while"`. TensorFlow puts a number behind a scope whose name
            has been taken, so the layer's own name may be without it. Of joined names the first counts.
    """
    return _layer_among(layer_names(model), model.name, path.split(";")[0])


def layers_at(model: keras.Model, paths: Iterable[str]) -> dict[str, set[str]]:
    """The names of the layers whose operations the converter has joined, for each of its joined names."""
    names = layer_names(model)
    found = {path: {_layer_among(names, model.name, part) for part in path.split(";")} for path in paths}
    return {path: {name for name in joined if name is not None} for path, joined in found.items()}


def layers_along(model: keras.Model, paths: Iterable[str]) -> dict[str, set[str]]:
    """Like `layers_at`, with the layers that hold those layers too."""
    names = {layer.name for layer in _every_layer(model) if layer is not model}

    def layers_of(part: str) -> Iterator[str]:
        root, *scopes = part.split("/")[:-1] or [""]
        for scope in scopes:
            name = _named(names, scope, _numbered(model.name, root))
            if name is not None:
                yield name

    return {path: {name for part in path.split(";") for name in layers_of(part)} for path in paths}


def kernels_before_ends(model: keras.Model, names: Sequence[str]) -> dict[str, set[str]]:
    """The last layer with a kernel on the way to each output, with those that hold it, by the output's name.

    In a file the operator that makes an output bears the output's name instead of its layer's.
    """
    if not is_graph(model):
        return {}

    def follow(call: Call) -> list[frozenset[str]]:
        given = call.args[0] if call.args and isinstance(call.args[0], frozenset) else frozenset()
        has_kernel = any(weight.name == "kernel" for weight in getattr(call.operation, "weights", ()))
        return [frozenset(call.path.split("/")) if has_kernel else given] * len(call.outputs)

    found = flow(model, [frozenset[str]()] * len(model.inputs), follow)
    return {name: set(layers) for name, layers in zip(names, found)}


def layer_names(model: keras.Model) -> set[str]:
    """The names of all layers in a model, those inside other layers too."""
    return {layer.name for layer in _every_layer(model)} - {model.name}


def _layer_among(names: set[str], root: str, path: str) -> str | None:
    parts = path.split("/")
    # The last one is an operation, which a layer may be named like.
    found = (_named(names, part, _numbered(root, parts[0])) for part in [*reversed(parts[:-1]), parts[-1]])
    return next((name for name in found if name is not None), None)


def _numbered(model: str, root: str) -> bool:
    """Whether TensorFlow has put numbers behind the scopes of a graph, as the first one, the model's own, tells."""
    return root not in (model, "")


def _named(names: set[str], scope: str, numbered: bool) -> str | None:
    """The layer that a scope is of: `"conv2d_1"` may be the layer of that name, or `"conv2d"` with a number."""
    bare = scope.rsplit("_", 1)[0] if scope.rsplit("_", 1)[-1].isdigit() else scope
    return next((name for name in ((bare, scope) if numbered else (scope, bare)) if name in names), None)


def batch_of(inputs: Sequence[Any], batch_size: int | None) -> int | None:
    """The batch that a trace has: that of the inputs that fix one, else what was asked for."""
    fixed = [given.shape[0] for given in inputs if given.shape[0] is not None]
    return fixed[0] if fixed else batch_size
