"""Which layer of a Keras model a name in its traced graph, or in the file made of it, comes from."""

from collections.abc import Iterable, Iterator, Sequence

import keras

from tfprune.model.graph import Call, flow, is_graph
from tfprune.model.tree import every_layer


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
    names = {layer.name for layer in every_layer(model) if layer is not model}

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
    return {layer.name for layer in every_layer(model)} - {model.name}


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
