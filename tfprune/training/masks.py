"""The masks of a model: held inside the compiled step, read, applied, counted.

A mask is decided on the host and held by a constraint on its weight, which the optimizer applies inside every
compiled step, whatever the callback order, `steps_per_execution` or distribution strategy.
"""

import warnings
from collections.abc import Iterable, Mapping
from typing import Any

import keras
import numpy as np

from tfprune.errors import PruningError, nearest
from tfprune.model.altered import in_effect, is_altered, refuse_altered
from tfprune.model.copying import scope_of
from tfprune.model.hooks import moving_averages_of, optimizer_at_work, variables_of
from tfprune.model.memory import empty, handed_over, zeroed
from tfprune.model.prunable import PrunableWeight, every_weight_and_kernel
from tfprune.model.tree import as_array, check_model
from tfprune.training.step import retrace


class MaskConstraint(keras.constraints.Constraint):
    """Keeps the entries of a weight at zero where its mask is False, after every optimizer step.

    Args:
        mask: A boolean Keras variable of the weight's shape, True = kept.
        inner: The user's own constraint on the weight, which sees it with its zeros. Defaults to None.
        decided: A boolean Keras variable that becomes True when the mask is set. Defaults to None.
    """

    def __init__(self, mask: keras.Variable, inner: Any = None, decided: keras.Variable | None = None):
        self.mask = mask
        self.inner = inner
        self.decided = decided

    @property
    def holds_masks_of(self) -> Any:
        """What is there without the mask, under the name by which wrapped layers tell it."""
        return self.inner

    def __call__(self, weight: Any) -> Any:
        average = _moving_average(weight)
        if average is not None:
            # The optimizer has just mixed the weight from before the mask into its moving average.
            average.assign(self._masked(average))
        value = self._masked(weight)
        return value if self.inner is None else self._masked(self.inner(value))

    def dense(self, weight: keras.Variable) -> Any:
        """The weight's values from which a new mask takes what it keeps; those held at zero are zero."""
        return keras.ops.convert_to_tensor(weight)

    def _masked(self, value: Any) -> Any:
        # Multiplying would turn an infinite entry into NaN and a negative one into -0.0.
        return keras.ops.where(self.mask, keras.ops.convert_to_tensor(value), 0.0)

    def get_config(self) -> dict[str, Any]:
        """Nothing: masks are state, saved with a wrapped model and not in any configuration."""
        return {}


def constraint_of(variable: keras.Variable) -> MaskConstraint | None:
    """The constraint that holds a weight's mask, None where it has none."""
    return variable.constraint if isinstance(variable.constraint, MaskConstraint) else None


def hold(variable: keras.Variable, mask: keras.Variable, decided: keras.Variable | None = None) -> MaskConstraint:
    """Makes every later optimizer step keep the weight's zeros; the user's own constraint goes on working."""
    held = constraint_of(variable)
    inner = held.inner if held is not None else variable.constraint
    variable.constraint = MaskConstraint(mask, inner, decided)
    return variable.constraint


def hold_no_more(variable: keras.Variable) -> bool:
    """Puts a constraint that does more than hold its mask back to one that holds it; False where there is none."""
    held = constraint_of(variable)
    if held is None or type(held) is MaskConstraint:
        return False
    hold(variable, held.mask, held.decided)
    return True


def new_mask(model: keras.Model, weight: PrunableWeight) -> keras.Variable:
    """A mask variable that keeps everything, placed where the model's weights are."""
    with scope_of(model):
        return keras.Variable(
            np.ones(weight.shape, bool), dtype="bool", trainable=False, name=f"{weight.variable.name}_mask"
        )


def _moving_average(weight: Any) -> keras.Variable | None:
    """The moving average (`use_ema=True`) that the optimizer at work keeps of a weight."""
    optimizer = optimizer_at_work()
    if optimizer is None or not optimizer.use_ema:
        return None
    pairs = zip(variables_of(optimizer), moving_averages_of(optimizer))
    return next((average for variable, average in pairs if variable is weight), None)


def set_mask(variable: keras.Variable, kept: np.ndarray) -> None:
    """Replaces a held mask and zeroes the weight under it at once."""
    constraint = constraint_of(variable)
    if constraint is None:
        raise PruningError(f"The weight '{variable.path}' holds no mask; hold() it first.")
    own = empty(kept.shape, bool)
    own[...] = kept
    mask = handed_over(own)
    left = zeroed(constraint.dense(variable), mask)
    constraint.mask.assign(mask)
    if constraint.decided is not None:
        constraint.decided.assign(True)
    variable.assign(left)


