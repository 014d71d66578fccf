"""Copies of a model: nothing shared with the first, compiled alike, plain again where it was wrapped."""

import contextlib
import inspect
import warnings
import weakref
from collections import defaultdict
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import keras
import numpy as np

from tfprune.errors import PruningError
from tfprune.model.duplicate import duplicate, duplicating
from tfprune.model.fresh import config_of, fresh_layer, from_config, of_config
from tfprune.model.graph import is_graph
from tfprune.model.hooks import compile_arguments, forget_calls, learning_rate_of
from tfprune.model.in_files import let_layers_be_read
from tfprune.model.state import carry_state, check_copy, check_ties, side_by_side
from tfprune.model.tree import every_layer, own_variables


def clone_with_weights(model: keras.Model, keep_compiled: bool = True) -> keras.Model:
    """An equal model that shares nothing with the first: all that its layers hold is in it, and it answers alike.

    Args:
        model: Functional, Sequential or subclassed.
        keep_compiled: Whether the copy is compiled as the model was, with a fresh optimizer.

    Raises:
        PruningError: The model cannot be built again, or its copy would compute something else.
    """
    return _equal_copy(model, _as_it_is, keep_compiled)


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
    return _equal_copy(model, _without_wrappers)


def copy_model(model: keras.Model, layer_copy: Callable[[Any], Any]) -> keras.Model:
    """A model of the same graph with other layers, compiled alike; the weights are NOT copied yet.

    Args:
        model: Functional or Sequential.
        layer_copy: Makes the new layer (or `keras.ops` operation) for one of the old.

    Raises:
        PruningError: The model is subclassed.
    """
    if not is_graph(model):
        raise PruningError(
            f"'{model.name}' is a subclassed model ({type(model).__name__}) whose layers cannot be exchanged. "
            "Prune it with PruningCallback in fit, or write it with the functional API."
        )
    return _finished(model, _layer_by_layer(model, layer_copy))


class Spare:
    """Fresh layers for a copy of a model: of classes that Keras does not have, those of a copy by the whole config.

    A network that is made by arguments of its own, as those of KerasHub, may hold layers that no config of theirs
    builds again, or builds otherwise.

    Args:
        model: The model.
    """

    def __init__(self, model: keras.Model):
        self._layers: dict[int, Any] = {}
        self._tied = tied_layers(model)
        self._take_over = duplicating(_uncompiled_copy, unwrap=False)
        if _is_the_users(model):
            try:
                whole = _by_config(model, _as_it_is)
                carry_state(model, whole)
                check_ties(model, whole)
                self._layers = {id(old): new for old, new in side_by_side(model, whole)}
            except PruningError:  # its layers tell enough, or the layer that does not is named
                return

    def layer(self, layer: Any) -> Any:
        """A fresh layer or operation, which may have its weights already.

        Raises:
            PruningError: The layer is of a class of the user's that cannot be made again.
        """
        found, tied = self._layers.get(id(layer)), id(layer) in self._tied
        if found is not None and (tied or _is_the_users(layer)):
            forget_calls(found)
            return found
        return self._take_over(layer) if tied else _fresh_or_duplicate(layer)


def _is_the_users(layer: Any) -> bool:
    return not type(layer).__module__.startswith("keras.")


def tied_layers(model: keras.Model) -> set[int]:
    """The layers of a graph that share a weight, by id: one that holds another, and that other."""
    holders: dict[int, set[int]] = defaultdict(set)

    def visit(model: keras.Model) -> None:
        for layer in model.layers:
            if is_graph(layer):
                visit(layer)
                continue
            for weight in layer.weights:
                holders[id(weight)].add(id(layer))

    if is_graph(model):
        visit(model)
    return {layer for layers in holders.values() if len(layers) > 1 for layer in layers}


def remember_class(model: keras.Model, wrapped: keras.Model) -> None:
    """Lets `unwrapped(wrapped)` be of the model's class again, where Keras cannot build its layers one by one."""
    if type(wrapped) is not type(model):
        try:
            values = [np.asarray(variable) for variable in own_variables(model)]
            _CLASSES[wrapped] = _Class(type(model), model.get_config(), values)
        except Exception:  # a class without a config is known by its layers
            return


class _Class(NamedTuple):
    """What makes a network again by arguments of its own, and what it holds beside its layers, as seeds."""

    kind: Any
    config: dict[str, Any]
    values: list[Any]

    @property
    def is_registered(self) -> bool:
        """Whether Keras finds the class by its name in a file."""
        return bool(keras.saving.get_registered_name(self.kind) != self.kind.__name__)

    def made(self) -> keras.Model:
        """A new model of the class, whose layers have no weights of value yet."""
        made: keras.Model = self.kind.from_config(self.config)
        for variable, value in zip(own_variables(made), self.values, strict=True):
            variable.assign(value)
        return made


