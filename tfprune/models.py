"""A Keras model as a tree of layers: checking it, walking through it, copying it."""

import contextlib
import re
import warnings
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import keras
import numpy as np

from tfprune.errors import PruningError
from tfprune.nodes import is_graph


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
    if not model.built:
        raise PruningError(
            f"Cannot {purpose} '{model.name}': it is not built yet, so it has no weights. "
            "Call it once on data, or model.build((None, ...)) with the input shape."
        )
    return model


def children(layer: keras.Layer) -> list[keras.Layer]:
    """The layers directly inside a layer, in the order of their creation."""
    if isinstance(layer, keras.Model):
        return list(layer.layers)
    # Keras has no public way to the layers inside a composite layer (attention, recurrent cells, wrappers);
    # tests/test_models.py fails when this one moves.
    return list(layer._flatten_layers(include_self=False, recursive=False))


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
        # What Keras and TensorFlow note for themselves.
        if name in ("_layers", "_tracked") or name.startswith("_self_"):
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


def named_weights(layer: keras.Layer) -> Iterator[tuple[str, keras.Variable]]:
    """A layer's own weights with names that are unique in the layer."""
    used: set[str] = set()
    for variable in own_weights(layer):
        name = variable.name if variable.name not in used else f"{variable.name}_{len(used)}"
        used.add(name)
        yield name, variable


def copy_model(
    model: keras.Model, layer_copy: Callable[[Any], Any] | None = None, keep_compiled: bool = True
) -> keras.Model:
    """A model of the same graph with new layers, nothing shared; the weights are NOT copied yet.

    Args:
        model: Functional, Sequential, or a subclass with `get_config`.
        layer_copy: Makes the new layer (or `keras.ops` operation) for one of the old. Defaults to its config.
        keep_compiled: Whether the copy is compiled as the model was, with a fresh optimizer.

    Raises:
        PruningError: The model is subclassed and cannot be rebuilt from its config, or takes no `layer_copy`.
    """
    if not is_graph(model) and layer_copy is not None:
        raise PruningError(
            f"'{model.name}' is a subclassed model ({type(model).__name__}) whose layers cannot be exchanged. "
            "Prune it with PruningCallback in fit, or write it with the functional API."
        )
    with _not_compiled(model), scope_of(model):
        if is_graph(model):
            copy = _of_same_class(model, _cloned(model, layer_copy or fresh_layer, {}), layer_copy is None)
        else:
            copy = _rebuilt(model)
        if copy.dtype_policy != model.dtype_policy:
            copy.dtype_policy = model.dtype_policy  # compile() scales the loss by it
    if keep_compiled and model.compiled and type(copy).compile is type(model).compile:
        with scope_of(model):
            compile_like(model, copy)
    return copy


def _cloned(model: keras.Model, layer_copy: Callable[[Any], Any], made: dict[int, Any]) -> keras.Model:
    """A model of the same graph; models inside are entered at every depth, and what is shared stays shared."""

    def once(layer: Any) -> Any:
        # `clone_model(recursive=True)` would do, but it enters one level only in some versions of Keras (3.10).
        if id(layer) not in made:
            made[id(layer)] = _cloned(layer, layer_copy, made) if is_graph(layer) else layer_copy(layer)
        return made[id(layer)]

    try:
        return keras.models.clone_model(model, clone_function=once)
    except TypeError:
        # Keras 3.10 takes a class whose __init__ has no arguments for one that is built from inputs and outputs.
        if isinstance(model, keras.Sequential):
            raise
        plain = keras.Model(model.input, model.output, name=model.name)
        return keras.models.clone_model(plain, clone_function=once)


def scope_of(model: keras.Model) -> contextlib.AbstractContextManager[Any]:
    """The distribution scope of a model, in which its variables have to be made."""
    strategy = getattr(model, "distribute_strategy", None)
    return strategy.scope() if strategy is not None else contextlib.nullcontext()


def _of_same_class(model: keras.Model, copy: keras.Model, may_rebuild: bool) -> keras.Model:
    """The copy, or one by the model's own config where Keras gave up a class that has its own `__init__`."""
    if type(copy) is type(model):
        return copy
    if may_rebuild:
        with contextlib.suppress(PruningError):
            return _rebuilt(model)
    warnings.warn(
        f"tfprune: '{model.name}' is of class {type(model).__name__}, but its copy is a plain functional model, "
        "since that class makes its layers itself: methods of the class, such as train_step, are not in the copy. "
        "PruningCallback prunes the model as it is.",
        stacklevel=4,
    )
    return copy


@contextlib.contextmanager
def _not_compiled(model: keras.Model) -> Iterator[None]:
    """Keeps `clone_model` from compiling its copies by way of JSON, which fails for a loss of the user's own."""
    compiled = [part for part in [model, *(place.layer for place in places(model))] if getattr(part, "compiled", False)]
    for part in compiled:
        part.compiled = False
    try:
        yield
    finally:
        for part in compiled:
            part.compiled = True


