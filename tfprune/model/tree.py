"""A Keras model as a tree of layers: checking it, walking through it, naming what it holds."""

import re
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import keras
import numpy as np

from tfprune.errors import PruningError, listed, nearest
from tfprune.model.graph import is_graph
from tfprune.model.hooks import is_bookkeeping, layers_inside


class Place(NamedTuple):
    """A layer in a model: its path (`"backbone/conv1"`), and the layers from the top of the model down to it."""

    path: str
    owners: tuple[keras.Layer, ...]

    @property
    def layer(self) -> keras.Layer:
        """The layer itself."""
        return self.owners[-1]


def check_model(model: Any, purpose: str) -> keras.Model:
    """The model as given, once it is known to be a built Keras 3 model.

    Args:
        model: What the user passed.
        purpose: What is to be done with it, for the message (`"prune"`).

    Raises:
        PruningError: It is a Keras 2 model, no model at all, or not built yet.
    """
    module = type(model).__module__
    bases = {base.__module__.split(".")[0] for base in type(model).__mro__}
    if not isinstance(model, keras.Model):
        if "tf_keras" in bases:
            raise PruningError(
                f"Cannot {purpose} '{getattr(model, 'name', model)}': it is a Keras 2 model (tf_keras, class "
                f"{module}.{type(model).__name__}). Bring it over first: model = tfprune.from_tfmot(model)"
            )
        raise PruningError(f"Cannot {purpose} {type(model).__name__}: give a keras.Model (Keras {keras.__version__}).")
    if not is_built(model):
        way_out = "Call it once on data, or model.build((None, ...)) with the input shape."
        if has_no_call(model):
            way_out = "It has no call() of its own: give its parts an Input each, or call them once on data."
        raise PruningError(f"Cannot {purpose} '{model.name}': it is not built yet, so it has no weights. {way_out}")
    return model


def is_built(model: keras.Model) -> bool:
    """Whether a model has its weights; also one that is never called, since its `train_step` calls its parts."""
    return bool(model.built or (model.weights and not any(map(_builds_yet, every_layer(model)))))


def has_no_call(model: keras.Model) -> bool:
    """Whether a class says no more than how its parts are trained, as those of a VAE or a GAN do."""
    return type(model).call is keras.Model.call


def _builds_yet(layer: keras.Layer) -> bool:
    """Whether a layer has a `build` that was not called; a Sequential has what its layers have."""
    base = keras.Model if isinstance(layer, keras.Model) else keras.Layer
    return not layer.built and not isinstance(layer, keras.Sequential) and type(layer).build is not base.build


def children(layer: keras.Layer) -> list[keras.Layer]:
    """The layers directly inside a layer, in the order of their creation."""
    if isinstance(layer, keras.Model):
        return list(layer.layers)
    return layers_inside(layer)


def every_layer(layer: keras.Layer, seen: set[int] | None = None) -> Iterator[keras.Layer]:
    """A layer and all layers inside it, wrappers too, each once."""
    seen = set() if seen is None else seen
    if id(layer) not in seen:
        seen.add(id(layer))
        yield layer
        for child in children(layer):
            yield from every_layer(child, seen)


def places(model: keras.Layer) -> Iterator[Place]:
    """Every layer in a model with its path, parents before children; a shared layer comes once.

    Wrappers that hold masks take no part in the path, so a wrapped model has the paths of the plain one.
    """
    seen: set[int] = set()
    names: set[str] = set()

    def visit(layer: keras.Layer, path: tuple[str, ...], owners: tuple[keras.Layer, ...]) -> Iterator[Place]:
        for found in children(layer):
            child = getattr(found, "holds_masks_of", found)  # a PrunedLayer stands for the layer that it wraps
            if id(child) in seen:
                continue
            seen.add(id(child))
            full = (*path, _label(layer, child))
            joined = "/".join(full)
            while joined in names:  # two layers of one name, as subclassed models may have
                full = (*full[:-1], full[-1] + "_again")
                joined = "/".join(full)
            names.add(joined)
            yield Place(joined, (*owners, child))
            yield from visit(child, full, (*owners, child))

    yield from visit(model, (), ())


def asked_layers(model: keras.Model, asked: Iterable[Any], argument: str) -> dict[Any, str]:
    """What each name or path of a layer that a user gives stands for: a name every layer of that name, a path one.

    Args:
        model: The model.
        asked: Names (`"conv1"`) or paths (`"backbone/conv1"`) of layers; one that holds others stands for all of them.
        argument: That they came as, for the message.

    Returns:
        What `covers` takes, by what came.

    Raises:
        PruningError: The model has no such layer.
    """
    found = list(places(model))
    known = {place.path: "/".join(owner.name for owner in place.owners) for place in found}
    known.update({place.layer.name: place.layer.name for place in found})
    asked = listed(argument, [asked] if isinstance(asked, str) else asked, "['dense']")
    for layer in asked:
        if layer not in known:
            raise PruningError(f"{argument}: '{model.name}' has no layer '{layer}'. {nearest(str(layer), known)}")
    return {layer: known[layer] for layer in asked}