_CLASSES: "weakref.WeakKeyDictionary[keras.Model, _Class]" = weakref.WeakKeyDictionary()


def _equal_copy(model: keras.Model, rewrite: Callable[[Any], Any], keep_compiled: bool = True) -> keras.Model:
    """A copy that has been compared with its original; `rewrite` alters the configs that it is built from."""

    def fresh(layer: Any) -> Any:
        if rewrite is _as_it_is:
            return _fresh_or_duplicate(layer)
        plain = getattr(layer, "holds_masks_of", layer)
        return _fresh_or_duplicate(plain, rewrite(config_of(plain)))

    # The whole config keeps the class of a model, and builds networks whose layers alone cannot be rebuilt; layer by
    # layer, what two nested models share stays shared, and nothing has to be registered with Keras; duplicates hold
    # what no config says.
    attempts = [lambda: _by_config(model, rewrite)]
    if rewrite is not _as_it_is and model in _CLASSES:
        remembered = _CLASSES[model]
        attempts.insert(0 if remembered.is_registered else 1, remembered.made)
    if is_graph(model):
        attempts.append(lambda: _layer_by_layer(model, fresh))
        attempts.append(lambda: _with_duplicates(model, unwrap=rewrite is not _as_it_is))
    elif rewrite is _as_it_is:
        attempts.append(lambda: _by_parts(model))
    errors: list[Exception] = []
    for attempt in attempts:
        try:
            with scope_of(model):
                copy = attempt()
                carry_state(model, copy, beside_layers=type(copy) is type(model) or model not in _CLASSES)
                check_ties(model, copy)
                check_copy(model, copy)
            break
        except Exception as error:
            errors.append(error)
    else:
        told = errors[-2] if is_graph(model) else errors[-1]  # a duplicate's says less of what a class should tell
        if isinstance(told, PruningError):
            raise told
        raise PruningError(f"'{model.name}' cannot be copied: {' '.join(str(told).split())}") from told
    return _finished(model, copy, keep_compiled)


def _finished(model: keras.Model, copy: keras.Model, keep_compiled: bool = True) -> keras.Model:
    with scope_of(model):
        if copy.dtype_policy != model.dtype_policy:
            copy.dtype_policy = model.dtype_policy  # compile() scales the loss by it
        let_layers_be_read(copy)
        if keep_compiled and model.compiled and type(copy).compile is type(model).compile:
            compile_like(model, copy)
    return copy


def _by_config(model: keras.Model, rewrite: Callable[[Any], Any]) -> keras.Model:
    """A model of the same class by its own config, as Keras builds it from a file."""
    kinds = set(map(type, every_layer(model)))
    own = {kind.__name__: kind for kind in kinds if not kind.__module__.startswith("keras.")}
    try:
        if len({kind.__name__ for kind in kinds}) < len(kinds):
            raise ValueError("it has layers of two classes of one name")
        with keras.saving.custom_object_scope(own):
            copy = of_config(type(model), rewrite(model.get_config()))
            if not copy.built:
                copy.build_from_config(model.get_build_config())
        if len(copy.weights) != len(model.weights):
            raise ValueError("its copy has other weights; does get_config() return every argument of __init__?")
        copy.built = True  # Keras does not say so of one that takes several inputs, though it has made all weights
    except Exception as error:
        raise PruningError(
            f"'{model.name}' is a subclassed model ({type(model).__name__}) that cannot be rebuilt from its config: "
            f"{error} Give it get_config() and build(), or change it in place with apply_masks()."
        ) from error
    return copy


def _fresh_or_duplicate(layer: Any, config: dict[str, Any] | None = None) -> Any:
    """A new layer or operation by its config; of a class that tells no config, one with its weights already."""
    try:
        return fresh_layer(layer, config)
    except PruningError as error:
        if not isinstance(layer, keras.Layer) or not layer.built:
            raise
        try:
            return duplicate(layer, _uncompiled_copy)
        except PruningError:
            raise error from None


def remade(layer: Any, config: dict[str, Any], same_sizes: bool) -> Any:
    """A new layer by a config; one that no config makes again, with its weights already, where it keeps its sizes."""
    may_be_duplicated = same_sizes and isinstance(layer, keras.Layer) and layer.built and _is_the_users(layer)
    try:
        made = from_config(layer, config)
        if may_be_duplicated:
            list(side_by_side(layer, made))  # an argument may be kept as something else under its name
        return made
    except Exception:
        if may_be_duplicated:
            with contextlib.suppress(PruningError):
                return duplicate(layer, _uncompiled_copy)
        raise