def held_masks(weights: Iterable[PrunableWeight]) -> dict[str, np.ndarray]:
    """The masks that are held now and fit their weights, by the key of the weight."""
    found = {}
    for weight in weights:
        constraint = constraint_of(weight.variable)
        if constraint is not None:
            mask, values = as_array(constraint.mask), as_array(weight.variable)
            undecided = constraint.decided is not None and not bool(as_array(constraint.decided))
            # A wrapped layer whose masks nothing has set may have been loaded with zeros.
            found[weight.key] = values != 0 if undecided and values.any() else fitting(mask, values)
    return found


def fitting(mask: np.ndarray, values: np.ndarray) -> np.ndarray:
    """A held mask, or that of the weight's own zeros where weights with their zeros were loaded since.

    Weights of another epoch, as `load_weights` brings them, have as many zeros as the mask and have them elsewhere.

    >>> fitting(np.array([True, False, True]), np.array([0.0, 2.0, 3.0]))
    array([False,  True,  True])
    """
    own = values != 0
    return own if np.any(own & ~mask) and np.count_nonzero(own) <= np.count_nonzero(mask) else mask


def zeros(masks: Mapping[str, np.ndarray]) -> int:
    """How many weights masks take away."""
    return sum(mask.size - int(np.count_nonzero(mask)) for mask in masks.values())


def get_masks(model: keras.Model, layers: Any = None) -> dict[str, np.ndarray]:
    """The masks of a model: for each pruned weight, where its entries are kept.

    A weight whose mask is held (after pruning in `fit`, wrapped or not, or by `prune`) gives that mask. Any other
    prunable weight with zeros in it gives the mask of its non-zero entries, so stripped and loaded models work too.
    A kernel to which LoRA adds, or which Keras keeps in integers, gives that of the values its layer computes with.

    Args:
        model: Any built Keras 3 model.
        layers: Which layers; None (default) for all.

    Returns:
        `{"conv1/kernel": boolean array of the weight's shape, True = kept}`; empty for a dense model.

    >>> layer = keras.layers.Dense(2, use_bias=False, name="dense")
    >>> model = keras.Sequential([keras.Input((2,)), layer])
    >>> layer.set_weights([np.array([[1.0, 0.0], [2.0, 3.0]])])
    >>> get_masks(model)["dense/kernel"]
    array([[ True, False],
           [ True,  True]])
    """
    check_model(model, "read the masks of")
    masks = {}
    for weight in every_weight_and_kernel(model, layers):
        if constraint_of(weight.variable) is not None and not is_altered(weight):
            masks.update(held_masks([weight]))
        elif weight.is_kernel:
            kept = in_effect(weight) != 0
            if not kept.all():
                masks[weight.key] = kept
    return masks


def apply_masks(model: keras.Model, masks: Mapping[str, Any]) -> keras.Model:
    """Zeroes the weights of `model` under the masks, in place, and holds them in any training that follows.

    Also in a loop of your own: a `tf.function` that was traced before is traced anew at its next call.

    Args:
        model: A built Keras 3 model; it is changed.
        masks: Key of a weight (as `get_masks` gives it) -> boolean array of its shape, True = kept.

    Returns:
        The same model.

    Raises:
        PruningError: A key that the model does not have, a mask of another shape, or for a kernel to which LoRA adds or
            that Keras keeps in integers; nothing is changed then.
    """
    if put_masks(model, masks):
        retrace(model)
    for key, mask in masks.items():
        if np.size(mask) and not np.any(mask):
            warnings.warn(f"tfprune: the mask for {key!r} keeps nothing: the whole weight is zero.", stacklevel=2)
    return model


def put_masks(model: keras.Model, masks: Mapping[str, Any]) -> bool:
    """Like `apply_masks`, for a model that no compiled step knows yet; gives whether more weights are held now."""
    check_model(model, "apply masks to")
    if not isinstance(masks, Mapping):
        raise PruningError(
            f"masks is {type(masks).__name__}, no mapping; write {{'dense/kernel': mask}}, as get_masks gives it."
        )
    weights = {weight.key: weight for weight in every_weight_and_kernel(model)}
    refuse_altered([weights[key] for key in masks if key in weights])
    checked = {}
    for key, mask in masks.items():
        if key not in weights:
            raise PruningError(f"'{model.name}' has no weight '{key}' for its mask. {nearest(key, weights)}")
        array = np.asarray(mask)
        if array.shape != weights[key].shape:
            raise PruningError(
                f"The mask for '{key}' has shape {array.shape}, the weight {weights[key].shape}; they must be equal."
            )
        if array.dtype != np.bool_ and not np.isin(array, (0, 1)).all():
            raise PruningError(
                f"The mask for '{key}' holds other values than True and False; write mask = weight != 0."
            )
        checked[key] = array.astype(bool)
    unheld = [key for key in checked if constraint_of(weights[key].variable) is None]
    for key in unheld:
        hold(weights[key].variable, new_mask(model, weights[key]))
    for key, array in checked.items():
        set_mask(weights[key].variable, array)
    return bool(unheld)
