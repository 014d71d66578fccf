"""What a run may prune: of a distillation the student, and of any model the weights that train."""

from typing import Any

import keras

from tfprune.deciding.method import BoundMethod
from tfprune.errors import PruningError, listing
from tfprune.model.altered import left_as_they_are
from tfprune.model.prunable import every_weight_and_kernel
from tfprune.model.selectors import is_named
from tfprune.training.masks import constraint_of
from tfprune.training.teaching import Taught


def pruned_part(model: keras.Model) -> keras.Model:
    """The model that is to be pruned when this one trains: of a distillation the student, else the model."""
    if isinstance(model, Taught):
        return model.student
    distillation = getattr(keras, "distillation", None)  # not in the oldest Keras that is supported
    return model.student if distillation is not None and isinstance(model, distillation.Distiller) else model


def leave_frozen(model: keras.Model, bound: BoundMethod, layers: Any) -> list[str]:
    """Takes the weights that do not train out of a bound method, unless `layers` names them.

    Args:
        model: The model that is pruned.
        bound: A method tied to it.
        layers: What the user asked for.

    Returns:
        The keys of the weights that are left alone.

    Raises:
        PruningError: A kernel that LoRA or integers stand for is named.
    """
    altered = left_as_they_are(model, layers)
    frozen = [w.key for w in bound.scored if not w.variable.trainable and not is_named(w, layers)]
    left = list(dict.fromkeys([*altered, *frozen]))
    bound.leave(set(left))
    return left


def frozen_kernels(model: keras.Model, layers: Any) -> list[str]:
    """The keys of the chosen kernels that do not train, are not named and hold no mask."""
    found = (w for w in every_weight_and_kernel(model, layers) if w.is_kernel and not w.variable.trainable)
    return [w.key for w in found if not is_named(w, layers) and constraint_of(w.variable) is None]


def nothing_trains(model: keras.Model, left: list[str]) -> PruningError:
    """The error for a run in which every weight is left alone."""
    return PruningError(
        f"All weights of '{model.name}' that could be pruned do not train ({listing(left)}), so nothing could make up "
        "for what goes. Set trainable = True, name them in layers= to prune them all the same, or prune at once: "
        "tfprune.prune(model, method)."
    )