def _uncompiled_copy(model: keras.Model) -> keras.Model:
    return clone_with_weights(model, keep_compiled=False)


def _by_parts(model: keras.Model) -> keras.Model:
    """A model of the same class whose `__init__` is not called, for a class that does not tell with what."""
    try:
        made: keras.Model = duplicate(model, _uncompiled_copy)
    except PruningError as error:
        raise PruningError(
            f"'{model.name}' is a subclassed model ({type(model).__name__}) that cannot be rebuilt from its config, "
            f"and {error} Give it get_config() and build(), or change it in place with apply_masks()."
        ) from error
    return made


def _layer_by_layer(model: keras.Model, layer_copy: Callable[[Any], Any]) -> keras.Model:
    with _not_compiled(model), scope_of(model):
        copy = _cloned(model, layer_copy, {})
    if type(copy) is not type(model):
        warnings.warn(
            f"tfprune: '{model.name}' is of class {type(model).__name__}, but its copy is a plain functional model, "
            "since that class makes its layers itself: methods of the class, such as train_step, are not in the copy. "
            "PruningCallback prunes the model as it is.",
            stacklevel=5,
        )
    return copy


def _with_duplicates(model: keras.Model, unwrap: bool) -> keras.Model:
    """A copy whose layers of classes that Keras does not have hold all that the old ones hold, config or not."""
    take_over, tied = duplicating(unwrapped if unwrap else _uncompiled_copy, unwrap), tied_layers(model)

    def copied(layer: Any) -> Any:
        plain = getattr(layer, "holds_masks_of", layer) if unwrap else layer
        own = isinstance(plain, keras.Layer) and _is_the_users(plain)
        return take_over(plain) if own or id(layer) in tied else fresh_layer(plain)

    return _layer_by_layer(model, copied)


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


@contextlib.contextmanager
def _not_compiled(model: keras.Model) -> Iterator[None]:
    """Keeps `clone_model` from compiling its copies by way of JSON, which fails for a loss of the user's own."""
    compiled = [part for part in every_layer(model) if getattr(part, "compiled", False)]
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
    kind = type(copy)
    if kind.compile_from_config is not keras.Model.compile_from_config or not _takes_what_keras_does(kind.compile):
        copy.compile_from_config(model.get_compile_config())
        return
    arguments = compile_arguments(model)
    try:
        arguments["optimizer"] = _fresh_optimizer(model.optimizer)
        for name in ("metrics", "weighted_metrics"):
            arguments[name] = keras.tree.map_structure(_fresh_metric, arguments[name])
    except Exception as error:
        raise PruningError(
            f"The compile settings of '{model.name}' cannot be copied ({error}). Give that class get_config()."
        ) from error
    # Whatever scales the loss is in the optimizer by now.
    keras.Model.compile(copy, **arguments, auto_scale_loss=False)
    if copy.optimizer is not None:
        copy.optimizer.build(copy.trainable_variables)


def _takes_what_keras_does(compile_of_a_class: Callable[..., None]) -> bool:
    """Whether a `compile` has no further arguments than Keras' own: it fills in defaults, and Keras knows the rest."""
    known = inspect.signature(keras.Model.compile).parameters
    own = inspect.signature(compile_of_a_class).parameters.values()
    return all(each.name in known or each.kind is each.VAR_KEYWORD for each in own)


def _fresh_optimizer(optimizer: Any) -> Any:
    if optimizer is None:
        return None
    # The config holds a learning-rate schedule as JSON; a class of the user's own is read back by its name.
    inner = getattr(optimizer, "inner_optimizer", optimizer)
    kinds = [type(inner), type(learning_rate_of(inner))]
    with keras.saving.custom_object_scope({kind.__name__: kind for kind in kinds}):
        return type(optimizer).from_config(optimizer.get_config())


def _fresh_metric(metric: Any) -> Any:
    return type(metric).from_config(metric.get_config()) if isinstance(metric, keras.metrics.Metric) else metric


def _as_it_is(config: Any) -> Any:
    return config


def _without_wrappers(config: Any) -> Any:
    """A config with the plain layer in the place of each wrapped one, as in TimeDistributed(PrunedLayer)."""
    if isinstance(config, dict):
        if config.get("registered_name") == "tfprune>PrunedLayer":
            place = {key: config[key] for key in ("name", "inbound_nodes") if key in config}  # in a functional model
            return _without_wrappers({**config["config"]["layer"], **place})
        return {key: _without_wrappers(value) for key, value in config.items()}
    return [_without_wrappers(value) for value in config] if isinstance(config, list) else config
