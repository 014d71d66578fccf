"""Layers that hold their masks as weights of their own: saved with the model, restored, held without a callback."""

import inspect
from typing import Any

import keras

from tfprune.deciding import methods
from tfprune.deciding.method import Method
from tfprune.errors import PruningError, nearest
from tfprune.model.altered import telling_of_altered
from tfprune.model.copying import Spare, copy_model, remember_class
from tfprune.model.graph import is_graph
from tfprune.model.layers import facts_of
from tfprune.model.state import carry_state, check_copy, check_ties
from tfprune.model.tree import Place, check_model, named_weights, places, wrapped_layers
from tfprune.training.masks import hold
from tfprune.training.trained import leave_frozen, nothing_trains


@keras.saving.register_keras_serializable(package="tfprune")
class PrunedLayer(keras.layers.Wrapper):
    """A layer together with the masks of its weights, which are saved in the `.keras` file and restored from it.

    It computes what the layer computes. Train it with the `UpdateMasks` callback, which decides the masks; after that
    the zeros hold in any further training. `strip_masks` gives the plain layer back.

    Args:
        layer: The layer to prune, built or not.
        method: A method (`Percentile(0.8)`, ...), its config, or a number. Layers that are wrapped with equal methods
            in one model share one budget.
        masked: Keys of the weights that carry masks, below the layer (`"kernel"`, `"lstm_cell/kernel"`). Defaults to
            None: those that the method prunes.

    Example:
        model = keras.Sequential([
            keras.Input((28, 28, 1)),
            tfprune.PrunedLayer(keras.layers.Conv2D(32, 3), tfprune.Percentile(0.8)),
            keras.layers.Flatten(),
            tfprune.PrunedLayer(keras.layers.Dense(10), tfprune.Percentile(0.8)),
        ])
        model.compile("adam", "sparse_categorical_crossentropy")
        model.fit(x, y, callbacks=[tfprune.UpdateMasks()])
    """

    def __init__(self, layer: keras.Layer, method: Any, masked: list[str] | None = None, **kwargs: Any):
        if isinstance(layer, PrunedLayer):
            raise PruningError(f"'{layer.name}' is a PrunedLayer already; wrap the layer inside it once.")
        if not isinstance(layer, keras.Layer):
            raise PruningError(f"PrunedLayer: {layer!r} is no layer; give one, such as keras.layers.Dense(10).")
        self.wrapped_call = inspect.signature(layer.call)
        kwargs.setdefault("name", layer.name)
        super().__init__(layer, **kwargs)
        self.method: Method = methods.get(method)
        self.masked = None if masked is None else list(masked)
        # The same as numbers, for a copy of the layer, in which Keras counts the names of inner layers on (`dense_7`).
        self.masked_places: list[int] | None = None
        self.masks: dict[str, keras.Variable] = {}
        self.decided: keras.Variable | None = None  # saved with the masks: whether any were ever set
        self.updating = False  # set by UpdateMasks while it trains the model
        self._masks_are_weights = False
        self.supports_masking = layer.supports_masking
        self.autocast = False  # the wrapped layer casts its inputs as its own dtype policy says
        if layer.built and (layer.weights or masked is None):
            self.build()

    @property
    def holds_masks_of(self) -> keras.Layer:
        """The wrapped layer, which stands for this one wherever paths and weights are named."""
        return self.layer

    def build(self, input_shape: Any = None) -> None:
        if not self.layer.built:
            self.layer.build(input_shape)
            self.layer.built = True
        self.built = True
        if self.masks:
            return
        self.decided = self.add_weight(shape=(), dtype="bool", initializer="zeros", trainable=False, name="decided")
        weights = _weights_below(self.layer)
        if self.masked is None:
            self.masked = _kernels_below(self.layer)
            if not self.masked:
                raise PruningError(
                    f"'{self.layer.name}' ({type(self.layer).__name__}) has no kernel to prune; leave it unwrapped, "
                    f"or name its weights: masked={list(weights)}."
                )
        if self.masked_places is not None:
            self.masked = [list(weights)[number] for number in self.masked_places]
        for key in self.masked:
            if key not in weights:
                raise PruningError(f"'{self.layer.name}' has no weight {key!r} to mask. {nearest(key, weights)}")
            mask = self.add_weight(
                shape=tuple(weights[key].shape),
                dtype="bool",
                initializer=_all_kept,
                trainable=False,
                name=f"{key.replace('/', '_')}_mask",
            )
            self.masks[key] = mask
            hold(weights[key], mask, self.decided)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if not self.masks:
            # Only a call builds every kind of layer: some take several inputs, some make their weights when called.
            self.layer(*args, **kwargs)
            self.build()
        return super().__call__(*args, **kwargs)

    @property
    def call(self) -> Any:
        """The call of the wrapped layer under its own signature, by which Keras sorts arguments and finds masks."""

        def call(*args: Any, training: bool | None = None, **kwargs: Any) -> Any:
            if training and not self.updating and not self._is_decided(args, kwargs):
                raise PruningError(
                    f"The wrapped layer '{self.name}' is being trained, but nothing decides its masks. "
                    "Add the callback: model.fit(..., callbacks=[tfprune.UpdateMasks()])"
                )
            if training is not None and "training" in self.wrapped_call.parameters:
                kwargs["training"] = training
            return self.layer(*args, **kwargs)

        parameters = list(self.wrapped_call.parameters.values())
        if "training" not in self.wrapped_call.parameters:
            training = inspect.Parameter("training", inspect.Parameter.KEYWORD_ONLY, default=None)
            last_is_catch_all = bool(parameters) and parameters[-1].kind is inspect.Parameter.VAR_KEYWORD
            parameters.insert(len(parameters) - last_is_catch_all, training)
        call.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        return call

    def compute_output_shape(self, *args: Any, **kwargs: Any) -> Any:
        return self.layer.compute_output_shape(*args, **kwargs)

    def compute_output_spec(self, *args: Any, **kwargs: Any) -> Any:
        if "training" not in self.wrapped_call.parameters:
            kwargs.pop("training", None)
        return self.layer.compute_output_spec(*args, **kwargs)

    def compute_mask(self, inputs: Any, previous_mask: Any) -> Any:
        return self.layer.compute_mask(inputs, previous_mask)

    def _is_decided(self, args: Any, kwargs: Any) -> bool:
        import tensorflow as tf

        if any(isinstance(tensor, keras.KerasTensor) for tensor in keras.tree.flatten((args, kwargs))):
            return True  # a model is being made, not trained
        with tf.init_scope():  # out of the graph that is being traced, to read the value of today
            return bool(keras.ops.convert_to_numpy(self.decided))

    @property
    def weights(self) -> list[keras.Variable]:
        """Those of the wrapped layer, and the masks from when something decides them or training begins.

        Until then a model of wrapped layers has the weights of the plain model, and takes its `get_weights()`.
        """
        weights = super().weights
        if self.has_masks_to_keep:
            return weights
        own = {id(variable) for variable in self.own_state}
        return [variable for variable in weights if id(variable) not in own]

    @property
    def has_masks_to_keep(self) -> bool:
        """Whether the masks are more than those of a new layer, which keep everything; once so, it stays so."""
        if not self._masks_are_weights:
            self._masks_are_weights = self.updating or (self.decided is not None and self._is_decided((), {}))
        return self._masks_are_weights

    @has_masks_to_keep.setter
    def has_masks_to_keep(self, value: bool) -> None:
        self._masks_are_weights = value

    @property
    def own_state(self) -> list[keras.Variable]:
        """The variables that the plain layer does not have."""
        return [*self.masks.values()] + ([] if self.decided is None else [self.decided])

    def get_config(self) -> dict[str, Any]:
        method = keras.saving.serialize_keras_object(self.method)
        config = {**super().get_config(), "method": method, "masked": self.masked}
        config["has_masks_to_keep"] = self.has_masks_to_keep
        if self.masks:
            keys = list(_weights_below(self.layer))
            config["masked_places"] = [keys.index(key) for key in self.masks]
        return config

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> "PrunedLayer":
        config = dict(config)
        layer = keras.saving.deserialize_keras_object(config.pop("layer"), custom_objects=custom_objects)
        places, kept = config.pop("masked_places", None), config.pop("has_masks_to_keep", True)
        wrapped = cls.at_places(places, layer, **config)
        wrapped.has_masks_to_keep = kept
        return wrapped

    @classmethod
    def at_places(
        cls, places: list[int] | None, layer: keras.Layer, method: Any, masked: list[str] | None, **kwargs: Any
    ) -> "PrunedLayer":
        """A wrapped layer with masks on its weights of these numbers, counted below the layer in their order."""
        if places is not None and layer.built and layer.weights:
            keys = list(_weights_below(layer))
            masked = [keys[place] for place in places]
        made = cls(layer, method, masked, **kwargs)
        made.masked_places = places
        return made

    def get_build_config(self) -> dict[str, Any]:
        """What the wrapped layer needs to be built again, since it may take more than one shape."""
        return {"layer": self.layer.get_build_config()}

    def build_from_config(self, config: dict[str, Any]) -> None:
        """Builds the wrapped layer as it was, then the masks."""
        if not self.layer.built and config.get("layer"):
            self.layer.build_from_config(config["layer"])
            self.layer.built = True
        if self.layer.built and self.layer.weights:
            self.build()


