"""Keras 2 models: read from files of their own, and pruning wrappers taken off.

Importing tensorflow-model-optimization turns `tf.keras` into Keras 2 for the whole process. So `read` belongs into a
process of its own, and nothing of Keras 2 is imported before a model of its has come.
"""

import contextlib
from typing import Any

import numpy as np

from tfprune.errors import PruningError
from tfprune.model.hooks import is_graph_of_keras_2
from tfprune.model.native import reason_of


def read(path: str) -> Any:
    """The `tf_keras` model of a file or a SavedModel, whatever of tensorflow-model-optimization's is in it.

    Raises:
        PruningError: Keras 2 cannot read it.
    """
    import tensorflow_model_optimization as tfmot
    import tf_keras

    try:
        with contextlib.ExitStack() as stack:
            stack.enter_context(tfmot.sparsity.keras.prune_scope())
            stack.enter_context(tfmot.quantization.keras.quantize_scope())
            stack.enter_context(tfmot.clustering.keras.cluster_scope())
            model = tf_keras.models.load_model(path, compile=False)
    except Exception as error:  # Keras reads configs of any origin, and raises what they raise
        advice = "Save the whole model: model.save(path)."
        if "Unknown layer" in str(error) or "Could not locate class" in str(error):
            advice = (
                "Load it where that class is known, with tf_keras under tfmot.sparsity.keras.prune_scope(), and give "
                "the loaded model: tfprune.from_tfmot(model)."
            )
        raise PruningError(f"Keras 2 cannot read '{path}': {reason_of(error)} {advice}") from error
    if not isinstance(model, tf_keras.Model):
        raise PruningError(
            f"'{path}' is a SavedModel without a Keras model in it, so its layers are not known. Save the Keras model "
            "as a file: model.save('model.h5')."
        )
    return model


def unwrapped(model: Any) -> Any:
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
            return unwrapped(layer)
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
