"""Back to a plain Keras model, with exact zeros in the place of masks."""

from typing import Any

import keras

from tfprune.masks import held_masks
from tfprune.models import as_array, check_model, copy_model, copy_weights, fresh_layer
from tfprune.prunable import every_weight
from tfprune.wrapper import PrunedLayer, pruned_layers


def strip_masks(model: keras.Model) -> keras.Model:
    """A new plain Keras model of the same answers: no tfprune class inside, zeros exact, compiled as before.

    Args:
        model: A model pruned in `fit`, wrapped, or by `prune`; it is left as it is. A model without masks is copied.

    Returns:
        A model that shares nothing with the first and loads with Keras alone. Its optimizer is fresh.

    Raises:
        PruningError: The model is not built, or is subclassed and cannot be rebuilt from its config.

    Example:
        plain = tfprune.strip_masks(model)
        plain.save("pruned.keras")
    """
    check_model(model, "strip the masks of")
    masks = held_masks(every_weight(model))
    if pruned_layers(model):
        plain = _unwrapped(model)
    else:
        plain = copy_model(model)
        copy_weights(model, plain)
    for weight in every_weight(plain):
        if weight.key in masks:
            # Multiplying would leave -0.0 where a negative weight was masked.
            weight.variable.assign(keras.ops.where(masks[weight.key], as_array(weight.variable), 0.0))
    return plain


def _unwrapped(model: keras.Model) -> keras.Model:
    pairs: list[tuple[keras.Layer, keras.Layer]] = []

    def plain_copy(layer: Any) -> Any:
        plain = layer.layer if isinstance(layer, PrunedLayer) else layer
        fresh = fresh_layer(plain)
        if isinstance(plain, keras.Layer):
            pairs.append((plain, fresh))
        return fresh

    copy = copy_model(model, plain_copy)
    for old, new in pairs:
        copy_weights(old, new)
    return copy
