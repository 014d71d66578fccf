"""Copies of a model: nothing shared with the first, compiled alike, plain again where it was wrapped."""

import contextlib
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import keras

from tfprune.errors import PruningError
from tfprune.model.graph import is_graph
from tfprune.model.tree import places, wrapped_layers


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
    # as JSON, which cannot be read back where they are not registered. tests/model/test_tree.py fails when it moves.
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
