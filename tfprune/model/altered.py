"""Kernels that are not what their variable holds: LoRA adds to them, or Keras keeps them in integers."""

import contextlib
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np

from tfprune.errors import PruningError, listing
from tfprune.model.prunable import PrunableWeight, every_weight_and_kernel
from tfprune.model.selectors import is_named
from tfprune.model.tree import as_array

INTEGERS = ("int8", "int4", "gptq", "awq")


def has_lora(layer: keras.Layer) -> bool:
    """Whether LoRA adds to the kernel of a layer."""
    return bool(getattr(layer, "lora_enabled", False))


def is_quantized(layer: keras.Layer) -> bool:
    """Whether Keras keeps the kernel of a layer in integers."""
    return getattr(layer, "quantization_mode", None) in INTEGERS


def altered_kernels(model: keras.Model, layers: Any = None) -> list[PrunableWeight]:
    """The kernels of layers with LoRA or with integers, of the chosen layers."""
    return [weight for weight in every_weight_and_kernel(model, layers) if is_altered(weight)]


def is_altered(weight: PrunableWeight) -> bool:
    """Whether a weight is such a kernel."""
    return weight.is_kernel and (has_lora(weight.place.layer) or is_quantized(weight.place.layer))


def in_effect(weight: PrunableWeight) -> np.ndarray:
    """The values of a kernel with which its layer computes, zero where they are; scales are left out."""
    layer = weight.place.layer
    if not is_altered(weight):
        return as_array(weight.variable)
    # The layer's own property unpacks integers and adds LoRA; the variable does neither.
    values = as_array(getattr(layer, weight.variable.name))
    zero = getattr(layer, f"{weight.variable.name}_zero", None)  # integers with a zero point have no zero at 0
    return values if zero is None else np.ones_like(values)


def refuse_altered(weights: list[PrunableWeight]) -> None:
    """Raises for the first of the kernels whose zeros would not be zeros in effect.

    Raises:
        PruningError: LoRA adds to one, or one is kept in integers; says what to write instead.
    """
    lora = [weight.key for weight in weights if has_lora(weight.place.layer)]
    if lora:
        raise PruningError(
            f"LoRA adds to {listing(lora)}, so zeros there would be no zeros in effect. Keras merges what LoRA learned "
            'when it saves: write model.save_weights("merged.weights.h5"), make the model anew without enable_lora(), '
            'and model.load_weights("merged.weights.h5"); prune that.'
        )
    integers = [weight.key for weight in weights if is_quantized(weight.place.layer)]
    if integers:
        raise PruningError(
            f"Keras keeps {listing(integers)} in integers, which masks cannot lie on. Prune first, then write "
            'plain = tfprune.strip_masks(model) and plain.quantize("int8"): zeros stay zeros.'
        )


@contextlib.contextmanager
def telling_of_altered(model: keras.Model) -> Iterator[None]:
    """Adds to an error that may come of such kernels what stands in their way, and what to write."""
    try:
        yield
    except PruningError as error:
        try:
            refuse_altered(altered_kernels(model))
        except PruningError as reason:
            raise PruningError(f"{error} {reason}") from None
        raise


def left_as_they_are(model: keras.Model, layers: Any) -> list[str]:
    """The chosen kernels that training leaves as they are; those that are named themselves are refused."""
    altered = altered_kernels(model, layers)
    refuse_altered([weight for weight in altered if is_named(weight, layers)])
    return [weight.key for weight in altered]
