"""Which weights of which layers may be pruned, and which of their axes counts input channels.

By default every kernel: of dense, convolution (also transposed, depthwise, separable), embedding, attention and
recurrent layers, however deep inside nested models, wrappers and subclassed models. Biases and norms are left alone
unless they are named. A layer of the user's own class is pruned when it is named: its weights of rank 2 and more.
"""

import inspect
import math
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import keras

from tfprune.errors import PruningError, listing, nearest
from tfprune.model.layers import LinearForm, facts_of
from tfprune.model.selectors import Selectors, is_chosen, means_key, means_layer, means_weight, selectors
from tfprune.model.tree import Place, places, weight_places

MANY = 0.1  # share of the parameters from which on it is said that they are left alone


@dataclass(frozen=True, eq=False)
class PrunableWeight:
    """One weight that may be pruned.

    Args:
        key: Its place in the model, `"backbone/conv1/kernel"`; the same for the plain and the wrapped model.
        variable: The Keras variable.
        place: The layer that owns it.
        input_axis: The axis that counts input channels, which TFLite stores last.
        is_kernel: Whether it is pruned without being named.
    """

    key: str
    variable: keras.Variable
    place: Place
    input_axis: int
    is_kernel: bool

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the weight."""
        return tuple(self.variable.shape)


def linear_form(weight: PrunableWeight) -> LinearForm | None:
    """The linear form of a weight; None for one that is used otherwise (recurrent, embedding, transposed, ...)."""
    layer = weight.place.layer
    form = facts_of(layer).forms.get(weight.variable.name)
    # A layer of the user's own class may compute something else; a LoRA or quantized kernel is more than one matrix.
    plain = type(layer).__module__.startswith("keras.") and not getattr(layer, "lora_enabled", False)
    return form(layer) if form is not None and plain else None


def prunable_weights(model: keras.Model, layers: Any = None) -> list[PrunableWeight]:
    """The weights of a model that a method may prune, in the order of the model; each once.

    Args:
        model: A built model.
        layers: Which layers; see `selectors`. Defaults to None: every kernel.

    Raises:
        PruningError: A name matches nothing (the nearest are told), or nothing is left to prune.
    """
    chosen = selectors(layers)
    found = list(_candidates(model, chosen))
    if isinstance(chosen, list):
        known = [place.path for place in places(model)]
        for name in chosen:
            if not any(means_weight(name, weight.place, weight.key) for weight in found):
                if any(means_layer(name, place.layer, place.path) for place in places(model)):
                    raise PruningError(
                        f"layers={name!r} is in '{model.name}', but has no weight of rank 2 or more to prune. "
                        f"To prune a bias or a norm, name the weight itself, such as '{name}/bias'."
                    )
                raise PruningError(f"layers={name!r} matches no layer of '{model.name}'. {nearest(name, known)}")
    if not found:
        raise PruningError(
            f"'{model.name}' has no prunable weight"
            f"{'' if chosen is None else ' under layers=' + repr(layers)}: none of its layers "
            f"({listing(place.path for place in places(model))}) has a kernel. "
            "Name a layer of your own class, or a weight such as 'dense/bias', in layers=."
        )
    return found


def warn_of_unnamed(model: keras.Model, layers: Any) -> None:
    """Warns of a model that has many of its parameters in layers of the user's own, which are pruned when named."""
    if layers is not None:
        return
    weights = list(every_weight(model))
    own = [weight for weight in weights if not weight.is_kernel and _may_be_asked_for(weight)]
    share = sum(math.prod(weight.shape) for weight in own) / max(1, sum(math.prod(weight.shape) for weight in weights))
    if share >= MANY:
        names = list(dict.fromkeys(weight.place.path for weight in own))
        warnings.warn(
            f"tfprune: {share:.0%} of the parameters of '{model.name}' lie in layers that are not Keras' own "
            f"({listing(names)}) and stay as they are. To prune them too, name these layers beside the others: "
            f"layers=[{', '.join(map(repr, names[:2]))}, ...].",
            stacklevel=_frames_of_tfprune(),
        )


def _frames_of_tfprune() -> int:
    """How many callers up the stack are no longer of this package: whoever asked is warned."""
    frame, count = inspect.currentframe(), 0
    while frame is not None and frame.f_globals.get("__name__", "").startswith("tfprune."):
        frame, count = frame.f_back, count + 1
    return count


def every_weight(model: keras.Model, layers: Any = None) -> Iterator[PrunableWeight]:
    """Every floating-point weight of a model that a mask could lie on, kernels and all others, each once."""
    return (weight for weight in _weights(model, layers) if _is_floating(weight))


def every_weight_and_kernel(model: keras.Model, layers: Any = None) -> Iterator[PrunableWeight]:
    """Like `every_weight`, and the kernels that are kept in integers, which no mask can lie on."""
    return (weight for weight in _weights(model, layers) if weight.is_kernel or _is_floating(weight))


def _is_floating(weight: PrunableWeight) -> bool:
    return str(weight.variable.dtype).startswith(("float", "bfloat"))


def _weights(model: keras.Model, layers: Any) -> Iterator[PrunableWeight]:
    chosen = selectors(layers)
    seen: set[int] = set()  # a variable may be tied to several layers; it has one mask
    for key, place, variable in weight_places(model):
        kernels = facts_of(place.layer).kernels
        is_kernel = variable.name in kernels
        axis = kernels[variable.name].inputs if is_kernel else -2 if len(variable.shape) > 1 else -1
        if id(variable) not in seen and is_chosen(chosen, place, key):
            seen.add(id(variable))
            yield PrunableWeight(key, variable, place, axis, is_kernel)


def _candidates(model: keras.Model, chosen: Selectors) -> Iterator[PrunableWeight]:
    return (weight for weight in every_weight(model, chosen) if weight.is_kernel or _is_asked_for(weight, chosen))


def _is_asked_for(weight: PrunableWeight, chosen: Selectors) -> bool:
    """Whether a weight that is no kernel was named: by its own key, or through a layer of an unknown class."""
    if not isinstance(chosen, list):
        return False
    if any(means_key(name, weight.key) for name in chosen if "/" in name):
        return True
    return _may_be_asked_for(weight) and any(
        means_layer(name, weight.place.layer, weight.place.path) for name in chosen
    )


def _may_be_asked_for(weight: PrunableWeight) -> bool:
    """Whether a weight is pruned where its layer is named: a matrix of a class of the user's."""
    return not facts_of(weight.place.layer).kernels and len(weight.shape) >= 2 and bool(weight.variable.trainable)