def covers(layer: str, path: str) -> bool:
    """Whether a layer, given by name or by path, stands at a path of names or holds what stands there.

    >>> covers("conv1", "backbone/conv1"), covers("backbone/conv1", "head/conv1"), covers("backbone", "backbone/conv1")
    (True, False, True)
    """
    return f"{path}/".startswith(f"{layer}/") if "/" in layer else layer in path.split("/")


def _label(owner: keras.Layer, child: keras.Layer) -> str:
    """The name of a layer in paths, the same in every copy of its model.

    Where a class of the user's makes its layers itself, Keras counts their names up with each copy (`dense_3`), so
    the name of the attribute stands for them.
    """
    kind = re.sub("([a-z])([A-Z])", r"\1_\2", re.sub("(.)([A-Z][a-z]+)", r"\1_\2", type(child).__name__)).lower()
    makes_layers = not is_graph(owner) and not type(owner).__module__.startswith("keras.")
    if not makes_layers or not re.fullmatch(kind + r"(_\d+)?", child.name):
        return child.name
    for name, value in vars(owner).items():
        if is_bookkeeping(name):
            continue
        entries = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
        found = [f"{name}_{key}" for key, entry in entries if entry is child or holds(entry, child)]
        if value is child or holds(value, child) or found:
            return (found[0] if found else name).lstrip("_")
    return child.name


def holds(wrapper: Any, layer: keras.Layer) -> bool:
    """Whether a layer is the wrapper that holds the masks of another."""
    return getattr(wrapper, "holds_masks_of", None) is layer


def wrapped_layers(model: keras.Layer) -> list[Any]:
    """Every layer that holds the masks of another (`PrunedLayer`), however deep."""
    found: dict[int, keras.Layer] = {}

    def visit(layer: keras.Layer) -> None:
        for child in children(layer):
            if hasattr(child, "holds_masks_of"):
                found[id(child)] = child
            else:
                visit(child)

    visit(model)
    return list(found.values())


def own_weights(layer: keras.Layer) -> list[keras.Variable]:
    """The weights of a layer that belong to none of the layers inside it."""
    inner = {id(weight) for child in children(layer) for weight in child.weights}
    return [weight for weight in layer.weights if id(weight) not in inner]


def own_variables(layer: keras.Layer) -> list[keras.Variable]:
    """The weights of a layer and the states of its seeds that belong to none of the layers inside it."""
    inner = {id(variable) for child in children(layer) for variable in child.variables}
    return [variable for variable in layer.variables if id(variable) not in inner]


def named_weights(layer: keras.Layer) -> Iterator[tuple[str, keras.Variable]]:
    """A layer's own weights with names that are unique in the layer."""
    used: set[str] = set()
    for variable in own_weights(layer):
        name = variable.name if variable.name not in used else f"{variable.name}_{len(used)}"
        used.add(name)
        yield name, variable


def weight_places(model: keras.Layer) -> Iterator[tuple[str, Place, keras.Variable]]:
    """Every weight of a model with its key, the path of the layer that holds it and its own name, and that layer."""
    for place in (Place("", (model,)), *places(model)):
        for name, variable in named_weights(place.layer):
            yield f"{place.path}/{name}".removeprefix("/"), place, variable


def weight_keys(model: keras.Layer) -> dict[int, str]:
    """The key of every weight by the id of its variable; a variable that several layers hold has the first."""
    keys: dict[int, str] = {}
    for key, _, variable in weight_places(model):
        keys.setdefault(id(variable), key)
    return keys


def as_array(variable: Any) -> np.ndarray:
    """The value of a variable on the host; in half precision as float32, which numpy can sort and compare."""
    array = np.asarray(keras.ops.convert_to_tensor(variable))
    return array if array.dtype in (np.float32, np.float64, np.bool_) else array.astype(np.float32)


def snapshot(variable: keras.Variable) -> np.ndarray:
    """Like `as_array`, but for reading only: the memory of the variable itself where it is on the host.

    TensorFlow never writes into memory that is read elsewhere, so the array keeps its values while the variable moves
    on; let go of it before training does, which else has to copy the variable.
    """
    array = np.asarray(variable.value.read_value())
    return array if array.dtype in (np.float32, np.float64, np.bool_) else array.astype(np.float32)
