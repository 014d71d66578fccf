"""Pruning at once, without training."""

from typing import Any

import keras

from tfprune import methods
from tfprune.masks import apply_masks, get_masks
from tfprune.models import as_array, check_model, clone_with_weights


def prune(model: keras.Model, method: Any, data: Any = None, reconstruct: Any = None) -> keras.Model:
    """A new model pruned to the method's final amount, without training.

    The masks are held in any training that follows, so `prune` then `fit` is one-shot pruning with fine-tuning;
    `strip_masks` makes the result a plain model.

    Args:
        model: A built Keras 3 model; it is left as it is.
        method: `Percentile(0.8)`, `Threshold(0.05)`, ..., its config, or a sparsity.

    Raises:
        PruningError: The model is not built, or the method finds nothing to prune in it.

    Example:
        pruned = tfprune.prune(model, tfprune.Percentile(0.8))
    """
    method = methods.get(method)
    check_model(model, "prune")
    pruned = clone_with_weights(model)
    bound = method.bind(pruned)
    before = get_masks(model)
    kept = {weight.key: before.get(weight.key, as_array(weight.variable) != 0) for weight in bound.weights}
    return apply_masks(pruned, bound.decide(method.final, kept))
