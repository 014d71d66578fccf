"""What reaches and leaves the layers of a model while it runs."""

import contextlib
import functools
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import keras

from tfprune.model.graph import Call, flow, is_graph
from tfprune.model.hooks import calls_by
from tfprune.model.layers import is_activation

Record = Callable[[keras.Layer, Any, Any], None]


@contextlib.contextmanager
def observed(layers: Iterable[keras.Layer], record: Record) -> Iterator[None]:
    """Calls `record(layer, inputs, outputs)` at every call of the layers, as long as the context is open.

    It works for layers anywhere in a model: nested, shared, inside attention or subclassed models.

    Args:
        layers: Layers of a model that nothing else is using; use a copy of the user's model. Each is told of once.
        record: Gets the first argument and the result of the call, symbolic inside a compiled function.
    """
    once = {id(layer): layer for layer in layers}.values()
    with calls_by(once, lambda layer: _recording(layer, record)):
        yield


@contextlib.contextmanager
def trained(layers: Iterable[keras.Layer]) -> Iterator[None]:
    """Runs these layers as in training, however the model is called, as long as the context is open."""
    with calls_by(layers, _training):
        yield


def _recording(layer: keras.Layer, record: Record) -> Callable[..., Any]:
    call = layer.call

    @functools.wraps(call)
    def recording(*args: Any, **kwargs: Any) -> Any:
        outputs = call(*args, **kwargs)
        inputs = args[0] if args else next(iter(kwargs.values()))
        record(layer, inputs, outputs)
        return outputs

    return recording


def _training(layer: keras.Layer) -> Callable[..., Any]:
    call = layer.call

    @functools.wraps(call)
    def training(*args: Any, **kwargs: Any) -> Any:
        return call(*args, **{**kwargs, "training": True})

    return training


def has_activation(layer: keras.Layer) -> bool:
    """Whether a layer is an activation or ends with one."""
    own = getattr(layer, "activation", None)
    return is_activation(layer) or own not in (None, keras.activations.linear)


def activated(model: keras.Model, layers: Iterable[keras.Layer]) -> dict[int, keras.Layer]:
    """The last layer of the batch norm and activation behind each layer; itself where there is none, or no graph.

    Returns:
        By the id of the layer.
    """
    last = {id(layer): layer for layer in layers}
    if not is_graph(model):
        return last
    calls: Counter[int] = Counter()

    def count(call: Call) -> list[None]:
        calls[id(call.operation)] += 1
        return [None] * len(call.outputs)

    def follow(call: Call) -> list[Any]:
        layer = call.operation
        given = call.args[0] if call.args and isinstance(call.args[0], tuple) else None
        made = None
        if id(layer) in last and calls[id(layer)] == 1:
            made = (id(layer), layer)
        elif given is not None and _listens_first(layer) and calls[id(layer)] == 1:
            start, before = given
            if last[start] is before:  # the first to listen, where several do
                last[start], made = layer, (start, layer)
        return [made] * len(call.outputs)

    flow(model, [None] * len(model.inputs), count)
    flow(model, [None] * len(model.inputs), follow)
    return last


def _listens_first(layer: Any) -> bool:
    """Whether a layer's output goes on through this one before others listen to it."""
    return is_activation(layer) or isinstance(layer, keras.layers.BatchNormalization)
