"""Which weights of which layers may be pruned, and which of their axes counts input channels.

By default every kernel: of dense, convolution (also transposed, depthwise, separable), embedding, attention and
recurrent layers, however deep inside nested models, wrappers and subclassed models. Biases and norms are left alone
unless they are named. A layer of the user's own class is pruned when it is named: its weights of rank 2 and more.
"""

import fnmatch
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import keras

from tfprune.errors import PruningError, listing, nearest
from tfprune.model.tree import Place, named_weights, places

Selectors = list[str] | Callable[[keras.Layer], bool] | None
InputAxis = int | Callable[[keras.Layer], int]


@dataclass(frozen=True, eq=False)
class PrunableWeight:
    """One weight that may be pruned.

    Args:
        key: Its place in the model, `"backbone/conv1/kernel"`; the same for the plain and the wrapped model.
        variable: The Keras variable.
        place: The layer that owns it.
        input_axis: The axis that counts input channels, which TFLite stores last.
        is_kernel: Whether it is pruned without being named.
    """

    key: str
    variable: keras.Variable
    place: Place
    input_axis: int
    is_kernel: bool

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the weight."""
        return tuple(self.variable.shape)


def _contracted_axis(layer: keras.layers.EinsumDense) -> int:
    """The last axis of an EinsumDense kernel that is summed over with the input."""
    operands, result = layer.equation.replace(" ", "").split("->")
    kernel = operands.split(",")[1].replace("...", "")
    return max((axis for axis, letter in enumerate(kernel) if letter not in result), default=0)


# Names of the kernels of each kind of layer, with their input axis. Subclasses count as their base.
KERNELS: list[tuple[type[keras.Layer], dict[str, InputAxis]]] = [
    (keras.layers.Dense, {"kernel": 0}),
    (keras.layers.EinsumDense, {"kernel": _contracted_axis}),
    (keras.layers.SeparableConv1D, {"depthwise_kernel": -2, "pointwise_kernel": -2}),
    (keras.layers.SeparableConv2D, {"depthwise_kernel": -2, "pointwise_kernel": -2}),
    (keras.layers.DepthwiseConv1D, {"kernel": -2}),
    (keras.layers.DepthwiseConv2D, {"kernel": -2}),
    (keras.layers.Conv1DTranspose, {"kernel": -1}),
    (keras.layers.Conv2DTranspose, {"kernel": -1}),
    (keras.layers.Conv3DTranspose, {"kernel": -1}),
    (keras.layers.Conv1D, {"kernel": -2}),
    (keras.layers.Conv2D, {"kernel": -2}),
    (keras.layers.Conv3D, {"kernel": -2}),
    (keras.layers.Embedding, {"embeddings": -1}),
    (keras.layers.LSTMCell, {"kernel": 0, "recurrent_kernel": 0}),
    (keras.layers.GRUCell, {"kernel": 0, "recurrent_kernel": 0}),
    (keras.layers.SimpleRNNCell, {"kernel": 0, "recurrent_kernel": 0}),
]
# The cells of ConvLSTM are not public classes; they are found by the public layers that hold them.
CONVOLUTIONAL_RECURRENT = (keras.layers.ConvLSTM1D, keras.layers.ConvLSTM2D, keras.layers.ConvLSTM3D)


def kernels_of(place: Place) -> Mapping[str, InputAxis]:
    """The names of a layer's own weights that are kernels, with their input axes."""
    for kind, kernels in KERNELS:
        if isinstance(place.layer, kind):
            return kernels
    if len(place.owners) > 1 and isinstance(place.owners[-2], CONVOLUTIONAL_RECURRENT):
        return {"kernel": -2, "recurrent_kernel": -2}
    return {}