def wrap(model: keras.Model, method: Any) -> keras.Model:
    """A new model in which every layer that the method prunes is a `PrunedLayer`; weights and compilation are copied.

    Args:
        model: A built functional or Sequential model (nested ones are entered); it is left as it is.
        method: `Percentile(0.8)`, `Threshold(0.05)`, ..., its config, or a sparsity.

    Raises:
        PruningError: The model is not built, subclassed, wrapped already, or has nothing that the method may prune.

    Weights that do not train are left alone, unless `layers` of the method names them.

    Example:
        wrapped = tfprune.wrap(model, tfprune.Percentile(0.8))
        wrapped.fit(x, y, epochs=2, callbacks=[tfprune.UpdateMasks()])
        plain = tfprune.strip_masks(wrapped)
    """
    method = methods.get(method)
    check_model(model, "wrap")
    if wrapped_layers(model):
        raise PruningError(f"'{model.name}' is wrapped already; strip_masks(model) gives the plain model to wrap anew.")
    masked: dict[int, list[int]] = {}
    with telling_of_altered(model):
        bound = method.bind(model)
    left_alone = leave_frozen(model, bound, method.layers)
    if not bound.weights:
        raise nothing_trains(model, left_alone)
    for weight in bound.weights:
        # A subclassed model inside is wrapped as a whole, for the layers inside it cannot be exchanged.
        layer = next(owner for owner in weight.place.owners if not is_graph(owner))
        below = [id(variable) for variable in _weights_below(layer).values()]
        masked.setdefault(id(layer), []).append(below.index(id(weight.variable)))
    pairs: list[tuple[keras.Layer, keras.Layer]] = []
    spare = Spare(model)

    def wrapped_copy(layer: Any) -> Any:
        fresh = spare.layer(layer)
        if isinstance(layer, keras.Layer):
            pairs.append((layer, fresh))
        if id(layer) not in masked:
            return fresh
        keys = list(_weights_below(layer))
        return PrunedLayer.at_places(masked[id(layer)], fresh, method, [keys[place] for place in masked[id(layer)]])

    copy = copy_model(model, wrapped_copy)
    remember_class(model, copy)
    for old, new in pairs:
        carry_state(old, new)
    for layer in wrapped_layers(copy):
        layer.has_masks_to_keep = True
    found = sum(len(layer.masks) for layer in wrapped_layers(copy))
    if found != sum(len(keys) for keys in masked.values()):
        raise PruningError(
            f"'{model.name}' holds layers that Keras {keras.__version__} does not copy one by one: of "
            f"{sum(len(keys) for keys in masked.values())} weights to prune, only {found} could be wrapped. "
            "PruningCallback prunes the model as it is."
        )
    check_ties(model, copy)
    check_copy(model, copy)
    return copy


def _weights_below(layer: keras.Layer) -> dict[str, keras.Variable]:
    """The weights of a layer and of all layers inside it, by their keys below the layer."""
    weights = dict(named_weights(layer))
    for place in places(layer):
        weights.update({f"{place.path}/{name}": variable for name, variable in named_weights(place.layer)})
    return weights


def _kernels_below(layer: keras.Layer) -> list[str]:
    return [
        f"{place.path}/{name}".removeprefix("/")
        for place in (Place("", (layer,)), *places(layer))
        for name, variable in named_weights(place.layer)
        if variable.name in facts_of(place.layer).kernels
    ]


def _all_kept(shape: tuple[int, ...], dtype: Any = None) -> Any:
    return keras.ops.ones(shape, dtype="bool")
