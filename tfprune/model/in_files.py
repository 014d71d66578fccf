"""What a model's file says of its layers, where a class does not read back what it writes.

A file writes tuples as lists, and a variable as an array: a `build` that asks for tuples, or a class that keeps a
variable under the name of its argument, cannot be read from it. In a network of a class of its own this never shows,
since its file holds the arguments of that class; in a plain copy of its graph each layer is written.
"""

import itertools
import json
import types
import warnings
from collections.abc import Iterator
from typing import Any

import keras

from tfprune.model.fresh import plain_values
from tfprune.model.graph import is_graph, takes_graph


def let_layers_be_read(model: keras.Model) -> None:
    """Lets the layers of a copied graph write what Keras can read, where it could not read what they would write."""
    remedies: dict[type, tuple[str, ...]] = {}
    for layer in _written(model):
        kind = type(layer)
        if kind not in remedies:
            remedies[kind] = _remedies(layer)
        for name in remedies[kind]:
            setattr(layer, name, types.MethodType(REMEDIES[name], layer))


def _written(model: keras.Model) -> Iterator[Any]:
    """The layers of the user's that a file of a plain graph writes one by one."""
    if not is_graph(model) or not takes_graph(type(model)):
        return  # its file holds the arguments of its class
    for layer in (getattr(each, "holds_masks_of", each) for each in model.layers):
        if isinstance(layer, keras.Model):
            yield from _written(layer)
        elif layer.built and not type(layer).__module__.startswith("keras."):
            yield layer


def _plain_config(layer: Any) -> dict[str, Any]:
    """The config of a layer with numbers in the place of variables."""
    config = plain_values(type(layer).get_config(layer))
    return {key: value.tolist() if hasattr(value, "tolist") else value for key, value in config.items()}


def _no_shapes(layer: Any) -> None:
    """No shapes: Keras builds the layer where the graph calls it, as it was built here."""


REMEDIES: dict[str, Any] = {"get_config": _plain_config, "get_build_config": _no_shapes}


def _remedies(layer: Any) -> tuple[str, ...]:
    """The fewest methods to exchange so that a layer is read from what it writes; none where nothing helps."""
    for count in range(len(REMEDIES) + 1):
        for names in itertools.combinations(REMEDIES, count):
            if _is_read_back(layer, names):
                return names
    return ()


def _is_read_back(layer: Any, names: tuple[str, ...]) -> bool:
    try:
        written = (method(layer) if name in names else getattr(layer, name)() for name, method in REMEDIES.items())
        config, shapes = (json.loads(json.dumps(keras.saving.serialize_keras_object(part))) for part in written)
        with keras.saving.custom_object_scope({type(layer).__name__: type(layer)}), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what Keras says of a layer that is dropped again
            made = type(layer).from_config(config)
            shapes = shapes or layer.get_build_config()  # as the graph builds it that calls it
            if shapes and not made.built:
                made.build_from_config(shapes)
    except Exception:
        return False
    return True
