"""Back to a plain Keras model, with exact zeros in the place of masks."""

import warnings

import keras
import numpy as np

from tfprune.errors import listing
from tfprune.model.altered import altered_kernels, refuse_altered
from tfprune.model.copying import clone_with_weights, unwrapped
from tfprune.model.prunable import every_weight
from tfprune.model.tree import as_array, check_model, wrapped_layers
from tfprune.training.masks import constraint_of, held_masks


def strip_masks(model: keras.Model) -> keras.Model:
    """A new plain Keras model of the same answers: no tfprune class inside, zeros exact, compiled as before.

    Args:
        model: A model pruned in `fit`, wrapped, or by `prune`; it is left as it is. A model without masks is copied.

    Returns:
        A model that shares nothing with the first and loads with Keras alone. Its optimizer is fresh.

    Raises:
        PruningError: The model is not built, or is subclassed and cannot be rebuilt from its config; LoRA adds to a
            kernel whose mask is held.

    Example:
        plain = tfprune.strip_masks(model)
        plain.save("pruned.keras")
    """
    check_model(model, "strip the masks of")
    refuse_altered([weight for weight in altered_kernels(model) if constraint_of(weight.variable) is not None])
    masks = held_masks(every_weight(model))
    plain = unwrapped(model) if wrapped_layers(model) else clone_with_weights(model)
    overwritten = []
    for weight in every_weight(plain):
        if weight.key in masks:
            array = as_array(weight.variable)
            if np.any(array[~masks[weight.key]]):
                overwritten.append(weight.key)
            # Multiplying would leave -0.0 where a negative weight was masked.
            weight.variable.assign(keras.ops.where(masks[weight.key], array, 0.0))
    if overwritten:
        warnings.warn(
            f"tfprune: {listing(overwritten)} of '{model.name}' had other values than zero under the mask and were "
            "zeroed now, so the plain model answers otherwise. They were written after pruning, past the masks: by "
            "set_weights or load_weights with weights that have fewer zeros, by assign, or by a callback that brings "
            "weights back, listed behind the pruning callback; list it before. To keep the values as they are, "
            "write plain = keras.models.clone_model(model); plain.set_weights(model.get_weights()).",
            stacklevel=2,
        )
    return plain
