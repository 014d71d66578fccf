"""Which layer of a Keras model a name in its traced graph, or in the file made of it, comes from."""

from collections.abc import Iterable, Sequence

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


def paths_along(model: keras.Model, names: Iterable[str]) -> dict[str, set[str]]:
    """Like `layers_at`, with the paths of the layers: `"backbone/conv1"`."""
    known = {layer.name for layer in every_layer(model) if layer is not model}  # one may be called like the model

    def path_of(part: str) -> str:
        root, *scopes = part.split("/")[:-1] or [""]
        found = (_named(known, scope, _numbered(model.name, root)) for scope in scopes)
        return "/".join(name for name in found if name is not None)

    return {name: {path_of(part) for part in name.split(";")} - {""} for name in names}


def paths_before_ends(model: keras.Model, names: Sequence[str], kernels_only: bool = False) -> dict[str, set[str]]:
    """The path of the layer that makes each output, or of the last one with a kernel before it, by the output's name.

    In a file the operator that makes an output bears the output's name instead of its layer's.
    """
    if not is_graph(model):
        return {name: {name} for name in names if not kernels_only}

    def follow(call: Call) -> list[str]:
        given = call.args[0] if call.args and isinstance(call.args[0], str) else ""
        counts = not kernels_only or any(weight.name == "kernel" for weight in getattr(call.operation, "weights", ()))
        return [call.path if counts else given] * len(call.outputs)

    return {name: {path} - {""} for name, path in zip(names, flow(model, [""] * len(model.inputs), follow))}


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