def prunable_weights(model: keras.Model, layers: Any = None) -> list[PrunableWeight]:
    """The weights of a model that a method may prune, in the order of the model; each once.

    Args:
        model: A built model.
        layers: Which layers; see `selectors`. Defaults to None: every kernel.

    Raises:
        PruningError: A name matches nothing (the nearest are told), or nothing is left to prune.
    """
    chosen = selectors(layers)
    found = list(_candidates(model, chosen))
    if isinstance(chosen, list):
        known = [place.path for place in places(model)]
        for name in chosen:
            if not any(_names(weight.place, weight.key, name) for weight in found):
                if any(_names_layer(place.layer, place.path, name) for place in places(model)):
                    raise PruningError(
                        f"layers={name!r} is in '{model.name}', but has no weight of rank 2 or more to prune. "
                        f"To prune a bias or a norm, name the weight itself, such as '{name}/bias'."
                    )
                raise PruningError(f"layers={name!r} matches no layer of '{model.name}'. {nearest(name, known)}")
    if not found:
        raise PruningError(
            f"'{model.name}' has no prunable weight"
            f"{'' if chosen is None else ' under layers=' + repr(layers)}: none of its layers "
            f"({listing(place.path for place in places(model))}) has a kernel. "
            "Name a layer of your own class, or a weight such as 'dense/bias', in layers=."
        )
    return found


def every_weight(model: keras.Model, layers: Any = None) -> Iterator[PrunableWeight]:
    """Every floating-point weight of a model that a mask could lie on, kernels and all others, each once."""
    chosen = selectors(layers)
    seen: set[int] = set()  # a variable may be tied to several layers; it has one mask
    for place in places(model):
        kernels = kernels_of(place)
        for name, variable in named_weights(place.layer):
            if not str(variable.dtype).startswith(("float", "bfloat")):
                continue
            axis = kernels.get(variable.name, -2 if len(variable.shape) > 1 else -1)
            weight = PrunableWeight(
                key=f"{place.path}/{name}",
                variable=variable,
                place=place,
                input_axis=axis(place.layer) if callable(axis) else axis,
                is_kernel=variable.name in kernels,
            )
            if id(variable) not in seen and _is_chosen(weight, chosen):
                seen.add(id(variable))
                yield weight


def _is_chosen(weight: PrunableWeight, chosen: Selectors) -> bool:
    if chosen is None:
        return True
    if callable(chosen):
        return chosen(weight.place.layer)
    return any(_names(weight.place, weight.key, name) for name in chosen)


def _candidates(model: keras.Model, chosen: Selectors) -> Iterator[PrunableWeight]:
    return (weight for weight in every_weight(model, chosen) if weight.is_kernel or _is_asked_for(weight, chosen))


def _is_asked_for(weight: PrunableWeight, chosen: Selectors) -> bool:
    """Whether a weight that is no kernel was named: by its own key, or through a layer of an unknown class."""
    if not isinstance(chosen, list):
        return False
    if any(fnmatch.fnmatchcase(weight.key, name) for name in chosen if "/" in name):
        return True
    unknown = not kernels_of(weight.place) and len(weight.shape) >= 2 and weight.variable.trainable
    return unknown and any(_names_layer(weight.place.layer, weight.place.path, name) for name in chosen)


def _names_layer(layer: keras.Layer, path: str, name: str) -> bool:
    kinds = (kind for kind in type(layer).__mro__ if issubclass(kind, keras.Layer))
    known_as = (layer.name, path, *(kind.__name__ for kind in kinds if kind not in (keras.Layer, keras.Model)))
    return any(fnmatch.fnmatchcase(known, name) for known in known_as)


def _names(place: Place, key: str, name: str) -> bool:
    """Whether a name means this weight: by its key, its layer, or any layer that holds its layer."""
    if fnmatch.fnmatchcase(key, name):
        return True
    parts = place.path.split("/")
    return any(_names_layer(owner, "/".join(parts[: depth + 1]), name) for depth, owner in enumerate(place.owners))


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


def _name_of(entry: Any) -> str:
    if isinstance(entry, str):
        return entry
    if isinstance(entry, type) and issubclass(entry, keras.Layer):
        return entry.__name__
    if isinstance(entry, keras.Layer):
        return entry.name
    raise PruningError(f"layers: {entry!r} names no layer; give a name, a layer class or a layer.")


def amount_for(weight: PrunableWeight, amounts: Mapping[Any, float]) -> float | None:
    """The amount that a mapping of names gives to a weight; the last name that matches decides."""
    matching = [value for name, value in amounts.items() if _names(weight.place, weight.key, _name_of(name))]
    return matching[-1] if matching else None
