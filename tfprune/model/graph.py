"""The calls of a functional or Sequential model, in order, with nested models opened: who is called, on what.

Keras records every symbolic call as a node, `keras.ops` operations included. The public ways to those nodes all build
new layers or call the old ones again; reading the records leaves the model as it was.
"""

import inspect
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeVar

import keras

from tfprune.errors import PruningError
from tfprune.model.hooks import node_of

Value = TypeVar("Value")


class Call(NamedTuple):
    """One call of a layer or of a `keras.ops` operation inside a model.

    `path` names the operation uniquely in the outermost model ("backbone/conv1"), however often it is called; `args`
    and `kwargs` are those of the call, with the flowing values in the place of the symbolic tensors; `outputs` are the
    symbolic tensors that Keras recorded for the results.
    """

    path: str
    operation: Any
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    outputs: list[keras.KerasTensor]
    node: Any


def model_like(model: Any, inputs: list[Any], outputs: list[Any]) -> keras.Model:
    """A functional model of these ends, in flat order, with the structure and the name of another."""
    if isinstance(model, keras.Sequential):
        return keras.Model(inputs[0], outputs[0], name=model.name)
    pairs = ((model.input, inputs), (model.output, outputs))
    return keras.Model(*(keras.tree.pack_sequence_as(like, flat) for like, flat in pairs), name=model.name)


def is_graph(model: Any) -> bool:
    """Whether the calls inside `model` can be read: a functional model, or a Sequential one that has been built.

    A class that overrides `call` computes something else than its recorded graph, so it does not count.
    """
    if isinstance(model, keras.Sequential):
        readable = bool(getattr(model, "inputs", None)) if model.built else False
    else:
        readable = isinstance(model, keras.Function) and isinstance(model, keras.Model)
    return readable and _defining_module(type(model), "call").startswith("keras.")


def require_graph(model: Any, purpose: str) -> None:
    """Raises when the calls inside `model` cannot be read.

    Args:
        model: What the user gave.
        purpose: What cannot be done, the subject of the message ("Shrinking").

    Raises:
        PruningError: says why the graph cannot be read, and what to write instead.
    """
    if is_graph(model):
        return
    if not isinstance(model, keras.Model):
        raise PruningError(f"{purpose} needs a keras.Model, not {type(model).__name__}.")
    if isinstance(model, keras.Sequential):
        raise PruningError(
            f"{purpose} needs to know the shapes in Sequential model '{model.name}', which is not built. Begin it with "
            "keras.Input(shape), or call model.build(input_shape) first."
        )
    raise PruningError(
        f"{purpose} needs a functional or Sequential model: {type(model).__name__} '{model.name}' computes in its own "
        "`call`, so its layers are not recorded as a graph. Masks work for it all the same. To go further, open it: "
        "model = tfprune.inline(model)."
    )


def nodes_in_order(inputs: Sequence[keras.KerasTensor], outputs: Sequence[keras.KerasTensor]) -> list[Any]:
    """The recorded nodes that lead from `inputs` to `outputs`, each after those it depends on."""
    known = {id(tensor) for tensor in inputs}
    order: list[Any] = []
    done: set[int] = set()
    stack: list[tuple[Any, bool]] = [
        (node_of(tensor), False) for tensor in reversed(outputs) if id(tensor) not in known
    ]
    while stack:
        node, ready = stack.pop()
        if id(node) in done:
            continue
        if ready:
            done.add(id(node))
            order.append(node)
            continue
        stack.append((node, True))
        stack.extend((node_of(x), False) for x in reversed(node.input_tensors) if id(x) not in known)
    return [node for node in order if not node.is_input]


def flow(
    model: Any,
    inputs: Sequence[Value],
    visit: Callable[[Call], Sequence[Value]],
    prefix: str = "",
    paths: dict[int, str] | None = None,
) -> list[Value]:
    """Runs `visit` over every call of `model` in order, carrying values along the edges; returns those at the outputs.

    Args:
        model: A model for which `is_graph` holds.
        inputs: One value for each of `model.inputs`.
        visit: Takes a `Call` with the values in its arguments, gives one value per output.
        prefix: Path of the model that holds this one, ending in "/".
        paths: The paths given out so far, by id of the operation.

    A nested model is entered at every call of it; a layer that is called twice is visited twice, with the same path.
    """
    paths = {} if paths is None else paths
    values: dict[int, Value] = {id(tensor): value for tensor, value in zip(model.inputs, inputs)}
    for node in nodes_in_order(model.inputs, model.outputs):
        operation = node.operation
        path = paths.setdefault(id(operation), prefix + operation.name)

        def fill(x: Any) -> Any:
            return values[id(x)] if isinstance(x, keras.KerasTensor) else x

        if is_graph(operation):
            flat = [values[id(x)] for x in tensors_given(node)]
            results: Sequence[Value] = flow(operation, flat, visit, path + "/", paths)
        else:
            args = keras.tree.map_structure(fill, node.arguments.args)
            kwargs = keras.tree.map_structure(fill, node.arguments.kwargs)
            results = visit(Call(path, operation, args, kwargs, node.output_tensors, node))
        values.update((id(tensor), value) for tensor, value in zip(node.output_tensors, results))
    return [values[id(tensor)] for tensor in model.outputs]


def tensors_given(node: Any) -> list[Any]:
    """The tensors that a nested model is called on, in the order of its inputs: a dict gives a list by its names."""
    model = node.operation
    given = next(iter((*node.arguments.args, *node.arguments.kwargs.values())))
    if isinstance(given, dict) and not isinstance(model, keras.Sequential) and not isinstance(model.input, dict):
        return [given[tensor.name] for tensor in model.inputs]
    return list(node.input_tensors[: len(model.inputs)])


def parts_of(model: Any) -> list[Any]:
    """The variables of a model and the records of its calls, nested models included: while they stay, so does it."""
    parts = list(model.variables)

    def visit(call: Call) -> list[None]:
        parts.append(call.node)
        return [None] * len(call.outputs)

    flow(model, [None] * len(model.inputs), visit)
    return parts


def called(call: Call) -> list[Any]:
    """What a call gives with the layer's own weights, in inference."""
    layer = call.operation
    takes = isinstance(layer, keras.Layer) and "training" in inspect.signature(layer.call).parameters
    kwargs = {**call.kwargs, "training": False} if takes else call.kwargs
    return keras.tree.flatten(layer(*call.args, **kwargs))


def _defining_module(cls: type, method: str) -> str:
    return next((base.__module__ for base in cls.__mro__ if method in vars(base)), "")


def takes_graph(kind: type) -> bool:
    """Whether a model class is made from inputs and outputs, as keras.Model is, or passes on all that it is made from.

    `__init__(self, *args, **kwargs)` is how a class with a train_step of its own is written in Keras' guides.
    """
    for base in kind.__mro__:
        made = vars(base).get("__init__")
        if made is None:
            continue
        if base.__module__.startswith("keras."):
            return True
        _, *taken = inspect.signature(made).parameters.values()
        if [each.kind for each in taken] != [inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD]:
            return False
    return False
