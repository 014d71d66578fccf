"""Pruning at once, without training."""

from typing import Any

import keras

from tfprune import methods
from tfprune.errors import PruningError
from tfprune.masks import apply_masks, get_masks
from tfprune.models import as_array, check_model, clone_with_weights
from tfprune.reconstruct import check_way, warn_of_skipped
from tfprune.reconstruct import reconstruct as repair
from tfprune.statistics import inform


def prune(model: keras.Model, method: Any, data: Any = None, reconstruct: Any = None) -> keras.Model:
    """A new model pruned to the method's final amount, without training.

    The masks are held in any training that follows, so `prune` then `fit` is one-shot pruning with fine-tuning;
    `strip_masks` makes the result a plain model.

    Args:
        model: A built Keras 3 model; it is left as it is.
        method: `Percentile(0.8)`, `Threshold(0.05)`, ..., its config, or a sparsity.
        data: Anything that `fit` takes, for a criterion that needs data (`(x, y)` where it needs a loss) and for
            `reconstruct` (some hundreds of inputs, no labels). Defaults to None.
        reconstruct: Repair of what is left, see `tfprune.reconstruct.reconstruct`: None (default), `"batch_norm"`,
            `"least_squares"`, `"obs"` (also chooses anew which entries stay), or True: `"obs"`, for channels and
            thresholds `"least_squares"`.

    Raises:
        PruningError: The model is not built, or the method finds nothing to prune in it; a repair without data.

    Example:
        pruned = tfprune.prune(model, tfprune.Percentile(0.8), data=images[:1000], reconstruct=True)
    """
    method = methods.get(method)
    check_model(model, "prune")
    way = _way(reconstruct, method, data)
    pruned = clone_with_weights(model)
    bound = method.bind(pruned)
    inform(bound, model, data)
    before = get_masks(model)
    kept = {weight.key: before.get(weight.key, as_array(weight.variable) != 0) for weight in bound.weights}
    apply_masks(pruned, bound.decide(method.final, kept))
    if way is not None:
        warn_of_skipped(repair(pruned, model, data, way, getattr(method, "pattern", None)))
    return pruned


def _way(reconstruct: Any, method: methods.Method, data: Any) -> str | None:
    """The name of the repair, once it is known to be possible."""
    if reconstruct is None or reconstruct is False:
        return None
    percentile = isinstance(method, methods.Percentile)
    way = "least_squares" if reconstruct is True and not percentile else check_way(reconstruct)
    if way == "obs" and not percentile:
        raise PruningError(
            f"reconstruct='obs' chooses which entries of each weight stay, which {type(method).__name__} has decided; "
            "write reconstruct='least_squares' or True."
        )
    if data is None:
        raise PruningError(f"reconstruct={way!r} needs data: write data=images[:1000]; labels are not needed.")
    return way
