"""A layer made anew: by its config, else by the arguments of its class as its attributes hold them."""

import inspect
import types
from typing import Any

import keras
import numpy as np

from tfprune.errors import PruningError
from tfprune.model.hooks import shallow_copy
from tfprune.model.tree import children

OF_EVERY_LAYER = ("name", "trainable", "dtype")
PLAIN_OBJECTS = (types.FunctionType, keras.regularizers.Regularizer)


def fresh_layer(layer: Any, config: dict[str, Any] | None = None) -> Any:
    """A new layer (or operation) of the same configuration, without weights yet.

    Args:
        layer: The layer.
        config: Its configuration where it has been altered. Defaults to None: as it is.

    Raises:
        PruningError: The layer is of a class of the user's that can be built again neither by its config nor by the
            arguments of its class.
    """
    try:
        return from_config(layer, config_of(layer) if config is None else config)
    except Exception as error:
        raise PruningError(
            f"The layer '{layer.name}' ({type(layer).__name__}) cannot be rebuilt from its config: "
            f"{' '.join(str(error).split())}. Give its class a get_config() that returns every argument of __init__."
        ) from error


def tells_how_it_is_made(layer: Any) -> bool:
    """Whether a layer can be made again, by its config or by the arguments of its class."""
    try:
        fresh_layer(layer)
    except PruningError:
        return False
    return True


def config_of(layer: Any) -> dict[str, Any]:
    """The config of a layer; where its class gives none, what every layer has.

    Keras itself gives none for a layer without `get_config` that was given a dtype policy.
    """
    try:
        config: dict[str, Any] = layer.get_config()
    except (NotImplementedError, AttributeError):
        if not isinstance(layer, keras.Layer):
            raise
        policy = keras.saving.serialize_keras_object(layer.dtype_policy)
        return {"name": layer.name, "trainable": layer.trainable, "dtype": policy}
    return plain_values(config)


def plain_values(config: dict[str, Any]) -> dict[str, Any]:
    """A config with values in the place of variables, as of a class that keeps one under the name of its argument."""
    plain: dict[str, Any] = keras.tree.map_structure(_value, config)
    return plain


def _value(x: Any) -> Any:
    if not isinstance(x, keras.Variable):
        return x
    value = np.asarray(x)
    return value.item() if value.ndim == 0 else value


def from_config(layer: Any, config: dict[str, Any]) -> Any:
    """A new layer by a config; its functions and regularizers are those of the layer, if Keras would read others."""
    if isinstance(layer, keras.layers.Lambda):
        # The user's own model is at hand, so its lambda is no more dangerous than it was.
        try:
            fresh = type(layer).from_config(config, safe_mode=False)
        except TypeError:  # a function that Keras cannot find by its name
            return shallow_copy(layer)
        fresh.function = layer.function
        return fresh
    for key in config:
        value = getattr(layer, key, None)
        function = value if inspect.isfunction(value) else type(value)
        if isinstance(value, PLAIN_OBJECTS) and not is_told_by_name(function):
            config[key] = value
    try:
        return of_config(type(layer), dict(config))
    except Exception as error:
        if not isinstance(layer, keras.Layer):
            raise
        arguments = _arguments(layer, config)
        if arguments is not None:
            try:
                return _named(type(layer)(*arguments[0], **arguments[1]), layer)
            except Exception:  # what Keras said of the config tells more
                raise error from None
        if not layer.variables and not children(layer):
            return shallow_copy(layer)  # with nothing to share but plain values
        raise


def of_config(kind: Any, config: dict[str, Any]) -> Any:
    """A new layer or model of a class by a config; of a `Sequential` all layers at once.

    Its own `from_config` adds one after the other and builds the whole anew each time.
    """
    if kind is not keras.Sequential or not all("module" in each for each in config["layers"]):
        return kind.from_config(config)
    layers = [keras.saving.deserialize_keras_object(each) for each in config["layers"]]
    return keras.Sequential(layers, name=config["name"])


def is_told_by_name(function: Any) -> bool:
    """Whether a config says which function or class it is: of the user's none does, and of Keras' not each.

    It tells the name alone, and `keras.ops.gelu` is another function than the activation of that name.
    """
    named = getattr(keras.activations, function.__name__, function)
    return named is function and function.__module__.startswith("keras.")


def fresh_operation(operation: Any) -> Any:
    """A `keras.ops` operation like another, which knows nothing of the other's calls."""
    try:
        return from_config(operation, operation.get_config())
    except (NotImplementedError, TypeError):
        return shallow_copy(operation)  # one that was given an array has no configuration


def _named(made: Any, layer: keras.Layer) -> Any:
    """A layer under the name of another, where its class takes none."""
    if made.name != layer.name:
        made.name = layer.name
    return made


def _arguments(layer: keras.Layer, config: dict[str, Any]) -> tuple[list[Any], dict[str, Any]] | None:
    """What the class of a layer takes, from the config or from attributes of that name; None where one is missing."""
    found: dict[str, Any] = {}
    listed: list[Any] = []
    parameters = inspect.signature(type(layer).__init__).parameters.values()
    for parameter in list(parameters)[1:]:
        name = parameter.name
        if parameter.kind is parameter.VAR_KEYWORD:
            found.update({key: config[key] for key in OF_EVERY_LAYER if key in config and key not in found})
        elif name in config:
            found[name] = config[name]
        elif hasattr(layer, name) or hasattr(layer, f"_{name}"):
            value = getattr(layer, name, None) if hasattr(layer, name) else getattr(layer, f"_{name}")
            value = keras.tree.map_structure(lambda x: fresh_layer(x) if isinstance(x, keras.Layer) else x, value)
            if parameter.kind is parameter.VAR_POSITIONAL:
                if found:  # what comes before them would have to be listed too
                    return None
                listed = list(value)
            else:
                found[name] = value
        else:  # its default may be another value than the layer was given
            return None
    if "dtype" in found:
        found["dtype"] = keras.dtype_policies.get(found["dtype"])
    return listed, found
