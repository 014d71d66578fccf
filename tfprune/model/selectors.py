"""Which layers and weights of a model a user means: every form of `layers=`, and names with `*` in them."""

import fnmatch
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import keras

from tfprune.errors import PruningError, answer_of
from tfprune.model.tree import Place

Selectors = list[str] | Callable[[keras.Layer], bool] | None


def selectors(layers: Any) -> Selectors:
    """Brings every form of `layers=` into one of three: None (all), a list of names, or a predicate.

    Args:
        layers: None; a name (of a layer, a path such as `"backbone/conv1"`, a weight such as `"dense/bias"`, a class
            such as `"Conv2D"`; `*` matches anything); a layer class; a layer; a list of these; a mapping with these
            as keys; or a function that takes a layer and says whether to prune it.

    Raises:
        PruningError: Something else.
    """
    if layers is None:
        return None
    if isinstance(layers, Mapping):
        layers = list(layers)
    if isinstance(layers, (str, type, keras.Layer)):
        layers = [layers]
    if isinstance(layers, Iterable):
        return [_name_of(entry) for entry in layers]
    if callable(layers):
        return layers
    raise PruningError(
        f"layers={layers!r} is no choice of layers; give names, layer classes, layers, a mapping "
        "{name: amount}, or a function that takes a layer and returns True to prune it."
    )


def means_layer(name: str, layer: keras.Layer, path: str) -> bool:
    """Whether a name means this layer: by its own name, its path or its class."""
    kinds = (kind for kind in type(layer).__mro__ if issubclass(kind, keras.Layer))
    known_as = (layer.name, path, *(kind.__name__ for kind in kinds if kind not in (keras.Layer, keras.Model)))
    return any(fnmatch.fnmatchcase(known, name) for known in known_as)


def means_weight(name: str, place: Place, key: str) -> bool:
    """Whether a name means this weight: by its key, its layer, or any layer that holds its layer."""
    if means_key(name, key):
        return True
    parts = place.path.split("/")
    return any(means_layer(name, owner, "/".join(parts[: depth + 1])) for depth, owner in enumerate(place.owners))


def means_key(name: str, key: str) -> bool:
    """Whether a name means this weight by its key."""
    return fnmatch.fnmatchcase(key, name)


def is_chosen(chosen: Selectors, place: Place, key: str) -> bool:
    """Whether a choice of layers takes in this weight."""
    if callable(chosen):
        return bool(answer_of(f"The function given as layers= for '{place.path}'", chosen, place.layer))
    return chosen is None or any(means_weight(name, place, key) for name in chosen)


def is_named(weight: Any, layers: Any) -> bool:
    """Whether a weight was asked for by its own name or path, or that of a layer around it; its class is no name."""
    if not isinstance(layers, (list, Mapping)):
        return False
    parts = weight.place.path.split("/")
    paths = ["/".join(parts[: depth + 1]) for depth in range(len(parts))]
    known = [weight.key, *paths, *(owner.name for owner in weight.place.owners)]
    return any(fnmatch.fnmatchcase(name, _name_of(wanted)) for wanted in layers for name in known)


def amount_for(weight: Any, amounts: Mapping[Any, float]) -> float | None:
    """The amount that a mapping of names gives to a weight; the last name that matches decides."""
    matching = [value for name, value in amounts.items() if means_weight(_name_of(name), weight.place, weight.key)]
    return matching[-1] if matching else None


def _name_of(entry: Any) -> str:
    if isinstance(entry, str):
        return entry
    if isinstance(entry, type) and issubclass(entry, keras.Layer):
        return entry.__name__
    if isinstance(entry, keras.Layer):
        return entry.name
    raise PruningError(f"layers: {entry!r} names no layer; give a name, a layer class or a layer.")
