"""Models of tensorflow-model-optimization and Keras 2 brought over to Keras 3."""

import tempfile
from pathlib import Path
from typing import Any

import keras
import numpy as np

from tfprune.errors import PruningError
from tfprune.model.hooks import is_graph_of_keras_2


def from_tfmot(model: Any) -> keras.Model:
    """A Keras 3 model equal to a Keras 2 one, pruning wrappers of tensorflow-model-optimization taken off.

    Args:
        model: A `tf_keras` model, functional or Sequential, plain or wrapped by `prune_low_magnitude`; it is left
            as it is. Masked weights come over as exact zeros, so `get_masks` and further pruning see them.

    Returns:
        A Keras 3 model that is not compiled, with the same layer names and weights.

    Raises:
        PruningError: It is no Keras 2 model, is subclassed, holds wrappers of quantization or clustering, or has a
            layer that Keras 3 does not know.

    Example:
        import tf_keras
        model = tfprune.from_tfmot(tf_keras.models.load_model("old.h5"))
    """
    bases = {base.__module__.split(".")[0] for base in type(model).__mro__}
    if isinstance(model, keras.Model):
        raise PruningError(f"'{model.name}' is a Keras 3 model already; use it as it is.")
    if "tf_keras" not in bases:
        raise PruningError(f"from_tfmot takes a tf_keras model, not {type(model).__name__}.")
    plain = _unwrapped(model)
    with tempfile.TemporaryDirectory() as folder:
        # The HDF5 format is the one that Keras 2 writes and Keras 3 reads.
        path = str(Path(folder) / "model.h5")
        plain.save(path, include_optimizer=False)
        try:
            return keras.models.load_model(path, compile=False)
        except Exception as error:
            raise PruningError(
                f"Keras 3 cannot read '{model.name}': {error} Write such a layer for Keras 3 and register it with "
                "keras.saving.register_keras_serializable."
            ) from error


def _unwrapped(model: Any) -> Any:
    """A Keras 2 model of the same weights without pruning wrappers."""
    import tf_keras

    pairs: list[tuple[Any, Any]] = []

    def plain_copy(layer: Any) -> Any:
        kind = type(layer).__name__
        if kind in ("QuantizeWrapper", "QuantizeWrapperV2", "QuantizeLayer", "ClusterWeights"):
            raise PruningError(
                f"The layer '{layer.name}' is wrapped for quantization or clustering ({kind}), which has no Keras 3 "
                "form. Bring over the model from before that step."
            )
        if isinstance(layer, tf_keras.Model):
            return _unwrapped(layer)
        inner = layer.layer if kind == "PruneLowMagnitude" else layer
        fresh = type(inner).from_config(inner.get_config())
        pairs.append((layer, fresh))
        return fresh

    if not (isinstance(model, tf_keras.Sequential) or is_graph_of_keras_2(model)):
        raise PruningError(
            f"'{model.name}' is a subclassed Keras 2 model ({type(model).__name__}), whose code has to be written for "
            "Keras 3. Write the class again with keras, then copy the weights with set_weights()."
        )
    copy = tf_keras.models.clone_model(model, clone_function=plain_copy)
    for old, new in pairs:
        new.set_weights(_masked_weights(old))
    return copy


def _masked_weights(layer: Any) -> list[np.ndarray]:
    if type(layer).__name__ != "PruneLowMagnitude":
        return layer.get_weights()
    masks = {id(weight): mask for weight, mask, _ in layer.pruning_vars}
    return [
        np.where(masks[id(weight)].numpy() != 0, weight.numpy(), 0.0) if id(weight) in masks else weight.numpy()
        for weight in layer.layer.weights
    ]