def compile_like(model: keras.Model, copy: keras.Model) -> None:
    """Compiles a copy with the same loss, metrics and settings as the model, and a fresh optimizer.

    Losses and metrics of the user's own need not be registered with Keras, as they have to be in a saved model.

    Raises:
        PruningError: The optimizer or a metric cannot be built again from its config.
    """
    if type(model).compile is not keras.Model.compile:
        copy.compile_from_config(model.get_compile_config())
        return
    # The arguments of compile() as they were given: only Keras' private record has them. Its public twin writes them
    # as JSON, which cannot be read back where they are not registered. tests/test_models.py fails when it moves.
    arguments = dict(model._compile_config.config)
    try:
        arguments["optimizer"] = _fresh_optimizer(model.optimizer)
        for name in ("metrics", "weighted_metrics"):
            arguments[name] = keras.tree.map_structure(_fresh_metric, arguments[name])
    except Exception as error:
        raise PruningError(
            f"The compile settings of '{model.name}' cannot be copied ({error}). Give that class get_config()."
        ) from error
    # Whatever scales the loss is in the optimizer by now.
    copy.compile(**arguments, auto_scale_loss=False)
    if copy.optimizer is not None:
        copy.optimizer.build(copy.trainable_variables)


def _fresh_optimizer(optimizer: Any) -> Any:
    if optimizer is None:
        return None
    # The config holds a learning-rate schedule as JSON; a class of the user's own is read back by its name.
    # `_learning_rate` is the schedule itself, of which the public `learning_rate` is only the present value.
    inner = getattr(optimizer, "inner_optimizer", optimizer)
    kinds = [type(inner), type(getattr(inner, "_learning_rate", None))]
    with keras.saving.custom_object_scope({kind.__name__: kind for kind in kinds}):
        return type(optimizer).from_config(optimizer.get_config())


def _fresh_metric(metric: Any) -> Any:
    return type(metric).from_config(metric.get_config()) if isinstance(metric, keras.metrics.Metric) else metric


def fresh_layer(layer: Any, config: dict[str, Any] | None = None) -> Any:
    """A new layer (or operation) of the same configuration, without weights yet.

    Args:
        layer: The layer.
        config: Its configuration where it has been altered. Defaults to None: as it is.

    Raises:
        PruningError: The layer is of a class of the user's whose config does not build it again.
    """
    try:
        return type(layer).from_config(layer.get_config() if config is None else config)
    except Exception as error:
        raise PruningError(
            f"The layer '{layer.name}' ({type(layer).__name__}) cannot be rebuilt from its config: "
            f"{' '.join(str(error).split())}. Give its class a get_config() that returns every argument of __init__."
        ) from error


def _rebuilt(model: keras.Model) -> keras.Model:
    try:
        copy = type(model).from_config(model.get_config())
        if not copy.built:
            copy.build_from_config(model.get_build_config())
        if len(copy.weights) != len(model.weights):
            raise ValueError("its copy has other weights; does get_config() return every argument of __init__?")
    except Exception as error:
        raise PruningError(
            f"'{model.name}' is a subclassed model ({type(model).__name__}) that cannot be rebuilt from its config: "
            f"{error} Give it get_config() and build(), or change it in place with apply_masks()."
        ) from error
    return copy


def copy_weights(source: keras.Layer, target: keras.Layer) -> None:
    """Sets every weight of `target` to that of `source`; both have the same structure."""
    for from_variable, to_variable in zip(source.weights, target.weights, strict=True):
        to_variable.assign(from_variable)


def unwrapped(model: keras.Model) -> keras.Model:
    """An equal model with new plain layers in the place of wrapped ones; it shares nothing with the first.

    Raises:
        PruningError: The model is subclassed, so its layers cannot be exchanged.
    """
    if not is_graph(model):
        raise PruningError(
            f"'{model.name}' is a subclassed model ({type(model).__name__}) that makes its wrapped layers itself. "
            "Make one with plain layers, copy their weights, and write apply_masks(plain, get_masks(wrapped))."
        )
    own_state = {id(variable) for layer in wrapped_layers(model) for variable in layer.own_state}
    pairs: list[tuple[keras.Layer, keras.Layer]] = []

    def plain_copy(layer: Any) -> Any:
        plain = getattr(layer, "holds_masks_of", layer)
        fresh = fresh_layer(plain, _without_wrappers(plain.get_config()))
        if isinstance(plain, keras.Layer):
            pairs.append((plain, fresh))
        return fresh

    copy = copy_model(model, plain_copy)
    for old, new in pairs:
        weights = [variable for variable in old.weights if id(variable) not in own_state]
        for from_variable, to_variable in zip(weights, new.weights, strict=True):
            to_variable.assign(from_variable)
    return copy


def _without_wrappers(config: Any) -> Any:
    """A layer's config with the plain layer in the place of each wrapped one, as in TimeDistributed(PrunedLayer)."""
    if isinstance(config, dict):
        if config.get("registered_name") == "tfprune>PrunedLayer":
            return _without_wrappers(config["config"]["layer"])
        return {key: _without_wrappers(value) for key, value in config.items()}
    return [_without_wrappers(value) for value in config] if isinstance(config, list) else config


def clone_with_weights(model: keras.Model, keep_compiled: bool = True) -> keras.Model:
    """An equal model that shares nothing with the first."""
    copy = copy_model(model, keep_compiled=keep_compiled)
    copy_weights(model, copy)
    return copy


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
